"""Equal questions have equal names; different ones do not."""

import pytest

from planner_service.contract import PlanRequest, canonical_json, content_id
from planner_service.contract.identity import BudgetIds
from tests.contract.requests import CHAIN, LSTM, MISSING, changed


def name(request, version="1"):
    return content_id(PlanRequest.model_validate(request), version)


@pytest.mark.parametrize(
    "same",
    [
        changed(LSTM, "memory", "device_budget_bytes", to=2 * 2**30),
        changed(LSTM, "memory", "device_budget_bytes", to="2048 MiB"),
        changed(LSTM, "strategy", to=MISSING),
        changed(LSTM, "model", "num_layers", to=MISSING),
        changed(LSTM, "sequence", "length", to=1e3),
        dict(reversed(LSTM.items())),
    ],
)
def test_another_spelling_has_the_same_name(same):
    assert name(same) == name(LSTM)


@pytest.mark.parametrize(
    "other",
    [
        CHAIN,
        changed(LSTM, "memory", "device_budget_bytes", to=2 * 2**30 - 1),
        changed(LSTM, "strategy", to="sqrt"),
        changed(LSTM, "model", "kind", to="gru"),
        changed(LSTM, "device", to="cuda"),
    ],
)
def test_another_question_has_another_name(other):
    assert name(other) != name(LSTM)


def test_another_planner_gives_another_name():
    assert name(LSTM, "2") != name(LSTM, "1")


def test_names_are_hexadecimal():
    assert len(name(LSTM)) == 32
    int(name(LSTM), 16)


def test_the_canonical_form_reads_back_as_the_same_request():
    for request in (LSTM, CHAIN):
        parsed = PlanRequest.model_validate(request)
        assert PlanRequest.model_validate_json(canonical_json(parsed)) == parsed


@pytest.mark.parametrize("request_", [LSTM, CHAIN, changed(LSTM, "model", "kind", to="rnn")])
def test_ids_by_budget_are_those_of_the_whole_requests(request_):
    budgets = [1, 17, 2**40, 2**62]
    ids = BudgetIds(PlanRequest.model_validate(request_), given(request_), "1")
    for budget_bytes in budgets:
        other = changed(request_, "memory", "device_budget_bytes", to=budget_bytes)
        assert ids.of(budget_bytes) == name(other)


def test_a_text_that_looks_like_the_budget_is_not_taken_for_it():
    request_ = changed(LSTM, "strategy", to='"device_budget_bytes":1')
    ids = BudgetIds(PlanRequest.model_validate(request_), given(request_), "1")
    assert ids.of(99) == name(changed(request_, "memory", "device_budget_bytes", to=99))


def test_ids_by_budget_need_the_budget_of_their_request():
    with pytest.raises(ValueError, match="no budget of 5 bytes"):
        BudgetIds(PlanRequest.model_validate(LSTM), 5, "1")


def given(request_):
    return PlanRequest.model_validate(request_).memory.device_budget_bytes
