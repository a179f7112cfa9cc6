"""One job against all holes: which hold it, what is missing in the others, and in which order to try them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from planner_service.placement.curve import Costs, Curve
from planner_service.placement.holes import Hole
from planner_service.placement.site import Site

RankBy = Literal["duration", "cost"]
Unfit = Literal["memory", "slowdown", "device", "count"]
"""memory: nothing fits; slowdown: what fits is slower than asked for; device: of another kind; count: too
few devices in the node."""

SECONDS_PER_HOUR = 3600
BLOCKS_PER_VALUE = 8

Indices = NDArray[np.intp]


@dataclass(frozen=True, kw_only=True)
class Demand:
    """What a job asks for besides memory."""

    device_kind: Literal["cpu", "cuda"] = "cuda"
    devices: int = 1
    """Processes of a data-parallel job, each with a device of its own in one node."""
    maximum_slowdown_ratio: float | None = None
    """Most time as a multiple of full BPTT's on the same device; None: any."""
    seconds_per_unit: float | None = None
    """Seconds of one unit of the curve's makespans at relative speed 1, all iterations; None: not known."""


class Offer(NamedTuple):
    """What one hole means for one job; bytes are those of one device."""

    hole: Hole
    available_bytes: int
    """What training may hold in it."""
    fits: bool
    reason: Unfit | None = None
    """Why it does not fit."""
    missing_bytes: int = 0
    """Free bytes that the hole lacks; 0 where memory is not what it lacks."""
    point: int = -1
    """Of the curve; -1 without a plan."""
    budget_bytes: int | None = None
    """The plan's budget: the least that gives this makespan."""
    makespan: float | None = None
    slowdown_ratio: float | None = None
    """Makespan over that of full BPTT on the same device."""
    seconds: float | None = None
    cost: float | None = None
    """Of all devices for all iterations, in the unit of the holes' costs."""

    @property
    def request_bytes(self) -> int | None:
        """What to set aside on the device: the plan's budget and the process's context."""
        return None if self.budget_bytes is None else self.budget_bytes + self.hole.context_bytes

    @property
    def limit_bytes(self) -> int | None:
        """The least nominal limit under which it is not killed: of it the driver keeps its share."""
        return None if self.request_bytes is None else self.hole.nominal_bytes(self.request_bytes)


class Offers(NamedTuple):
    """The answer for one job."""

    fitting_count: int
    """Holes that hold it."""
    ranked: list[Offer]
    """The best first; after those that fit, the others by what they lack."""


def offers_of(site: Site, demand: Demand, curve: Curve, *, rank_by: RankBy, most_offers: int) -> Offers:
    """The `most_offers` best holes for a job.

    Holes that fit are ranked by `rank_by`, then by the other of duration and cost, then by how tightly
    they fit; an unknown cost counts as the highest.
    """
    matched = _Matched(site, demand, curve)
    order = matched.ranking(rank_by, most_offers)
    return Offers(matched.fitting_count, [matched.offer(int(index)) for index in order])


