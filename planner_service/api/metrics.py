"""Figures for Prometheus: requests by route and status, planning time, what waits, what is cached.

Counting a request must not cost what answering it does: the counts are plain numbers, written by
the event loop's thread alone, and take Prometheus's form only when somebody reads them.
"""

from __future__ import annotations

import time
from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector
from starlette.types import ASGIApp, Message, Receive, Scope, Send

BUCKET_SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 60.0)


class _Durations:
    """A histogram: counts by bucket, the last one for what is longer than all."""

    def __init__(self) -> None:
        self._counts = [0] * (len(BUCKET_SECONDS) + 1)
        self.sum_seconds = 0.0

    def add(self, seconds: float) -> None:
        self._counts[bisect_left(BUCKET_SECONDS, seconds)] += 1
        self.sum_seconds += seconds

    def buckets(self) -> list[tuple[str, float]]:
        """Cumulative counts by upper bound, as Prometheus writes them."""
        bounds = [*map(str, BUCKET_SECONDS), "+Inf"]
        total = 0
        cumulative = []
        for bound, count in zip(bounds, self._counts, strict=True):
            total += count
            cumulative.append((bound, float(total)))
        return cumulative


class Metrics(Collector):
    """What one service counts."""

    def __init__(self) -> None:
        self._requests: dict[tuple[str, ...], _Durations] = {}
        self._planning: dict[tuple[str, ...], _Durations] = {}
        self._gauges: list[tuple[str, str, Callable[[], float]]] = []
        self._registry = CollectorRegistry()
        self._registry.register(self)

    def count_request(self, route: str, status: int, seconds: float) -> None:
        """A request was answered."""
        self._requests.setdefault((route, str(status)), _Durations()).add(seconds)

    def count_planning(self, outcome: str, seconds: float) -> None:
        """A computation ended: `answered`, `refused`, `cancelled` or `failed`."""
        self._planning.setdefault((outcome,), _Durations()).add(seconds)

    def watch(self, name: str, meaning: str, read: Callable[[], float]) -> None:
        """Show what `read` returns whenever the figures are asked for."""
        self._gauges.append((name, meaning, read))

    def text(self) -> bytes:
        """All figures in Prometheus's text format."""
        return generate_latest(self._registry)

    def collect(self) -> Iterator[Metric]:
        """The figures as Prometheus's client library wants them."""
        requests = HistogramMetricFamily(
            "tightfit_request_seconds", "Time to answer a request", labels=["route", "status"]
        )
        _fill(requests, self._requests)
        yield requests
        planning = HistogramMetricFamily(
            "tightfit_planning_seconds", "Time to compute an answer", labels=["outcome"]
        )
        _fill(planning, self._planning)
        yield planning
        for name, meaning, read in self._gauges:
            yield GaugeMetricFamily(name, meaning, read())


def _fill(family: HistogramMetricFamily, found: Mapping[tuple[str, ...], _Durations]) -> None:
    for labels, durations in found.items():
        family.add_metric(list(labels), durations.buckets(), durations.sum_seconds)


class CountRequests:
    """Counts every request by the route that answered it."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request (ASGI)."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        status = 500  # what Starlette answers, outside this middleware, when nothing else did

        async def send_counted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        started = time.perf_counter()
        try:
            await self._app(scope, receive, send_counted)
        finally:
            route = getattr(scope.get("endpoint"), "__name__", "none")
            self._metrics.count_request(route, status, time.perf_counter() - started)
