"""What a plan request may say, and by which path a wrong field is named."""

import json
import time

import pytest
from pydantic import ValidationError

from planner_service.chain import InvalidChain, Stage
from planner_service.contract import PlanRequest, problem_from_validation, stages
from tests.contract.requests import CHAIN, LSTM, MISSING, changed

STAGE = ("model", "stages", 0)
BUDGET = ("memory", "device_budget_bytes")


def field_of_refusal(request):
    with pytest.raises(ValidationError) as refusal:
        PlanRequest.model_validate(request)
    problem = problem_from_validation(refusal.value)
    assert problem.status == 422
    assert problem.type.endswith("/invalid-request")
    json.dumps(problem.model_dump(), allow_nan=False)
    return problem.field


def test_the_documented_requests_are_read():
    lstm = PlanRequest.model_validate(LSTM)
    assert lstm.memory.device_budget_bytes == 2 * 2**30
    chain = PlanRequest.model_validate(CHAIN).model.chain()
    assert chain.length == 1000
    assert chain.stage(500) == Stage(
        forward_cost=1, taped_forward_cost=1, backward_cost=2, state_bytes=1, tape_bytes=4
    )


@pytest.mark.parametrize("written", [260, 260.0, "260", "260 B"])
def test_bytes_are_numbers_or_texts(written):
    request = PlanRequest.model_validate(changed(CHAIN, *BUDGET, to=written))
    assert request.memory.device_budget_bytes == 260


def test_whole_numbers_may_be_written_as_json_floats():
    request = PlanRequest.model_validate(changed(LSTM, "sequence", "length", to=1000.0))
    assert request == PlanRequest.model_validate(LSTM)
    assert type(request.sequence.length) is int


def test_neighbouring_equal_stages_make_one_run():
    split = changed(CHAIN, "model", "stages", to=[{**CHAIN["model"]["stages"][0], "count": 500}] * 2)
    assert PlanRequest.model_validate(split).model.chain() == PlanRequest.model_validate(CHAIN).model.chain()


@pytest.mark.parametrize(
    ("request_", "path", "value", "field"),
    [
        (LSTM, ("sequence", "length"), 0, "sequence.length"),
        (LSTM, ("sequence", "length"), -1, "sequence.length"),
        (LSTM, ("sequence", "length"), 1.5, "sequence.length"),
        (LSTM, ("sequence", "length"), True, "sequence.length"),
        (LSTM, ("sequence", "length"), "1000", "sequence.length"),
        (LSTM, ("sequence", "length"), 10**400, "sequence.length"),
        (LSTM, ("sequence", "length"), None, "sequence.length"),
        (LSTM, ("sequence", "batch_size"), 0, "sequence.batch_size"),
        (LSTM, ("sequence",), MISSING, "sequence"),
        (LSTM, ("sequence",), "long", "sequence"),
        (LSTM, ("model",), MISSING, "model"),
        (LSTM, ("model", "kind"), "transformer", "model.kind"),
        (LSTM, ("model", "kind"), MISSING, "model.kind"),
        (LSTM, ("model", "dtype"), "int8", "model.dtype"),
        (LSTM, ("model", "hidden_size"), 0, "model.hidden_size"),
        (LSTM, ("model", "num_layers"), -2, "model.num_layers"),
        (LSTM, ("model", "head", "output_size"), 0, "model.head.output_size"),
        (LSTM, ("model", "hiden_size"), 3, "model.hiden_size"),
        (LSTM, ("training", "optimizer"), "adamw", "training.optimizer"),
        (LSTM, ("memory",), MISSING, "memory"),
        (LSTM, BUDGET, 0, "memory.device_budget_bytes"),
        (LSTM, BUDGET, -5, "memory.device_budget_bytes"),
        (LSTM, BUDGET, "-5MiB", "memory.device_budget_bytes"),
        (LSTM, BUDGET, "2G", "memory.device_budget_bytes"),
        (LSTM, BUDGET, "much", "memory.device_budget_bytes"),
        (LSTM, BUDGET, 2**62 + 1, "memory.device_budget_bytes"),
        (LSTM, BUDGET, float("nan"), "memory.device_budget_bytes"),
        (LSTM, BUDGET, None, "memory.device_budget_bytes"),
        (LSTM, ("strategy",), "", "strategy"),
        (LSTM, ("strategy",), 7, "strategy"),
        (LSTM, ("device",), "tpu", "device"),
        (LSTM, ("surprise",), 1, "surprise"),
        (CHAIN, ("sequence",), {"length": 5}, "sequence"),
        (CHAIN, ("training",), {"optimizer": "sgd"}, "training"),
        (CHAIN, ("model", "stages"), [], "model.stages"),
        (CHAIN, ("model", "stages"), "none", "model.stages"),
        (CHAIN, ("model", "static_bytes"), -1, "model.static_bytes"),
        (CHAIN, (*STAGE, "count"), 0, "model.stages[0].count"),
        (CHAIN, (*STAGE, "tape_bytes"), MISSING, "model.stages[0].tape_bytes"),
        (CHAIN, (*STAGE, "tape_bytes"), -1, "model.stages[0].tape_bytes"),
        (CHAIN, (*STAGE, "tape_bytes"), 1e40, "model.stages[0].tape_bytes"),
        (CHAIN, (*STAGE, "tape_bites"), 1, "model.stages[0].tape_bites"),
        (CHAIN, (*STAGE, "forward_cost"), float("nan"), "model.stages[0].forward_cost"),
        (CHAIN, (*STAGE, "forward_cost"), float("inf"), "model.stages[0].forward_cost"),
        (CHAIN, (*STAGE, "forward_cost"), -1, "model.stages[0].forward_cost"),
        (CHAIN, (*STAGE, "forward_cost"), "1", "model.stages[0].forward_cost"),
        (CHAIN, (*STAGE, "forward_cost"), True, "model.stages[0].forward_cost"),
        (CHAIN, (*STAGE, "forward_cost"), 10**400, "model.stages[0].forward_cost"),
    ],
)
def test_a_wrong_field_is_named_by_its_path(request_, path, value, field):
    assert field_of_refusal(changed(request_, *path, to=value)) == field


