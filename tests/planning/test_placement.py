"""Places agree with plans: what fits, what it is called, and that no plan is slower than was said."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from pathlib import Path

import pytest
from pydantic import ValidationError

from planner_service.chain import BudgetTooSmall
from planner_service.contract import FrontierRequest, PlacementRequest, PlanRequest
from planner_service.planning import Planner

ROUNDING = 1 + 1e-9
PLANNER = Planner()


def random_question(draw):
    """A small recurrent model, or a chain of equal or of different stages."""
    if draw.random() < 0.5:
        return {
            "model": {
                "kind": draw.choice(["lstm", "gru", "rnn"]),
                "input_size": draw.randint(1, 64),
                "hidden_size": draw.randint(1, 128),
                "num_layers": draw.randint(1, 2),
                "head": draw.choice([None, {"output_size": draw.randint(1, 500)}]),
            },
            "sequence": {"length": draw.randint(1, 120), "batch_size": draw.randint(1, 16)},
            "device": draw.choice(["cpu", "cuda"]),
        }
    kinds = draw.choice([1, 2, 6])
    stages = [
        {
            "count": draw.randint(1, 30 if kinds < 3 else 3),
            "forward_cost": draw.randint(1, 5),
            "taped_forward_cost": draw.randint(1, 5),
            "backward_cost": draw.randint(1, 5),
            "state_bytes": draw.randint(0, 50),
            "tape_bytes": draw.randint(0, 300),
            "forward_workspace_bytes": draw.randint(0, 40),
            "backward_workspace_bytes": draw.randint(0, 40),
        }
        for _ in range(kinds)
    ]
    return {"model": {"kind": "chain", "stages": stages}}


def plan_request(question, budget_bytes):
    return PlanRequest.model_validate({**question, "memory": {"device_budget_bytes": budget_bytes}})


def place(jobs, holes, **fields):
    given = {"planned_offers": 0, "driver_reserve_ratio": 0.0, "context_bytes": 0, **fields}
    return PLANNER.place(PlacementRequest.model_validate({"jobs": jobs, "holes": holes, **given}))


def holes_of(draw, question, kind):
    """Holes around every amount of bytes that matters to a question, to the byte."""
    (least,) = place([{**question, "device": kind}], [{"name": "x", "memory_total_bytes": 1}]).jobs
    low, high = least.minimum_budget_bytes, least.store_all_peak_bytes
    sizes = [low - 1, low, low + 1, high - 1, high, 2 * high, *(draw.randint(low, high) for _ in range(4))]
    return [
        {"name": f"h{number}", "device_kind": kind, "memory_total_bytes": max(1, size)}
        for number, size in enumerate(sizes)
    ]


@pytest.mark.parametrize("seed", range(40))
def test_every_hole_is_answered_as_its_own_plan_would(seed):
    """It fits if and only if there is a plan, whose id, makespan and budget are what was said"""
    draw = random.Random(seed)
    question = random_question(draw)
    kind = question.setdefault("device", "cuda")
    holes = holes_of(draw, question, kind)
    sizes = {hole["name"]: hole["memory_total_bytes"] for hole in holes}
    (job,) = place([question], holes).jobs
    assert len(job.offers) == len(holes)
    for offer in job.offers:
        if not offer.fits:
            with pytest.raises(BudgetTooSmall) as refused:
                PLANNER.plan(plan_request(question, sizes[offer.hole]))
            assert refused.value.minimum_budget_bytes == sizes[offer.hole] + offer.missing_bytes
            continue
        plan = PLANNER.plan(plan_request(question, offer.budget_bytes))
        assert plan.id == offer.plan_id
        assert plan.memory.projected_peak_bytes <= offer.budget_bytes <= sizes[offer.hole]
        assert plan.cost.makespan <= offer.slowdown_ratio * job.store_all_makespan * ROUNDING
        whole = PLANNER.plan(plan_request(question, sizes[offer.hole]))
        assert whole.cost.makespan <= offer.slowdown_ratio * job.store_all_makespan * ROUNDING


def test_a_model_that_can_be_undone_is_placed_by_its_plans():
    question = {
        "model": {"kind": "rev_gru", "input_size": 16, "hidden_size": 32},
        "sequence": {"length": 60, "batch_size": 4},
        "device": "cpu",
    }
    holes = [
        {"name": f"h{kib}", "device_kind": "cpu", "memory_total_bytes": f"{kib}KiB"}
        for kib in (10, 800, 2000)
    ]
    (job,) = place([question], holes).jobs
    for offer in job.offers:
        if offer.fits:
            plan = PLANNER.plan(plan_request(question, offer.budget_bytes))
            assert offer.planned
            assert plan.cost.makespan <= offer.slowdown_ratio * job.store_all_makespan * ROUNDING
    assert 0 < job.fitting_count < 3


LSTM = {
    "model": {"kind": "lstm", "input_size": 64, "hidden_size": 256, "head": {"output_size": 1000}},
    "sequence": {"length": 300, "batch_size": 16},
}
GPU = {"name": "g", "device": "a100", "memory_total_bytes": "80GiB"}


def test_more_memory_is_never_slower():
    holes = [{"name": f"h{mib}", "memory_total_bytes": f"{mib}MiB"} for mib in range(30, 500, 7)]
    (job,) = place([LSTM], holes).jobs
    by_memory = sorted(job.offers, key=lambda offer: offer.available_bytes)
    slowdowns = [offer.slowdown_ratio for offer in by_memory if offer.fits]
    assert slowdowns == sorted(slowdowns, reverse=True)
    assert slowdowns[-1] == 1.0
    assert [offer.fits for offer in by_memory] == sorted(offer.fits for offer in by_memory)


def test_planned_offers_tell_the_plans_own_time():
    holes = [{"name": "tight", "memory_total_bytes": "100MiB", "hourly_cost": 2.0}]
    job = {**LSTM, "forward_seconds": 0.001, "iterations": 10}
    (bound,) = place([job], holes).jobs[0].offers
    (exact,) = place([job], holes, planned_offers=1).jobs[0].offers
    plan = PLANNER.plan(plan_request({**LSTM, "device": "cuda"}, exact.budget_bytes))
    assert (bound.planned, exact.planned) == (False, True)
    assert exact.slowdown_ratio == pytest.approx(1 + plan.cost.overhead_ratio)
    assert exact.seconds == pytest.approx(plan.cost.makespan * 0.001 * 10)
    assert exact.cost == pytest.approx(exact.seconds / 3600 * 2.0)
    assert exact.slowdown_ratio <= bound.slowdown_ratio


def test_request_and_limit_hold_the_context_and_the_drivers_share():
    (offer,) = place([LSTM], [GPU], context_bytes="512MiB", driver_reserve_ratio=0.04).jobs[0].offers
    assert offer.request_bytes == offer.budget_bytes + 512 * 2**20
    assert offer.limit_bytes * 0.96 >= offer.request_bytes
    assert offer.limit_bytes * 0.9599 < offer.request_bytes
    assert offer.available_bytes == 80 * 2**30 - offer.reserve_bytes - 512 * 2**20


def test_mig_slices_and_fractions_have_their_own_memory_and_speed():
    holes = [
        {**GPU, "name": "slice", "mig_slice": "1g.10gb", "memory_total_bytes": "200MiB"},
        {**GPU, "name": "fraction", "fraction": 0.25, "memory_total_bytes": "800MiB"},
        {**GPU, "name": "whole", "memory_total_bytes": "200MiB"},
    ]
    (job,) = place([{**LSTM, "forward_seconds": 1.0}], holes).jobs
    offers = {offer.hole: offer for offer in job.offers}
    assert {offer.available_bytes for offer in job.offers} == {200 * 2**20}
    assert offers["slice"].seconds == pytest.approx(7 * offers["whole"].seconds)
    assert offers["fraction"].seconds == pytest.approx(4 * offers["whole"].seconds)
    assert [offer.hole for offer in job.offers] == ["whole", "fraction", "slice"]


def test_a_job_file_is_placed_as_its_model_is():
    record = {
        "name": "characters",
        "model": {"kind": "gru", "hidden_size": 64},
        "sequence": {"length": 200, "batch_size": 8},
        "training": {"iterations": 50},
        "budget": "5%",
        "maximum_slowdown_ratio": 1.3,
    }
    (job,) = place([{"job": record, "forward_seconds": 0.5}], [GPU]).jobs
    assert job.name == "characters"
    (offer,) = job.offers
    assert offer.seconds == pytest.approx(job.store_all_makespan * 0.5 * 50)
    tight = {"name": "t", "memory_total_bytes": job.minimum_budget_bytes}
    (refused,) = place([{"job": record}], [tight]).jobs[0].offers
    assert refused.reason == "slowdown"


def test_jobs_are_answered_each_as_if_alone_and_by_name():
    reply = place([LSTM, {**LSTM, "name": "second"}], [GPU])
    assert [job.name for job in reply.jobs] == ["job-1", "second"]
    assert reply.jobs[0].offers == reply.jobs[1].offers


def test_several_devices_are_counted_and_paid_for():
    holes = [{**GPU, "count": 4, "hourly_cost": 1.0}, {**GPU, "name": "single"}]
    (job,) = place([{**LSTM, "devices": 4, "forward_seconds": 1.0}], holes).jobs
    assert job.fitting_count == 1
    assert job.offers[0].cost == pytest.approx(job.offers[0].seconds / 3600 * 4)
    assert job.words.slurm.alternatives == [["--gres=gpu:a100:4"]]
    assert job.offers[1].reason == "count"


def test_each_of_several_devices_holds_its_share_of_the_batch_and_the_buckets():
    """A rank of four plans for a quarter of the batch; DDP's buckets are a copy of the parameters"""
    (alone,) = place([{**LSTM, "sequence": {"length": 300, "batch_size": 4}}], [GPU]).jobs
    (rank,) = place([{**LSTM, "devices": 4}], [{**GPU, "count": 4}]).jobs
    parameters = 4 * 256 * (64 + 256 + 2) + 1000 * 257
    for name in ("minimum_budget_bytes", "held_bytes", "store_all_peak_bytes"):
        assert getattr(rank, name) == getattr(alone, name) + 4 * parameters
    assert rank.store_all_makespan == alone.store_all_makespan
    offer = rank.offers[0]
    share = {**LSTM, "device": "cuda", "sequence": {"length": 300, "batch_size": 4}}
    memory = {"device_budget_bytes": offer.budget_bytes, "reserved_bytes": 4 * parameters}
    assert PLANNER.plan(PlanRequest.model_validate({**share, "memory": memory})).id == offer.plan_id


