"""Totals, pieces and lookups of run-length chains against the list of their stages."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from planner_service.chain import Chain, Stage, StageRun, merge_runs
from tests.oracles.chains import chains, stages


def plain(state_bytes: int) -> Stage:
    return Stage(
        forward_cost=1, taped_forward_cost=2, backward_cost=3, state_bytes=state_bytes, tape_bytes=10
    )


@given(chains(max_length=20))
def test_lookups_agree_with_the_list_of_stages(chain):
    listed = [run.stage for run in chain.runs for _ in range(run.count)]
    assert list(chain.stages()) == listed
    assert chain.length == len(listed)
    assert [chain.stage(index) for index in range(1, chain.length + 1)] == listed
    assert chain.store_all_makespan == sum(s.taped_forward_cost + s.backward_cost for s in listed)
    sizes = [chain.input_bytes, *(stage.state_bytes for stage in listed)]
    assert [chain.state_bytes(index) for index in range(chain.length + 1)] == sizes


@given(st.data())
def test_parts_are_maximal_pieces_in_order(data):
    chain = data.draw(chains(max_length=20))
    first = data.draw(st.integers(1, chain.length))
    last = data.draw(st.integers(first, chain.length))
    parts = list(chain.parts(first, last))
    covered = [(index, part.stage) for part in parts for index in range(part.first, part.last + 1)]
    assert covered == [(index, chain.stage(index)) for index in range(first, last + 1)]
    assert len(parts) <= len(chain.runs)


@pytest.mark.parametrize("index", [0, -1, 4])
def test_there_is_no_stage_outside(index):
    with pytest.raises(IndexError, match=f"stage {index} of a chain of 3"):
        Chain((StageRun(3, plain(1)),)).stage(index)


def test_gradients_default_to_their_states_and_the_ends_to_what_the_caller_says():
    chain = Chain.of([plain(5), plain(7)], input_bytes=3)
    assert [chain.gradient_bytes(index) for index in range(3)] == [3, 5, 0]
    told = Chain.of([plain(5), plain(7)], input_bytes=3, loss_gradient_bytes=11, input_gradient_bytes=0)
    assert [told.gradient_bytes(index) for index in range(3)] == [0, 5, 11]


@given(st.lists(st.tuples(st.integers(1, 4), st.sampled_from([1, 2, 3])), min_size=1, max_size=10))
def test_merging_runs_changes_no_stage_and_leaves_no_equal_neighbours(drawn):
    runs = [StageRun(count, plain(size)) for count, size in drawn]
    merged = merge_runs(runs)
    assert list(Chain(merged).stages()) == list(Chain(tuple(runs)).stages())
    assert all(one.stage != other.stage for one, other in pairwise(merged))


@given(st.lists(stages(), min_size=1, max_size=10))
def test_a_chain_of_stages_equals_the_chain_of_its_runs(listed):
    assert Chain.of(listed) == Chain(merge_runs(StageRun(1, stage) for stage in listed))


def test_a_million_stages_are_one_run():
    chain = Chain((StageRun(10**6, plain(1)),))
    assert chain.length == 10**6
    assert list(chain.parts(5, 10**6)) == [(5, 10**6, plain(1))]


def test_equal_chains_have_equal_hashes():
    assert hash(Chain.of([plain(1), plain(1)])) == hash(Chain((StageRun(2, plain(1)),)))
