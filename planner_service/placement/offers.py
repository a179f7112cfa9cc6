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
SHORTEST_MAKESPAN = 1e-300

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
    return Offers(matched.fitting_count, matched.offers(matched.ranking(rank_by, most_offers)))


class _Matched:
    """The holes of a site with the curve's answers."""

    def __init__(self, site: Site, demand: Demand, curve: Curve) -> None:
        self._site, self._demand, self._curve = site, demand, curve
        self._first_allowed = curve.first_point_within(demand.maximum_slowdown_ratio)
        self._durations = _durations(site, demand, curve, self._first_allowed)
        self.fitting_count = int(np.count_nonzero(self._durations < np.inf))

    def ranking(self, rank_by: RankBy, most_offers: int) -> Indices:
        """Indices of the best holes, the best first."""
        fitting = min(most_offers, self.fitting_count)
        keys = (
            (self._by_duration, self._by_cost)
            if rank_by == "duration"
            else (self._by_cost, self._by_duration)
        )
        # By cost, what nobody knows the cost of would be as infinite as what does not fit.
        among = np.flatnonzero(self._durations < np.inf) if rank_by == "cost" else slice(None)
        best = smallest(among, keys, fitting)
        left = most_offers - fitting
        return best if not left else np.concatenate([best, self._lacking()[:left]])

    def _lacking(self) -> Indices:
        """The holes that do not fit: first those that lack memory, by how much; then the hopeless."""
        lacking = np.flatnonzero(self._durations == np.inf)
        times = self._site.times_of(self._demand.device_kind, self._demand.devices)[lacking]
        return np.concatenate([lacking[times < np.inf][::-1], lacking[times == np.inf]])

    def _by_duration(self, holes: Indices | slice) -> Costs:
        return self._durations[holes]

    def _by_cost(self, holes: Indices | slice) -> Costs:
        return self._site.hourly_cost[holes] * self._durations[holes]

    def offers(self, holes: Indices) -> list[Offer]:
        """The offers of some holes, in their order."""
        available_bytes = self._site.available_bytes[holes]
        points = self._curve.points_for(available_bytes)
        rows = zip(holes.tolist(), points.tolist(), available_bytes.tolist(), strict=True)
        return [self._offer(*row) for row in rows]

    def _offer(self, index: int, point: int, available_bytes: int) -> Offer:
        hole = self._site.holes[index]
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


def _durations(site: Site, demand: Demand, curve: Curve, first_allowed: int) -> Costs:
    """Makespan over relative speed for every hole; infinite where the job does not fit.

    Holes ascend by memory, so one search per point of the curve is enough.
    """
    edges = np.searchsorted(site.available_bytes, curve.budget_bytes[first_allowed:], side="left")
    counts = np.diff(edges, prepend=0, append=len(site.available_bytes))
    # No time at all would make every device as quick as the others, and infinity no number.
    allowed = np.maximum(curve.makespan[first_allowed:], SHORTEST_MAKESPAN)
    makespans = np.repeat(np.concatenate([[np.inf], allowed]), counts)
    return makespans * site.times_of(demand.device_kind, demand.devices)


def smallest(
    among: Indices | slice, keys: Sequence[Callable[[Indices | slice], Costs]], count: int
) -> Indices:
    """The `count` first of the indices in `among`, or of all with a slice of all, in the order of `keys`,
    equals by their index. O(length).

    A key is asked only about those that the keys before it leave undecided.
    """
    first, *others = keys
    values = first(among)
    low = np.flatnonzero(values <= _bound(values, count))
    left = low if isinstance(among, slice) else among[low]
    chosen: list[Indices] = []
    missing, values = count, values[low]
    for key in (*others, None):
        if len(left) <= missing or not missing:
            break
        threshold = np.partition(values, missing - 1)[missing - 1]
        chosen.append(left[values < threshold])
        missing -= len(chosen[-1])
        left = left[values == threshold]
        values = values if key is None else key(left)
    picked = np.sort(np.concatenate([*chosen, left[:missing]]))
    return picked[np.lexsort([key(picked) for key in reversed(keys)])]


def _bound(values: Costs, count: int) -> float:
    """At least `count` values are no greater than this: of many blocks, that many have such a smallest one.

    Much cheaper than the exact threshold, which is then sought among few.
    """
    blocks = BLOCKS_PER_VALUE * count
    if not count or len(values) < 2 * blocks:
        return np.inf
    width = len(values) // blocks
    lowest = values[: width * blocks].reshape(blocks, width).min(axis=1)
    return float(np.partition(lowest, count - 1)[count - 1])