@pytest.mark.parametrize("nonsense", [None, 7, "plan", [], [LSTM]])
def test_what_is_no_object_is_refused(nonsense):
    assert field_of_refusal(nonsense) is None


def test_ten_to_the_fifteen_bytes_are_fine():
    request = PlanRequest.model_validate(changed(LSTM, *BUDGET, to=10**15))
    assert request.memory.device_budget_bytes == 10**15


def test_costs_whose_sum_overflows_are_refused():
    request = PlanRequest.model_validate(changed(CHAIN, *STAGE, "forward_cost", to=1.7e308))
    with pytest.raises(InvalidChain):
        request.model.chain()


def test_long_chains_validate_in_time_proportional_to_their_length():
    """A million entries are allowed; a tenth of that must take well below a second, or ten."""
    entry = {**CHAIN["model"]["stages"][0], "count": 1}
    entries = [{**entry, "tape_bytes": 4 + index} for index in range(100_000)]
    started = time.process_time()
    request = PlanRequest.model_validate(changed(CHAIN, "model", "stages", to=entries))
    assert len(request.model.stages) == 100_000
    assert time.process_time() - started < 5


def test_a_million_entries_are_the_most():
    stages = PlanRequest.model_json_schema()["$defs"]["ChainModel"]["properties"]["stages"]
    assert (stages["minItems"], stages["maxItems"]) == (1, 1_000_000)


def test_too_many_different_stages_are_refused_before_they_are_planned(monkeypatch):
    monkeypatch.setattr(stages, "MOST_RUNS", 3)
    entry = CHAIN["model"]["stages"][0]
    fine = [entry, {**entry, "tape_bytes": 5}, {**entry, "tape_bytes": 5}, entry]
    assert PlanRequest.model_validate(changed(CHAIN, "model", "stages", to=fine)).model.chain().length == 4000
    request = PlanRequest.model_validate(
        changed(CHAIN, "model", "stages", to=[*fine, {**entry, "tape_bytes": 6}])
    )
    with pytest.raises(stages.TooManyStages, match="5 entries") as refusal:
        request.model.chain()
    assert refusal.value.field == "model.stages"
