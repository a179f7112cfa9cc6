"""Prices that are counted node by node are those of the simulator, and each is counted once."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from planner_service.chain import Chain, Stage, StageRun, expand, merge_runs, simulate
from planner_service.solvers import Cancellation, solve
from planner_service.solvers.chen import recursive_policy
from planner_service.solvers.prices import PriceList, price_list_of
from planner_service.solvers.slots import hidden_policy, internal_policy, most_slots
from planner_service.solvers.uniform import segments_policy
from tests.oracles.chains import chains

STAGE = Stage(forward_cost=1, taped_forward_cost=1, backward_cost=2, state_bytes=3, tape_bytes=10)
CHAIN = Chain((StageRun(40, STAGE),), input_bytes=3)
POLICIES = [hidden_policy, internal_policy, recursive_policy, segments_policy]


@st.composite
def runs_of_stages(draw: st.DrawFn) -> Chain:
    """One to three runs of up to 30 stages, with whatever surrounds them."""
    surroundings = draw(chains(max_length=1))
    runs = [
        StageRun(draw(st.integers(1, 30)), draw(chains(max_length=1)).stage(1))
        for _ in range(draw(st.integers(1, 3)))
    ]
    return Chain(
        merge_runs(runs),
        input_bytes=surroundings.input_bytes,
        static_bytes=surroundings.static_bytes,
        loss_gradient_bytes=surroundings.loss_gradient_bytes,
        input_gradient_bytes=surroundings.input_gradient_bytes,
    )


@pytest.mark.parametrize("policy_of", POLICIES)
@given(chain=runs_of_stages(), share=st.floats(0, 1))
def test_prices_are_the_simulators(policy_of, chain, share):
    """Of equal stages and of others, to the byte"""
    parameter = 1 + int(share * (chain.length - 1))
    verdict = simulate(chain, expand(policy_of(chain.length, parameter)))
    prices = PriceList(chain).prices(policy_of, parameter)
    assert prices == (pytest.approx(verdict.makespan), verdict.peak_bytes)


@pytest.mark.parametrize("policy_of", [hidden_policy, internal_policy])
@given(chain=runs_of_stages(), share=st.floats(0, 1))
def test_no_more_slots_fit_than_the_search_begins_with(policy_of, chain, share):
    slots = 1 + int(share * (chain.length - 1))
    needed_bytes = PriceList(chain).prices(policy_of, slots).peak_bytes
    assert slots <= most_slots(chain, needed_bytes, policy_of)


def test_prices_are_asked_once():
    asked = []

    def policy_of(length, segment_stages):
        asked.append(segment_stages)
        return segments_policy(length, segment_stages)

    price_list = PriceList(CHAIN)
    for _ in range(2):
        for segment_stages in (1, 7, 40):
            price_list.prices(policy_of, segment_stages)
    assert asked == [1, 7, 40]


def test_chains_that_differ_do_not_share_prices():
    wider = Chain(CHAIN.runs, input_bytes=4)
    assert price_list_of(CHAIN) is price_list_of(Chain(CHAIN.runs, input_bytes=3))
    assert price_list_of(CHAIN) is not price_list_of(wider)
    assert solve(wider, 300, "every_k").verdict.peak_bytes <= 300


class Looks(Cancellation):
    """Counts how often the work is about to go on."""

    count = 0

    def check(self) -> None:
        self.count += 1
        super().check()


@pytest.mark.parametrize("policy_of", [hidden_policy, internal_policy, recursive_policy])
def test_long_chains_are_looked_at_once_per_node_and_not_per_action(policy_of):
    """A hundred thousand stages, whose schedules have hundreds of thousands of actions"""
    looks = Looks()
    PriceList(Chain((StageRun(10**5, STAGE),))).prices(policy_of, 20, looks)
    assert looks.count < 2000
