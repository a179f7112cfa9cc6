"""The executor's benchmark measures what it says, on cases too small to be interesting."""

import json
from functools import partial
from pathlib import Path

import pytest
import torch

from benchmarks.executor.__main__ import add_ratios, best_rival, entries, measured
from benchmarks.executor.cases import fused, looped, segments_against_loop
from benchmarks.executor.table import markdown
from benchmarks.machine import RESULTS


@pytest.mark.parametrize("make", [fused, looped, partial(looped, cells="own"), segments_against_loop])
def test_the_three_ways_compute_the_same_gradients(make):
    """Full BPTT, torch.utils.checkpoint and the budgeted loop agree, so their times may be compared"""
    torch.manual_seed(0)
    case = make("gru", hidden=8, batch=8, steps=60)
    found = []
    for iteration in (case.full_iteration, case.checkpointed(5), case.budgeted(200_000)):
        iteration()
        found.append([parameter.grad.clone() for parameter in case.module.parameters()])
    for gradients in found[1:]:
        torch.testing.assert_close(gradients, found[0], rtol=1e-4, atol=1e-7)


def test_a_case_gives_a_row_per_budget():
    """Peaks and ratios for budgets that fit, the least budget for those that do not"""
    case = looped("gru", hidden=8, batch=2, steps=100)
    found = measured(case, (0.6, 1_000), rounds=1)
    fits, refused = found["rows"]
    assert fits["measured_peak_bytes"] <= fits["budget_bytes"] < found["full_peak_bytes"]
    assert fits["time_ratio"] > 0
    assert refused["minimum_budget_bytes"] > 1_000
    table = markdown({"cases": [found]})
    assert "refused" in table
    assert len(table.splitlines()) == 4


def test_ratios_are_medians_of_rounds():
    """Ratios are taken within a round, so that a slow round does not count twice"""
    row = {"budget_bytes": 7, "checkpoint_segments": 5}
    add_ratios(row, {"ours 7": [1.0, 20.0, 3.0], "full": [1.0, 10.0, 1.0], "checkpoint 5": [2.0, 40.0, 3.0]})
    assert row["time_ratio"] == 2.0
    assert row["checkpoint_time_ratio"] == 0.5


def test_the_rival_is_the_quickest_lean_one_or_the_leanest():
    """A rival may not take more memory than we do, unless every one does: then it is the leanest"""
    peaks, times = {31: 40, 62: 20, 125: 30}, {31: 1.0, 62: 3.0, 125: 2.0}
    assert best_rival(peaks, times, 50) == 31
    assert best_rival(peaks, times, 35) == 125
    assert best_rival(peaks, times, 10) == 62


def test_every_row_of_the_table_has_a_case():
    """Both fused kernels in four sizes, both loops with two kinds of cells, the peers' scan twice"""
    assert len(entries()) == 2 * 4 + 2 * 2 + 2


@pytest.mark.parametrize("results", ["executor.json", "executor-2-threads.json"])
def test_the_page_shows_what_was_measured(results):
    """Its tables are those of the result files"""
    found = json.loads((RESULTS / results).read_text(encoding="utf-8"))
    page = Path(entries.__code__.co_filename).with_name("README.md").read_text(encoding="utf-8")
    assert markdown(found) in page
