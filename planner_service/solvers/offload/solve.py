"""Checkpoints in storage tiers: host memory, a disk.

Source: the blocking recurrence is that of Herrmann, Pallez (2020), "H-Revolve: a framework for adjoint
computation on synchronous hierarchical platforms", ACM TOMS 46(2), in bytes and with tapes: below the
tiers stands the two-branch recurrence of docs/memory_model.md, and the cursor of an advance is charged.

Notation, for stages i..j, M the device's free bytes, tiers 1..K from fast to slow:
    D(i, j, m)      the device alone with m free bytes, x_{i-1} held by somebody else
    U_0(i, j)       D(i, j, M - a_{i-1}): x_{i-1} is loose, and kept until stage i is reversed
    V_k(i, j, s)    x_{i-1} is loose and in tier k, which has s bytes left
    U_k(i, j)       min(U_{k-1}(i, j), write_k + V_k(i, j, S_k - a_{i-1}))
    V_k(i, j, s)    min(U_{k-1}(i, j), min over y of f_i + … + f_y + read_k + V_k(i, y, s)
                        + min(U_{k-1}(y+1, j), write_k + V_k(y+1, j, s - a_y)))
    W(j)            min(D(1, j, M), min over y of f_1 + … + f_y + U_K(y+1, j) + W(y)): x_0 is held

Guarantee: with tiers that block, the cheapest schedule of H-Revolve's kind: a checkpoint has one home
until its stage is reversed, and faster homes are taken after slower ones. With overlapped tiers the
transfers run beside the computation: a write while the next stages are advanced, a read while the
piece before it is reversed, into a buffer set aside for it. Reported with a lower bound, always.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from planner_service.chain import Chain, Stage, StageRun
from planner_service.chain.tiers import Tier, check_tiers
from planner_service.chain.tiers_policy import TieredPolicy, expand_tiers
from planner_service.chain.tiers_simulator import TieredVerdict, simulate_tiers
from planner_service.solvers.offload.bounds import offload_bound
from planner_service.solvers.offload.search import find_policy
from planner_service.solvers.polling import polled
from planner_service.solvers.solution import ROUNDING, Cancellation, Optimality
from planner_service.solvers.solve import UnsoundPlan


@dataclass(frozen=True)
class OffloadSolution:
    """A policy with tiers that fits every budget, as the simulator saw it; fields as in `Solution`."""

    policy: TieredPolicy
    verdict: TieredVerdict
    lower_bound: float
    """No legal schedule of this chain in these budgets is faster, in the chain's cost unit."""
    optimality: Optimality
    """`optimal` over all schedules (the bound is met), `persistent` over those of the recurrence, with
    tiers that block and bytes counted exactly, `bounded` when only `lower_bound` is known."""
    reason: str
    strategy: str = "offload"
    exact_gradient: bool = True

    @property
    def bound_ratio(self) -> float:
        """Makespan by lower bound: how far from the optimum this can be, at most."""
        return self.verdict.makespan / self.lower_bound if self.lower_bound else 1.0


def solve_offload(
    chain: Chain, budget_bytes: int, tiers: Sequence[Tier], *, cancellation: Cancellation | None = None
) -> OffloadSolution:
    """The fastest policy found for `chain` with `budget_bytes` on the device and the tiers' own budgets.

    tiers: from fast to slow; their times are in the chain's cost unit. Raises BudgetTooSmall with the
    least device budget beside these tiers, InvalidChain for two tiers of one name, ChainTooLong (above
    some 10,000 equal or 700 different stages) and Cancelled. Beyond 2,000 stages a refusal
    names what the device needs alone.
    """
    check_tiers(tiers)
    cancellation = cancellation or Cancellation()
    found = find_policy(chain, budget_bytes, tiers, cancellation)
    verdict = simulate_tiers(chain, tiers, polled(expand_tiers(found.policy), cancellation), budget_bytes)
    if not verdict.legal:
        raise UnsoundPlan(f"offload: {verdict.illegal}")
    bound = offload_bound(chain, budget_bytes - chain.static_bytes - chain.input_bytes, tiers, cancellation)
    if bound > verdict.makespan * (1 + ROUNDING):
        raise UnsoundPlan(f"offload: makespan {verdict.makespan} is below the bound {bound}")
    blocking = not any(tier.overlapped for tier in tiers)
    optimality: Optimality = "persistent" if found.exact and blocking else "bounded"
    if verdict.makespan <= bound * (1 + ROUNDING):
        optimality, bound = "optimal", verdict.makespan
    return OffloadSolution(found.policy, verdict, bound, optimality, found.reason)


def warm_up_offload() -> None:
    """Compile or load the kernels of this strategy, so that the next solve runs at full speed."""
    stage = Stage(forward_cost=1, taped_forward_cost=1, backward_cost=1, state_bytes=1, tape_bytes=2)
    host = Tier(name="host", budget_bytes=1, overlapped=True)
    solve_offload(Chain((StageRun(6, stage),)), 8, [host])
