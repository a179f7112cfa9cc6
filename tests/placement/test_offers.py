"""Offers equal those of a plain loop over all holes, in the order that is promised."""

from __future__ import annotations

import random

import numpy as np
import pytest

from planner_service.placement import Demand, Site, offers_of
from planner_service.placement.offers import smallest
from tests.placement.sites import GIB, curve, hole

CURVE = curve((1, 400), (2, 250), (4, 150), (8, 100))


def random_holes(draw, count):
    return [
        hole(
            f"h{number}",
            draw.choice([1, 2, 3, 8, 16]),
            memory_free_bytes=draw.choice([None, round(draw.uniform(0.5, 10) * GIB)]),
            context_bytes=draw.choice([0, GIB // 2]),
            given_speed=draw.choice([None, 0.5, 2.0]),
            hourly_cost=draw.choice([None, 0.5, 3.0]),
            count=draw.choice([1, 4]),
            device_kind=draw.choice(["cuda", "cuda", "cpu"]),
        )
        for number in range(count)
    ]


def expected(holes, demand, rank_by):
    """Names of the holes that fit, best first, by a plain loop."""
    found = []
    for each in sorted(holes, key=lambda each: each.available_bytes):
        points = [
            m for b, m in zip(CURVE.budget_bytes, CURVE.makespan, strict=True) if b <= each.available_bytes
        ]
        slowest = demand.maximum_slowdown_ratio or float("inf")
        if each.device_kind != demand.device_kind or each.count < demand.devices:
            continue
        if not points or min(points) / 100 > slowest:
            continue
        duration = min(points) / each.relative_speed
        cost = float("inf") if each.hourly_cost is None else each.hourly_cost * duration
        keys = (duration, cost) if rank_by == "duration" else (cost, duration)
        found.append((*keys, each.name))
    return [name for *_, name in sorted(found, key=lambda entry: entry[:-1])]


@pytest.mark.parametrize("rank_by", ["duration", "cost"])
@pytest.mark.parametrize("seed", range(20))
def test_the_ranking_is_that_of_a_plain_loop(seed, rank_by):
    draw = random.Random(seed)
    holes = random_holes(draw, 40)
    demand = Demand(devices=draw.choice([1, 2]), maximum_slowdown_ratio=draw.choice([None, 1.0, 1.6, 3.0]))
    names = expected(holes, demand, rank_by)
    for most_offers in (1, 5, 40):
        offers = offers_of(Site.of(holes), demand, CURVE, rank_by=rank_by, most_offers=most_offers)
        assert offers.fitting_count == len(names)
        assert len(offers.ranked) == most_offers
        fitting = [offer.hole.name for offer in offers.ranked if offer.fits]
        assert fitting == names[:most_offers]
        assert [offer.fits for offer in offers.ranked] == sorted(
            (offer.fits for offer in offers.ranked), reverse=True
        )


def only_offer(each, **demand):
    (offer,) = offers_of(Site.of([each]), Demand(**demand), CURVE, rank_by="duration", most_offers=1).ranked
    return offer


def test_one_byte_decides_and_the_missing_bytes_are_told():
    enough = only_offer(hole(memory_free_bytes=GIB))
    assert (enough.fits, enough.budget_bytes, enough.slowdown_ratio) == (True, GIB, 4.0)
    short = only_offer(hole(memory_free_bytes=GIB - 1))
    assert (short.fits, short.reason, short.missing_bytes) == (False, "memory", 1)
    assert short.budget_bytes is short.request_bytes is short.limit_bytes is None


def test_too_slow_tells_the_bytes_for_the_slowdown_asked_for():
    offer = only_offer(hole(memory_free_bytes=2 * GIB), maximum_slowdown_ratio=1.5)
    assert (offer.fits, offer.reason, offer.missing_bytes) == (False, "slowdown", 2 * GIB)


def test_another_kind_and_too_few_devices_lack_no_memory():
    assert only_offer(hole(device_kind="cpu")).reason == "device"
    offer = only_offer(hole(count=3), devices=4)
    assert (offer.reason, offer.missing_bytes) == ("count", 0)


def test_seconds_and_cost_by_their_formulas():
    each = hole(memory_free_bytes=4 * GIB, given_speed=2.0, hourly_cost=3.0, count=4)
    offer = only_offer(each, devices=4, seconds_per_unit=7.2)
    assert offer.seconds == pytest.approx(150 * 7.2 / 2.0)
    assert offer.cost == pytest.approx(150 * 7.2 / 2.0 / 3600 * 3.0 * 4)
    assert only_offer(each).seconds is None
    assert only_offer(hole(), seconds_per_unit=1.0).cost is None


def test_request_and_limit_hold_context_and_reserve():
    each = hole(gib=100, context_bytes=GIB, driver_reserve_ratio=0.05, memory_free_bytes=3 * GIB)
    offer = only_offer(each)
    assert offer.request_bytes == 2 * GIB + GIB
    assert offer.limit_bytes == each.nominal_bytes(3 * GIB)


def test_what_does_not_fit_is_ordered_by_what_it_lacks():
    holes = [
        hole("near", memory_free_bytes=GIB - 10),
        hole("far", memory_free_bytes=10),
        hole("cpu", device_kind="cpu"),
    ]
    offers = offers_of(Site.of(holes), Demand(), CURVE, rank_by="duration", most_offers=3)
    assert [offer.hole.name for offer in offers.ranked] == ["near", "far", "cpu"]


def test_more_memory_is_never_slower():
    holes = [hole(f"h{mib}", memory_free_bytes=mib * 2**20) for mib in range(1024, 9000, 97)]
    offers = offers_of(Site.of(holes), Demand(), CURVE, rank_by="duration", most_offers=len(holes))
    by_memory = sorted(offers.ranked, key=lambda offer: offer.available_bytes)
    slowdowns = [offer.slowdown_ratio for offer in by_memory]
    assert slowdowns == sorted(slowdowns, reverse=True)


@pytest.mark.parametrize("count", [1, 7, 50, 300])
def test_smallest_equals_a_full_sort(count):
    generator = np.random.default_rng(count)
    first, second = generator.integers(0, 4, (2, 300)).astype(float)
    holes = np.flatnonzero(generator.integers(0, 2, 300))
    found = smallest(holes, (lambda some: first[some], lambda some: second[some]), count)
    wanted = sorted(holes.tolist(), key=lambda index: (first[index], second[index], index))[:count]
    assert found.tolist() == wanted


def test_smallest_of_all_needs_no_list_of_them():
    first = np.array([3.0, 1.0, 1.0, np.inf, 0.5])
    assert smallest(slice(None), (lambda some: first[some],), 3).tolist() == [4, 1, 2]
    assert smallest(slice(None), (lambda some: first[some],), 0).tolist() == []
