"""Refusals as documents: numbers as fields, one offending field by its path."""

import pytest
from pydantic import TypeAdapter, ValidationError

from planner_service.chain import BudgetTooSmall, InvalidChain, PlanningError
from planner_service.contract import (
    PlanRequest,
    problem_from_details,
    problem_from_error,
    problem_from_validation,
)
from planner_service.contract.problem import field_path
from planner_service.contract.texts import Name
from tests.contract.requests import CHAIN, changed


def test_a_small_budget_names_the_minimum():
    document = problem_from_error(BudgetTooSmall(budget_bytes=7, minimum_budget_bytes=11)).model_dump()
    assert document["type"].endswith("/budget-too-small")
    assert document["status"] == 422
    assert (document["budget_bytes"], document["minimum_budget_bytes"]) == (7, 11)
    assert document["field"] == "memory.device_budget_bytes"
    assert "4 bytes short" in document["detail"]


def test_the_instance_and_the_field_of_a_chain_travel():
    document = problem_from_error(InvalidChain("no", field="model.stages"), instance="/v1/plans")
    assert (document.field, document.instance) == ("model.stages", "/v1/plans")


def test_private_and_foreign_attributes_stay_here():
    error = PlanningError("no")
    error.secret = object()
    error._inner = 3
    error.status = 200
    document = problem_from_error(error)
    assert document.status == 422
    assert document.model_extra == {}


def test_every_wrong_field_is_listed_up_to_twenty():
    request = CHAIN | {f"unknown{number}": 0 for number in range(30)}
    with pytest.raises(ValidationError) as refusal:
        PlanRequest.model_validate(request)
    problem = problem_from_validation(refusal.value)
    assert len(problem.errors) == 20
    assert problem.field == problem.errors[0].field == "unknown0"


def test_of_a_list_the_first_wrong_item_is_told_with_all_its_fields():
    """There may be a million, and each error takes more bytes than what is wrong"""
    request = changed(CHAIN, "model", "stages", to=[{"count": 0, "tape_bytes": -1}] * 30)
    with pytest.raises(ValidationError) as refusal:
        PlanRequest.model_validate(request)
    fields = [each.field for each in problem_from_validation(refusal.value).errors]
    assert {"model.stages[0].count", "model.stages[0].tape_bytes"} < {*fields}
    assert all(field.startswith("model.stages[0].") for field in fields)


def test_a_path_inside_something_else_is_prefixed():
    details = [{"type": "missing", "loc": ("length",), "msg": "", "input": {}}]
    assert problem_from_details(details, inside="request.sequence").field == "request.sequence.length"


@pytest.mark.parametrize(
    ("location", "path"),
    [
        ((), ""),
        (("model", "chain", "stages", 3, "tape_bytes", "(written)"), "model.stages[3].tape_bytes"),
        (("model", "lstm", "head", "output_size"), "model.head.output_size"),
        ((0, "name"), "[0].name"),
    ],
)
def test_locations_become_json_paths(location, path):
    assert field_path(location) == path


@pytest.mark.parametrize(("text", "told"), [("a" * 201, "at most 200 characters, not 201"), ("", "not 0")])
def test_a_text_has_characters_and_no_items(text, told):
    with pytest.raises(ValidationError) as error:
        TypeAdapter(Name).validate_python(text)
    assert problem_from_validation(error.value).detail.endswith(told)