class _Matched:
    """The holes of a site with the curve's answers."""

    def __init__(self, site: Site, demand: Demand, curve: Curve) -> None:
        self._site, self._demand, self._curve = site, demand, curve
        self._points = _points(site, curve)
        self._first_allowed = curve.first_point_within(demand.maximum_slowdown_ratio)
        self._eligible = site.eligible(demand.device_kind, demand.devices)
        # Holes ascend by memory, and with it the curve's points.
        first_hole = np.searchsorted(self._points[self._eligible], self._first_allowed)
        self._fitting: Indices = self._eligible[first_hole:]
        self._too_small: Indices = self._eligible[:first_hole]
        self.fitting_count = len(self._fitting)

    def ranking(self, rank_by: RankBy, most_offers: int) -> Indices:
        """Indices of the best holes, the best first."""
        keys = (self._durations, self._costs) if rank_by == "duration" else (self._costs, self._durations)
        best = smallest(self._fitting, keys, most_offers)
        left = most_offers - len(best)
        if not left:
            return best
        nearest = self._too_small[::-1][:left]
        hopeless = np.setdiff1d(np.arange(len(self._site.holes)), self._eligible, assume_unique=True)
        return np.concatenate([best, nearest, hopeless[: left - len(nearest)]])

    def _durations(self, holes: Indices) -> Costs:
        return self._curve.makespan[self._points[holes]] * self._site.relative_time[holes]

    def _costs(self, holes: Indices) -> Costs:
        with np.errstate(invalid="ignore"):  # nothing takes no time and costs no one knows what
            return np.nan_to_num(self._site.hourly_cost[holes] * self._durations(holes), nan=0, posinf=np.inf)

    def offer(self, index: int) -> Offer:
        """The offer of one hole."""
        hole, point = self._site.holes[index], int(self._points[index])
        available_bytes = int(self._site.available_bytes[index])
        reason = self._reason(index, point)
        if reason is not None:
            missing_bytes = self._missing(available_bytes, reason)
            return Offer(hole, available_bytes, fits=False, reason=reason, missing_bytes=missing_bytes)
        makespan = float(self._curve.makespan[point])
        seconds = self._seconds(makespan, float(self._site.relative_time[index]))
        return Offer(
            hole,
            available_bytes,
            fits=True,
            point=point,
            budget_bytes=int(self._curve.budget_bytes[point]),
            makespan=makespan,
            slowdown_ratio=self._curve.slowdown_at(point),
            seconds=seconds,
            cost=self._cost(seconds, hole),
        )

    def _reason(self, index: int, point: int) -> Unfit | None:
        if self._site.is_cuda[index] != (self._demand.device_kind == "cuda"):
            return "device"
        if self._site.device_count[index] < self._demand.devices:
            return "count"
        if point < 0:
            return "memory"
        return "slowdown" if point < self._first_allowed else None

    def _missing(self, available_bytes: int, reason: Unfit) -> int:
        if reason in {"device", "count"}:
            return 0
        return int(self._curve.budget_bytes[self._first_allowed]) - available_bytes

    def _seconds(self, makespan: float, relative_time: float) -> float | None:
        unit = self._demand.seconds_per_unit
        return None if unit is None else makespan * unit * relative_time

    def _cost(self, seconds: float | None, hole: Hole) -> float | None:
        if seconds is None or hole.hourly_cost is None:
            return None
        return seconds / SECONDS_PER_HOUR * hole.hourly_cost * self._demand.devices


def _points(site: Site, curve: Curve) -> Indices:
    """The curve's point for every hole; holes ascend, so one search per point is enough."""
    edges = np.searchsorted(site.available_bytes, curve.budget_bytes, side="left")
    counts = np.diff(edges, prepend=0, append=len(site.available_bytes))
    return np.repeat(np.arange(-1, len(curve.budget_bytes)), counts)


def smallest(holes: Indices, keys: Sequence[Callable[[Indices], Costs]], count: int) -> Indices:
    """The `count` first of `holes` in the order of `keys`, equals by their index. O(length).

    A key is asked only about those that the keys before it leave undecided.
    """
    left, missing = holes, count
    chosen: list[Indices] = []
    for key in keys:
        if len(left) <= missing:
            break
        values = key(left)
        low = np.flatnonzero(values <= _bound(values, missing))
        left, values = left[low], values[low]
        threshold = np.partition(values, missing - 1)[missing - 1]
        chosen.append(left[values < threshold])
        missing -= len(chosen[-1])
        left = left[values == threshold]
    picked = np.sort(np.concatenate([*chosen, left[:missing]]))
    return picked[np.lexsort([key(picked) for key in reversed(keys)])]


def _bound(values: Costs, count: int) -> float:
    """At least `count` values are no greater than this: of many blocks, that many have such a smallest one.

    Much cheaper than the exact threshold, which is then sought among few.
    """
    blocks = BLOCKS_PER_VALUE * count
    if len(values) < 2 * blocks:
        return np.inf
    width = len(values) // blocks
    lowest = values[: width * blocks].reshape(blocks, width).min(axis=1)
    return float(np.partition(lowest, count - 1)[count - 1])
