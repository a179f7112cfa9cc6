"""The tables of the sparse benchmarks say what the result files hold."""

from __future__ import annotations

import json

import pytest

from benchmarks.machine import RESULTS
from benchmarks.sparse import table


def test_every_cell_of_the_claim_is_a_mean_over_its_seeds():
    rows = json.loads((RESULTS / "sparse-claim.json").read_text())["rows"]
    lines = table.claim().splitlines()[2:]
    assert len(lines) == 9
    for line in lines:
        layers, length, seeds, dense, sparse, *_ = (cell.strip() for cell in line.strip("| ").split("|"))
        cell = [row for row in rows if (row["num_layers"], row["length"]) == (int(layers), int(length))]
        assert len(cell) == 2 * int(seeds)
        for name, written in (("dense", dense), ("top keep_ratio=0.18", sparse)):
            found = [row["nats_per_character"] for row in cell if row["variant"] == name]
            assert float(written) == pytest.approx(sum(found) / len(found), abs=6e-4)


@pytest.mark.parametrize("part", ["claim", "claim-longer"])
def test_the_claims_of_the_page_hold_in_the_result_files(part):
    """At least 80 % dropped throughout, half of the MACs redundant, the loss at most 1 % above dense."""
    rows = json.loads((RESULTS / f"sparse-{part}.json").read_text())["rows"]
    sparse = [row for row in rows if row["variant"] != "dense"]
    assert min(row["sparsity_first"] for row in sparse) >= 0.8
    assert min(row["sparsity"] for row in sparse) >= 0.8
    assert min(row["redundant_ratio"] for row in sparse) >= 0.5
    differences = [
        float(line.split("|")[6].strip().split()[0]) for line in table.claim(part).splitlines()[2:]
    ]
    assert max(differences) <= 1


def test_a_structured_rule_keeps_the_loss_in_three_quarters_of_the_time():
    """55 % of the rows: within 1 % of dense with three seeds, at most 0.75 of the fastest dense time"""
    variant = "mixed keep_ratio=0.125 row_ratio=0.55"
    (line,) = [each for each in table.longer_losses().splitlines() if f"{variant} |" in each]
    seeds, difference = (line.split("|")[at].strip() for at in (3, 5))
    assert seeds == "3"
    assert float(difference.split()[0]) <= 1
    rows = json.loads((RESULTS / "sparse-frontier-time.json").read_text())["rows"]
    (ratio,) = [row["time_ratio"] for row in rows if row["variant"] == variant and row["num_layers"] == 1]
    assert ratio <= 0.75
