"""Actions go over the wire and come back, or are refused with the reason."""

from __future__ import annotations

import json

import pytest
from hypothesis import given

from planner_service.chain import Advance, Backward, Free, Tape, action_from_record, action_record, describe
from tests.oracles.chains import actions


@given(actions(9))
def test_records_survive_json_and_come_back_equal(action):
    record = json.loads(json.dumps(action_record(action)))
    back = action_from_record(record)
    assert back == action
    assert type(back) is type(action)


def test_reading_a_record_leaves_it_alone():
    record = {"action": "free", "state": 3}
    action_from_record(record)
    assert record == {"action": "free", "state": 3}


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        ({}, "unknown action None"),
        ({"action": "jump", "first": 1, "last": 2}, "unknown action 'jump'"),
        ({"action": ["advance"], "first": 1, "last": 2}, "unknown action"),
        ({"action": "advance", "first": 1}, "takes the fields first, last"),
        ({"action": "advance", "first": 1, "last": 2, "state": 3}, "takes the fields first, last"),
        ({"action": "free", "first": 1, "last": 2}, "takes the fields state"),
        ({"action": "tape", "first": 1.0, "last": 2}, "whole numbers"),
        ({"action": "tape", "first": True, "last": 2}, "whole numbers"),
        ({"action": "backward", "first": "2", "last": 1}, "whole numbers"),
        ({"action": "free", "state": None}, "whole numbers"),
    ],
)
def test_a_malformed_record_is_refused_with_the_reason(record, reason):
    with pytest.raises(ValueError, match=reason):
        action_from_record(record)


@pytest.mark.parametrize(
    ("action", "words"),
    [
        (Advance(1, 17), "advance 1..17"),
        (Tape(4, 4), "tape 4"),
        (Backward(6, 4), "backward 6..4"),
        (Free(17), "free 17"),
    ],
)
def test_actions_describe_themselves(action, words):
    assert describe(action) == words