def test_a_job_file_on_several_devices_is_shared_too():
    record = {
        "model": {"kind": "gru", "hidden_size": 64},
        "sequence": {"length": 200, "batch_size": 8},
        "training": {"iterations": 5},
        "budget": "5%",
    }
    holes = [{**GPU, "count": 8}]
    least = [
        place([{"job": record, "devices": devices}], holes).jobs[0].store_all_peak_bytes for devices in (2, 8)
    ]
    assert least[1] < least[0]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"devices": 3}, "16 sequences cannot be shared equally by 3"),
        ({"devices": 2, "training": {"gradient_sparsity": {"rule": "rms"}}}, "in one process only"),
    ],
)
def test_what_ranks_refuse_is_not_placed(changes, words):
    with pytest.raises(ValidationError, match=words):
        place([{**LSTM, **changes}], [GPU])


@pytest.mark.parametrize("extreme", [{"relative_speed": 1e-300}, {"fraction": 1e-300}])
def test_a_speed_that_no_number_of_seconds_would_be_of_is_refused(extreme):
    with pytest.raises(ValidationError, match="greater than or equal to"):
        place([{**LSTM, "forward_seconds": 1e9}], [{**GPU, **extreme}])
    slow = dict.fromkeys(extreme, 1e-06)
    assert place([{**LSTM, "forward_seconds": 1e9}], [{**GPU, **slow}]).model_dump_json()


