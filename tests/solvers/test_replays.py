"""Replays that are remembered are those of the simulator, and each is made once."""

from __future__ import annotations

from planner_service.chain import Chain, Stage, StageRun, expand, simulate
from planner_service.solvers import solve
from planner_service.solvers.replays import Replays, replays_of
from planner_service.solvers.uniform import segments_policy

STAGE = Stage(forward_cost=1, taped_forward_cost=1, backward_cost=2, state_bytes=3, tape_bytes=10)
CHAIN = Chain((StageRun(40, STAGE),), input_bytes=3)


def test_prices_are_the_simulators_and_asked_once():
    asked = []

    def policy_of(length, segment_stages):
        asked.append(segment_stages)
        return segments_policy(length, segment_stages)

    replays = Replays(CHAIN)
    for _ in range(2):
        for segment_stages in (1, 7, 40):
            verdict = simulate(CHAIN, expand(segments_policy(40, segment_stages)))
            assert replays.prices(policy_of, segment_stages) == (verdict.makespan, verdict.peak_bytes)
    assert asked == [1, 7, 40]


def test_chains_that_differ_do_not_share_replays():
    wider = Chain(CHAIN.runs, input_bytes=4)
    assert replays_of(CHAIN) is replays_of(Chain(CHAIN.runs, input_bytes=3))
    assert replays_of(CHAIN) is not replays_of(wider)
    assert solve(wider, 300, "every_k").verdict.peak_bytes <= 300
