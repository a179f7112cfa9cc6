"""Sums and maxima of any stretch are those of its stages one by one."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from planner_service.chain import Chain
from planner_service.solvers.needs import chain_needs
from planner_service.solvers.stretch_sums import StretchSums
from tests.oracles.chains import chains


@given(st.lists(chains(max_length=3), min_size=1, max_size=12), st.data())
def test_an_advance_takes_what_its_stages_take(pieces, data):
    needs = chain_needs(Chain.of([stage for piece in pieces for stage in piece.stages()]))
    first = data.draw(st.integers(0, needs.length - 1))
    last = data.draw(st.integers(first, needs.length - 1))
    stages = [needs.stage(index) for index in range(first, last + 1)]
    advance = StretchSums(needs).advance(first, last)
    assert advance.cost == pytest.approx(sum(stage.advance_cost for stage in stages))
    beside = [stages[0].first_advance_bytes, *(stage.next_advance_bytes for stage in stages[1:])]
    assert advance.free_bytes == max(beside)
    runs = [run.needs for run in StretchSums(needs).runs(first, last) for _ in range(run.count)]
    assert runs == stages
