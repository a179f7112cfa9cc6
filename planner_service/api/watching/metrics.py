"""Figures for Prometheus: requests by route and status, planning time, what waits, what is cached.

Counting a request must not cost what answering it does: the counts are plain numbers, written by
the event loop's thread alone, and take Prometheus's form only when somebody reads them.
"""

from __future__ import annotations

import time
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from planner_service.api.watching.request_log import log_request
from planner_service.contract.measurements import MeasurementReport

BUCKET_RATIOS = (0.5, 0.8, 0.9, 0.95, 0.99, 1.0, 1.01, 1.05, 1.1, 1.5)
BUCKET_SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 60.0)


class _Histogram:
    """Counts by bucket, the last one for what is above all bounds."""

    def __init__(self, bounds: Sequence[float]) -> None:
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self.sum = 0.0

    def add(self, value: float) -> None:
        self._counts[bisect_left(self._bounds, value)] += 1
        self.sum += value

    def buckets(self) -> list[tuple[str, float]]:
        """Cumulative counts by upper bound, as Prometheus writes them."""
        bounds = [*map(str, self._bounds), "+Inf"]
        total = 0
        cumulative = []
        for bound, count in zip(bounds, self._counts, strict=True):
            total += count
            cumulative.append((bound, float(total)))
        return cumulative


def _histogram(found: dict[tuple[str, ...], _Histogram], labels: tuple[str, ...]) -> _Histogram:
    """The histogram of these labels, made when they are first seen."""
    histogram = found.get(labels)
    if histogram is None:
        histogram = found[labels] = _Histogram(BUCKET_SECONDS)
    return histogram


class Metrics(Collector):
    """What one service counts."""

    def __init__(self) -> None:
        self._requests: dict[tuple[str, ...], _Histogram] = {}
        self._planning: dict[tuple[str, ...], _Histogram] = {}
        self._ratios = _Histogram(BUCKET_RATIOS)
        self._reports: Counter[str] = Counter()
        self._lost_attempts = 0
        self._jobs: Mapping[str, int] = {}
        self._gauges: list[tuple[str, str, Callable[[], float]]] = []
        self._registry = CollectorRegistry()
        self._registry.register(self)

    def count_request(self, route: str, status: int, seconds: float) -> None:
        """A request was answered."""
        _histogram(self._requests, (route, str(status))).add(seconds)

    def count_planning(self, outcome: str, seconds: float) -> None:
        """A computation ended: `answered`, `refused`, `cancelled` or `failed`."""
        _histogram(self._planning, (outcome,)).add(seconds)

    def count_report(self, outcome: str) -> None:
        """An attempt reported how it ended."""
        self._reports[outcome] += 1

    def count_lost_attempt(self) -> None:
        """An attempt was silent past its lease; it may come back all the same."""
        self._lost_attempts += 1

    def count_measurement(self, report: MeasurementReport) -> None:
        """A run said what it measured."""
        if report.projected_peak_bytes:
            self._ratios.add(report.measured_peak_bytes / report.projected_peak_bytes)

    def watch(self, name: str, meaning: str, read: Callable[[], float]) -> None:
        """Show what `read` returns whenever the figures are asked for."""
        self._gauges.append((name, meaning, read))

    def text(self, jobs: Mapping[str, int]) -> bytes:
        """All figures in Prometheus's text format; `jobs` are counts by state."""
        self._jobs = jobs
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
        ratios = HistogramMetricFamily(
            "tightfit_measured_to_projected_ratio", "Measured peak over projected peak, of every measurement"
        )
        ratios.add_metric([], self._ratios.buckets(), self._ratios.sum)
        yield ratios
        reports = CounterMetricFamily("tightfit_attempt_reports", "Attempts that ended", labels=["outcome"])
        for outcome, count in self._reports.items():
            reports.add_metric([outcome], count)
        yield reports
        lost = "Attempts that were silent past their leases"
        yield CounterMetricFamily("tightfit_attempts_lost", lost, self._lost_attempts)
        jobs = GaugeMetricFamily("tightfit_jobs", "Jobs in the database", labels=["state"])
        for name, count in self._jobs.items():
            jobs.add_metric([name], count)
        yield jobs
        for name, meaning, read in self._gauges:
            yield GaugeMetricFamily(name, meaning, read())


def _fill(family: HistogramMetricFamily, found: Mapping[tuple[str, ...], _Histogram]) -> None:
    for labels, histogram in found.items():
        family.add_metric(list(labels), histogram.buckets(), histogram.sum)


class CountRequests:
    """Counts every request by the route that answered it, and has it logged."""

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
            seconds = time.perf_counter() - started
            self._metrics.count_request(route, status, seconds)
            log_request(scope, route=route, status=status, seconds=seconds)
