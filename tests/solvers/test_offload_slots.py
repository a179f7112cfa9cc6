"""Storage levels in the papers' units: the published optima and the peers', entry by entry."""

from __future__ import annotations

from math import inf

import numpy as np
import pytest

from planner_service.solvers.offload.slots import Level, disk_revolve_cost, hrevolve_cost
from tests.oracles.golden import golden


def test_disk_revolve_reproduces_the_golden_tables():
    """opt_0, opt_1D and opt_inf of three memory slots and a disk, for 1..31 steps."""
    expected = golden("papers")["disk_revolve"]
    opt_0, opt_1d, opt_inf = disk_revolve_cost(31, 3, write_cost=2, read_cost=2)
    assert opt_0.tolist() == expected["opt0[3]"]
    assert opt_1d.tolist() == expected["opt1d"]
    assert opt_inf.tolist() == expected["opt_inf"]


def test_hrevolve_reproduces_the_golden_table():
    """Two slots in memory and four on a second level, for 1..21 steps."""
    levels = [Level(2, 0, 0), Level(4, 2, 2)]
    assert hrevolve_cost(21, levels).tolist() == golden("papers")["hrevolve"]["opt"]


def test_hrevolve_matches_the_peer_on_a_grid():
    """Two and three levels, nine lists of slots, six of transfer costs, two of step costs."""
    for case in golden("hrevolve")["hrevolve"]:
        levels = [Level(*row) for row in zip(case["slots"], case["write"], case["read"], strict=True)]
        cost = hrevolve_cost(17, levels, forward_cost=case["forward"], backward_cost=case["backward"])
        np.testing.assert_allclose(cost, case["opt"], rtol=1e-12, err_msg=str(case))


def test_disk_revolve_matches_the_peer_on_a_grid():
    """Four numbers of slots, four pairs of transfer costs, two pairs of step costs."""
    for case in golden("hrevolve")["disk"]:
        _, _, cost = disk_revolve_cost(
            25,
            case["slots"],
            write_cost=case["write"],
            read_cost=case["read"],
            forward_cost=case["forward"],
            backward_cost=case["backward"],
        )
        np.testing.assert_allclose(cost, case["opt_inf"], rtol=1e-12, err_msg=str(case))


@pytest.mark.parametrize("slots", [1, 2, 3, 7])
def test_one_level_is_revolve(slots):
    """A single free level costs what Griewank and Walther's closed form says, plus the backward steps."""
    advances = golden("papers")["revolve_advances"]
    cost = hrevolve_cost(20, [Level(slots, 0, 0)])
    for steps in (1, 2, 3, 4, 5, 8, 10, 16, 20):
        if f"{steps},{slots}" in advances:
            assert cost[steps - 1] == advances[f"{steps},{slots}"] + steps


def test_a_disk_that_is_never_worth_it_changes_nothing():
    """Infinitely slow transfers leave the cost of memory alone."""
    alone, _, with_disk = disk_revolve_cost(30, 4, write_cost=inf, read_cost=inf)
    assert with_disk.tolist() == alone.tolist()
