"""A type of device is acceptable only if each of its devices holds the job alone; sums do not count."""

from __future__ import annotations

from planner_service.placement import Demand, Site, acceptable_types
from tests.placement.sites import GIB, curve, hole

CURVE = curve((70, 200), (140, 100))


def accepted(holes, **demand):
    return acceptable_types(Site.of(holes), Demand(**demand), CURVE)


def test_two_devices_of_80_are_not_one_of_140():
    """The trap of counted memory: a node with 2 x 80 GiB does not hold a plan of 140"""
    (found,) = accepted([hole("node", 80, device="a100", count=2)])
    assert found.budget_bytes == 70 * GIB
    assert accepted([hole("node", 80, device="a100", count=2)], maximum_slowdown_ratio=1.0) == []


def test_a_type_is_as_large_as_its_smallest_device():
    holes = [hole("a", 40, device="a100"), hole("b", 80, device="a100"), hole("c", 80, device="h100")]
    assert [each.smallest.device for each in accepted(holes)] == ["h100"]


def test_free_memory_of_the_moment_does_not_decide_about_a_type():
    (found,) = accepted([hole("a", 80, device="a100", memory_free_bytes=GIB)])
    assert (found.device_count, found.budget_bytes) == (1, 70 * GIB)


def test_the_reserve_and_the_context_decide():
    assert accepted([hole("a", 70, device="x")])
    assert not accepted([hole("a", 70, device="x", context_bytes=1)])
    assert not accepted([hole("a", 70, device="x", driver_reserve_ratio=0.01)])


def test_devices_are_counted_in_nodes_that_have_enough_of_them():
    holes = [hole("a", 80, device="a100", count=2), hole("b", 80, device="a100", count=8)]
    (found,) = accepted(holes, devices=4)
    assert (found.device_count, found.most_per_node) == (8, 8)
    assert accepted(holes, devices=16) == []


def test_slices_and_kinds_are_types_of_their_own_and_the_quickest_comes_first():
    holes = [
        hole("a", 80, device="a100"),
        hole("b", 80, device="a100", mig_slice="4g.40gb"),
        hole("c", 200, device="b200"),
        hole("d", 800, device_kind="cpu"),
    ]
    found = accepted(holes)
    assert [(each.smallest.device, each.smallest.mig_slice) for each in found] == [
        ("b200", None),
        ("a100", None),
        ("a100", "4g.40gb"),
    ]


def test_a_slice_is_as_slow_as_its_share_of_the_processors_though_it_holds_the_same_plan():
    """Ties go to the smaller device"""
    holes = [
        hole("a", 141, device="h200", mig_slice="1g.141gb"),
        hole("b", 180, device="slow", given_speed=0.5),
        hole("c", 192, device="b200"),
        hole("d", 150, device="h200"),
    ]
    found = accepted(holes)
    assert {each.slowdown_ratio for each in found} == {1.0}
    assert [each.smallest.name for each in found] == ["d", "c", "b", "a"]


def test_devices_of_a_node_are_counted_over_its_holes():
    holes = [hole("0", 80, node="n", device="a100"), hole("1", 80, node="n", device="a100")]
    assert accepted(holes)[0].most_per_node == 2
