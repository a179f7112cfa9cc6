"""The papers' own numbers: closed forms, tables at T = 1000, bounds and errata.

Tags like G16 §3.1 name the section of Gruslys et al. 2016, arXiv:1606.03401.
"""

from __future__ import annotations

from math import factorial, inf

import numpy as np
import pytest

from planner_service.chain import Advance, BudgetTooSmall, expand, simulate
from planner_service.solvers import solve
from planner_service.solvers.papers import hidden_operations, internal_operations, mixed_operations
from planner_service.solvers.slots import hidden_policy, internal_policy
from tests.oracles.golden import golden
from tests.oracles.papers import (
    hidden_cost,
    hidden_recurrence,
    internal_cost,
    internal_recurrence,
    revolve_advances,
    unit_chain,
)

PAPERS = golden("papers")


def entries(table):
    """(t, m, C) of a two-level golden table."""
    return [(int(t), int(m), cost) for t, row in table.items() for m, cost in row.items()]


class TestOracles:
    """What the other tests are measured by: recurrences as printed, closed forms, recorded tables."""

    def test_hidden_closed_form_is_the_recurrence(self):
        for steps in range(1, 41):
            for slots in range(1, 13):
                assert hidden_cost(steps, slots) == hidden_recurrence(steps, slots)

    def test_internal_closed_form_is_the_recurrence(self):
        for steps in range(1, 41):
            for slots in range(1, 13):
                assert internal_cost(steps, slots) == internal_recurrence(steps, slots)

    def test_closed_forms_are_the_recorded_tables(self):
        assert all(hidden_cost(t, m) == cost for t, m, cost in entries(PAPERS["C_HSM"]))
        assert all(internal_cost(t, m) == cost for t, m, cost in entries(PAPERS["C_ISM"]))

    def test_revolve_is_the_recorded_table(self):
        for key, advances in PAPERS["revolve_advances"].items():
            steps, slots = map(int, key.split(","))
            assert revolve_advances(steps, slots) == advances


class TestClosedForms:
    """HSM and ISM need no table: the closed forms are the recurrences up to t = 200."""

    @pytest.mark.parametrize("slots", [1, 2, 3, 5, 8, 13, 40])
    def test_hidden_operations_fill_the_recurrence(self, slots):
        table = np.zeros((201, slots + 1), dtype=np.int64)
        for m in range(1, slots + 1):
            for t in range(1, 201):
                if m == 1 or t == 1:
                    table[t, m] = t * (t + 1) // 2
                    continue
                y = np.arange(1, t)
                table[t, m] = (y + table[t - y, m - 1] + table[y, m]).min()
                assert hidden_operations(t, m) == table[t, m]

    @pytest.mark.parametrize("slots", [1, 2, 3, 5, 8, 13, 40])
    def test_internal_operations_fill_the_recurrence(self, slots):
        table = np.zeros((201, slots + 1), dtype=np.int64)
        for m in range(1, slots + 1):
            for t in range(1, 201):
                y = np.arange(1, t + 1)
                if m > 1:
                    table[t, m] = (y + table[y - 1, m] + table[t - y, m - 1]).min()
                else:
                    table[t, m] = t * (t + 1) // 2
                assert internal_operations(t, m) == table[t, m]

    def test_recorded_tables(self):
        assert all(hidden_operations(t, m) == cost for t, m, cost in entries(PAPERS["C_HSM"]))
        assert all(internal_operations(t, m) == cost for t, m, cost in entries(PAPERS["C_ISM"]))

    @pytest.mark.parametrize("bad", [(0, 1), (1, 0), (-1, 3)])
    def test_nothing_to_do_is_refused(self, bad):
        with pytest.raises(ValueError, match="positive"):
            hidden_operations(*bad)


