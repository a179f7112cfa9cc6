"""What a job asks of a node, against the planner's own answers for the same model."""

from __future__ import annotations

import pytest

from planner_service.chain import PlanningError
from planner_service.contract import FrontierRequest
from planner_service.contract.jobs import JobRequest
from planner_service.planning import Planner
from planner_service.planning.job_needs import ALPHABET_SIZE

PLANNER = Planner()


def job(budget: object, **fields: object) -> JobRequest:
    record = {
        "model": {"kind": "gru", "hidden_size": 128, "num_layers": 2},
        "sequence": {"length": 400, "batch_size": 8},
        "training": {"iterations": 3, "optimizer": "sgd"},
        "budget": budget,
        **fields,
    }
    return JobRequest.model_validate(record)


def frontier_of(device: str):
    model = {
        "kind": "gru",
        "input_size": 64,
        "hidden_size": 128,
        "num_layers": 2,
        "embedding": {"vocabulary_size": ALPHABET_SIZE},
        "head": {"output_size": ALPHABET_SIZE},
    }
    request = {
        "model": model,
        "sequence": {"length": 400, "batch_size": 8},
        "training": {"optimizer": "sgd", "loss": "inside"},
        "device": device,
    }
    return PLANNER.frontier(FrontierRequest.model_validate(request))


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_what_is_free_must_hold_the_leanest_plan(device):
    needed = PLANNER.job_needs(job("free")).on(device).needed_bytes
    assert needed == frontier_of(device).points[0].budget_bytes


def test_bytes_must_be_free_beside_what_is_held():
    for device in ("cpu", "cuda"):
        small, large = (PLANNER.job_needs(job(budget)).on(device) for budget in (10**6, 10**7))
        assert large.needed_bytes - small.needed_bytes == 9 * 10**6
        assert small.needed_bytes == small.held_bytes + 10**6


def test_a_share_grows_with_the_share_and_all_of_it_is_full_bptt():
    needs = [PLANNER.job_needs(job(f"{share}%")).cpu for share in (5, 10, 100)]
    activations = [need.needed_bytes - need.held_bytes for need in needs]
    assert activations[1] == pytest.approx(2 * activations[0], abs=2)
    assert needs[2].needed_bytes == frontier_of("cpu").store_all_peak_bytes


def test_an_unknown_strategy_is_refused_before_the_job_is_queued():
    with pytest.raises(PlanningError, match="luck"):
        PLANNER.job_needs(job("free", strategy="luck"))