def test_stages_without_bytes_are_planned_in_one_byte_everywhere():
    """Costs, and nothing to hold: no budget is less than a byte"""
    costs = {"forward_cost": 1, "taped_forward_cost": 1, "backward_cost": 2}
    stages = [{"count": 3, "state_bytes": 0, "tape_bytes": 0, **costs}]
    chain = {"model": {"kind": "chain", "stages": stages}, "device": "cuda"}
    (job,) = place([chain], [{"name": "a", "memory_total_bytes": 1}], planned_offers=1).jobs
    plan = PLANNER.plan(plan_request(chain, 1))
    assert (job.offers[0].plan_id, job.minimum_budget_bytes) == (plan.id, 1)
    reply = PLANNER.frontier(FrontierRequest.model_validate(chain))
    assert (plan.memory.minimum_budget_bytes, reply.minimum_budget_bytes) == (1, 1)
    assert [point.budget_bytes for point in reply.points] == [1]


def test_a_chain_is_what_one_rank_runs():
    costs = {"forward_cost": 1, "taped_forward_cost": 1, "backward_cost": 2}
    stages = [{"count": 9, "state_bytes": 5, "tape_bytes": 20, **costs}]
    chain = {"model": {"kind": "chain", "stages": stages}}
    one, four = (
        place([{**chain, "devices": devices}], [{**GPU, "count": 4}]).jobs[0].minimum_budget_bytes
        for devices in (1, 4)
    )
    assert one == four


def test_fewer_offers_are_the_first_ones():
    holes = [{"name": f"h{gib}", "memory_total_bytes": f"{gib}GiB"} for gib in range(1, 9)]
    (every,) = place([LSTM], holes).jobs
    (few,) = place([LSTM], holes, most_offers=3).jobs
    assert few.offers == every.offers[:3]
    assert few.fitting_count == every.fitting_count == 8


BLOCKED = """
import sys

class NoTorch:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {"torch", "executor", "matplotlib"}:
            raise ModuleNotFoundError("blocked by the test: " + name, name=name)

sys.meta_path.insert(0, NoTorch())
from planner_service.cli import main
sys.exit(main(["place", sys.argv[1], "--json"]))
"""


def test_places_are_found_on_a_head_node_without_torch():
    example = Path(__file__).parents[2] / "openapi" / "examples" / "placements" / "cluster.json"
    done = subprocess.run(
        [sys.executable, "-c", BLOCKED, str(example)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert json.loads(done.stdout)["jobs"][0]["fitting_count"]