class TestMixed:
    """BPTT-MSM entry by entry, and at T = 1000."""

    @pytest.mark.parametrize("key", PAPERS["C_MSM"])
    def test_equation_7(self, key):
        alpha = int(key.partition("alpha=")[2])
        table = mixed_operations(16, 24, alpha=alpha)
        assert all(table[t, m] == cost for t, m, cost in entries(PAPERS["C_MSM"][key]))

    @pytest.mark.parametrize("key", PAPERS["C_MSM_beta"])
    def test_equation_10(self, key):
        alpha, beta = (int(part.partition("=")[2]) for part in key.split(","))
        table = mixed_operations(16, 24, alpha=alpha, beta=beta)
        assert all(table[t, m] == cost for t, m, cost in entries(PAPERS["C_MSM_beta"][key]))

    @pytest.mark.parametrize("alpha", [2, 3, 5])
    def test_least_memory_for_one_forward_each(self, alpha):
        """C = t is reached at m = α(t - 1) + 1 with equation 7, (α - 1)(t - 1) + 1 with equation 10."""
        for beta, name in ((None, "eq7"), (alpha - 1, "eq10")):
            table = mixed_operations(8, 60, alpha=alpha, beta=beta)
            for t, least in PAPERS["MSM_min_m_for_cost_t"][f"alpha={alpha}"][name].items():
                assert int(np.argmax(table[int(t)] == int(t))) == least

    @pytest.mark.parametrize("alpha", [2, 5, 10])
    def test_a_thousand_steps(self, alpha):
        recorded = {
            int(key.partition("units=")[2]): row
            for key, row in PAPERS["T1000_MSM"].items()
            if key.startswith(f"alpha={alpha},")
        }
        plain = mixed_operations(1000, max(recorded), alpha=alpha)[1000]
        shared = mixed_operations(1000, max(recorded), alpha=alpha, beta=alpha - 1)[1000]
        for units, row in recorded.items():
            assert plain[units] == row["C_eq7"]
            assert shared[units] == row["C_eq10_beta=alpha-1"]
            ratio = (shared[units] + 2000) / 3000  # a backward operation costs two forward ones
            assert ratio == pytest.approx(row["rel_iter_time_bwd2_eq10"])

    def test_equal_memory(self):
        """α = 5: hidden, internal and mixed with the same bytes."""
        tables = {beta: mixed_operations(1000, 100, alpha=5, beta=beta) for beta in (None, 4)}
        for key, row in PAPERS["equal_memory_alpha5"].items():
            memory, t = (int(part.partition("=")[2]) for part in key.split(","))
            assert hidden_operations(t, memory) == row["HSM"]
            assert internal_operations(t, memory // 5) == row["ISM"]
            assert tables[None][t, memory] == row["MSM"]
            assert tables[4][t, memory] == row["MSM_beta4"]

    @pytest.mark.parametrize("key", [key for key in PAPERS["chen_sqrt_comparison"] if "t=900" not in key])
    def test_against_chens_square_root(self, key):
        """Least units for two forwards a step, and the cost at Chen's own memory √t·α."""
        row = PAPERS["chen_sqrt_comparison"][key]
        alpha, t = (int(part.partition("=")[2]) for part in key.split(","))
        costs = mixed_operations(t, row["chen_units"], alpha=alpha, beta=alpha - 1)[t]
        assert int(np.argmax((costs <= 2 * t) & (costs > 0))) == row["min_units_for_cost_2t"]
        assert costs[row["chen_units"]] == row["C_at_chen_units"]


class TestThousandSteps:
    """The headline numbers of G16 at T = 1000."""

    def test_hidden(self):
        for slots, row in PAPERS["T1000_HSM"].items():
            assert hidden_operations(1000, int(slots)) == row["C"]

    def test_internal(self):
        for slots, row in PAPERS["T1000_ISM"].items():
            assert internal_operations(1000, int(slots)) == row["C"]

    def test_a_third_more_time_for_a_twentieth_of_the_memory(self):
        """The abstract's claim: 50 of 1000 internal states cost 31.7 % more; 43 keep it under a third."""
        assert (internal_operations(1000, 50) + 2000) / 3000 == pytest.approx(1.3167, abs=5e-5)
        within = [m for m in range(1, 100) if internal_operations(1000, m) <= 2000]
        assert within[0] == PAPERS["T1000_ISM_min_m_for_cost_2T"] == 43
        within = [m for m in range(1, 100) if hidden_operations(1000, m) <= 3000]
        assert within[0] == PAPERS["T1000_HSM_min_m_for_cost_3T"] == 43

    @pytest.mark.parametrize("memory", [50, 100])
    def test_hidden_wins_from_a_length_on(self, memory):
        """§3.6: with α = 5 internal states win on short sequences, hidden ones on long ones."""
        first = PAPERS["HSM_beats_ISM_first_t"][f"memory={memory // 5}*alpha(5)"]
        hidden_wins = [
            hidden_operations(t, memory) < internal_operations(t, memory // 5) for t in (first - 1, first)
        ]
        assert hidden_wins == [False, True]


class TestPolicies:
    """The policies behind the closed forms, replayed: as many forwards, and as many slots, as promised."""

    def test_hidden_policies_run_as_often_as_the_closed_form_says(self):
        for t in range(1, 41):
            for m in range(1, 10):
                verdict = simulate(unit_chain(t, beta=1), expand(hidden_policy(t, m)))
                assert verdict.makespan == hidden_operations(t, m)

    def test_internal_policies_run_as_often_as_the_closed_form_says(self):
        for t in range(1, 41):
            for m in range(1, 10):
                verdict = simulate(unit_chain(t, beta=1), expand(internal_policy(t, m)))
                assert verdict.makespan == internal_operations(t, m)

    def test_the_first_push_is_one_of_the_optimal_ones(self):
        for key, optimal in PAPERS["D_HSM_all_optimal_y"].items():
            t, m = map(int, key.split(","))
            first = next(iter(expand(hidden_policy(t, m))))
            assert isinstance(first, Advance)
            assert first.last in optimal


def two_branch_cost(steps: int, beta: int, units: int) -> float:
    """Forward operations of our own optimum on the papers' chain; infinite when refused."""
    try:
        return solve(unit_chain(steps, beta=beta), units, "optimal").verdict.makespan
    except BudgetTooSmall:
        return inf


@pytest.mark.parametrize("key", PAPERS["C_MSM_beta"])
def test_equation_10_lies_between_our_costs_with_and_without_the_working_core(key):
    """G16 equation 10 leaves the running step's memory free; ours charges it: docs/memory_model.md."""
    beta = int(key.partition("beta=")[2])
    for t, m, cost in entries(PAPERS["C_MSM_beta"][key]):
        assert two_branch_cost(t, beta, m + beta) <= cost <= two_branch_cost(t, beta, m - 1 + beta)


class TestErrata:
    """The errors found in G16, each settled by a computation.

    Section 3.2 cites equations 19 and 20 for 4 and 5, and section 3.3 writes D for D_i: nothing to compute.
    """

    def test_advancing_to_y_runs_y_forwards(self):
        """Algorithm 2's loop runs i = 0..t - 1; the recurrence and every schedule run exactly y."""
        for t, m in [(4, 2), (10, 3), (40, 5)]:
            first = next(iter(expand(hidden_policy(t, m))))
            y = first.last
            rest = hidden_operations(t - y, m - 1) + hidden_operations(y, m)
            assert hidden_operations(t, m) == y + rest

    def test_no_memory_at_all_is_one_slot_here(self):
        """Appendix C counts without the initial state: its C(t, 0, x) is our C(t, 1); m = 0 is refused."""
        assert hidden_operations(7, 1) == sum(7 - i + 1 for i in range(1, 8))
        with pytest.raises(ValueError, match="slots=0"):
            hidden_operations(7, 0)

    def test_numeric_claim_of_three_fails_near_the_edge(self):
        """C - t < 3·t^(1 + 1/m) for t < 10^5, m < 10^3 is claimed; ten values of m violate it."""

        def ratio(steps, slots):
            return (hidden_cost(steps, slots) - steps) / steps ** (1 + 1 / slots)

        assert ratio(80_309, 28) >= 3 > ratio(80_308, 28)
        assert hidden_cost(99_999, 29) - 99_999 == 453_619
        assert ratio(99_999, 29) == pytest.approx(3.0499, abs=5e-5)
        violating = [slots for slots in range(2, 1_000) if ratio(99_999, slots) >= 3]
        assert violating == [20, 21, *range(26, 34)]

    def test_numeric_claim_of_four_holds_at_the_edge(self):
        ratios = {slots: hidden_cost(99_999, slots) / 99_999 ** (1 + 1 / slots) for slots in range(2, 1_000)}
        worst = max(ratios, key=ratios.__getitem__)
        assert (worst, round(ratios[worst], 4)) == (56, 3.7922)

    def test_one_slot_costs_t_t_plus_one_half(self):
        """Appendix B restates the boundary as t(t + 2)/2; section 3.1 is right."""
        for steps in range(1, 60):
            assert hidden_cost(steps, 1) == internal_cost(steps, 1) == steps * (steps + 1) // 2


class TestBounds:
    """G16 §3.5 and appendix B."""

    def test_cost_is_at_most_m_times_t_to_the_power_of_one_plus_one_over_m(self):
        for steps in (1, 2, 3, 10, 99, 1_000, 30_000):
            for slots in (1, 2, 3, 5, 10, 59, 100, 999):
                bound = slots * steps ** (1 + 1 / slots) * (1 + 1e-12)
                assert hidden_cost(steps, slots) <= bound
                assert internal_cost(steps, slots) <= bound

    def test_short_sequences_cost_a_forward_passes(self):
        """For t <= m^a / a!: C_HSM <= (a + 1)·t and C_ISM <= a·t."""
        for slots in range(1, 30):
            for passes in range(1, 5):
                longest = slots**passes // factorial(passes)
                for steps in {1, longest // 2, longest} - {0}:
                    assert hidden_cost(steps, slots) <= (passes + 1) * steps
                    assert internal_cost(steps, slots) <= passes * steps
