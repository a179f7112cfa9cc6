"""Profiles are used exactly as measured, and only for what they were measured of."""

import copy
import json

import pytest

from planner_service.chain import InvalidChain, Stage
from planner_service.memory import (
    ProfileMismatch,
    ProfileNeeded,
    RecurrentModel,
    Workload,
    candidates_for,
    profile_from_record,
    shipped_profiles,
)
from planner_service.memory.cells import CELLS
from planner_service.memory.model import ITEM_BYTES

STAGE = {
    "forward_cost": 0.25,
    "taped_forward_cost": 0.5,
    "backward_cost": 1.0,
    "state_bytes": 101,
    "tape_bytes": 1009,
    "forward_workspace_bytes": 103,
    "taped_forward_workspace_bytes": 107,
    "backward_workspace_bytes": 109,
    "gradient_bytes": 101,
}
RECORD = {
    "source": "probe",
    "device": "cpu",
    "torch": "2.13.0+cpu",
    "cell": "lstm",
    "implementation": "fused",
    "dtype": "float32",
    "input_size": 5,
    "hidden_size": 13,
    "num_layers": 1,
    "batch_size": 7,
    "embedding_size": None,
    "head_output_size": None,
    "sequence_length": 23,
    "input_bytes": 97,
    "input_gradient_bytes": 89,
    "loss_gradient_bytes": 83,
    "static": [{"name": "parameter gradients", "bytes": 4001, "formula": "measured", "exactness": "exact"}],
    "segments": [
        {
            "segment_steps": 10,
            "last_steps": 3,
            "inner": STAGE,
            "first": {**STAGE, "tape_bytes": 1013},
            "last": {**STAGE, "tape_bytes": 307},
        },
        {"segment_steps": 23, "last_steps": 23, "inner": STAGE, "first": None, "last": None},
    ],
}


def workload(**changes):
    model = {"cell_kind": "lstm", "input_size": 5, "hidden_size": 13, "num_layers": 1, "dtype": "float32"}
    sizes = {"sequence_length": 23, "batch_size": 7}
    model |= {"implementation": "fused"} | {name: changes[name] for name in changes if name not in sizes}
    sizes |= {name: changes[name] for name in changes if name in sizes}
    model = RecurrentModel(**model)
    return Workload(model=model, **sizes, optimizer="sgd", loss="inside", device="cpu", reserved_bytes=31)


def test_a_matching_profile_is_used_as_it_stands():
    candidates = candidates_for(workload(), profile=profile_from_record(RECORD))
    assert [candidate.segment_steps for candidate in candidates] == [10, 23]
    chain = candidates[0].chain
    assert chain.length == 3
    assert chain.stage(1) == Stage(**{**STAGE, "tape_bytes": 1013})
    assert chain.stage(2) == Stage(**STAGE)
    assert chain.stage(3) == Stage(**{**STAGE, "tape_bytes": 307})
    assert (chain.input_bytes, chain.input_gradient_bytes, chain.loss_gradient_bytes) == (97, 89, 83)
    assert candidates[0].cost_unit == "seconds"
    assert candidates[0].sources.tapes.exactness == "calibrated"


def test_the_callers_own_bytes_are_added_and_the_calls_are_the_profiles():
    candidate = candidates_for(workload(), profile=profile_from_record(RECORD))[0]
    lines = {line.name: line.bytes for line in candidate.ledger}
    parameters = 4 * 13 * (5 + 13 + 2) * 4
    assert lines == {
        "reserved": 31,
        "parameters: lstm layers": parameters,
        "inputs": 23 * 7 * 5 * 4,
        "targets": 23 * 7 * 13 * 4,
        "parameter gradients": 4001,
    }
    assert candidate.chain.static_bytes == sum(lines.values())


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"hidden_size": 17}, "hidden_size=13 where 17"),
        ({"cell_kind": "gru"}, "cell=lstm where gru"),
        ({"batch_size": 8}, "batch_size=7 where 8"),
        ({"sequence_length": 24}, "sequence_length=23 where 24"),
        ({"dtype": "float64"}, "dtype=float32 where float64"),
        ({"implementation": "steps"}, "implementation=fused where steps"),
        ({"head_output_size": 3}, "head_output_size=None where 3"),
        ({"embedding_size": 3}, "embedding_size=None where 3"),
        ({"num_layers": 2}, "num_layers=1 where 2"),
        ({"input_size": 6}, "input_size=5 where 6"),
    ],
)
def test_a_profile_of_something_else_is_refused_by_name(change, said):
    with pytest.raises(ProfileMismatch, match=said):
        candidates_for(workload(**change), profile=profile_from_record(RECORD))


def test_where_the_loss_was_is_compared_where_it_is_told():
    record = {**RECORD, "loss": "outside", "cost_unit": "forward"}
    with pytest.raises(ProfileMismatch, match="loss=outside where inside"):
        candidates_for(workload(), profile=profile_from_record(record))
    told = profile_from_record({**record, "loss": "inside"})
    assert candidates_for(workload(), profile=told)[0].cost_unit == "forward"


def test_a_wrong_remainder_is_refused():
    record = copy.deepcopy(RECORD)
    record["segments"][0]["last_steps"] = 4
    with pytest.raises(ProfileMismatch, match="last_steps=4 where 3"):
        candidates_for(workload(), profile=profile_from_record(record))


def test_known_profiles_are_used_where_they_match_and_passed_over_where_not():
    known = [profile_from_record({**RECORD, "batch_size": 8}), profile_from_record(RECORD)]
    assert candidates_for(workload(), known_profiles=known)[0].cost_unit == "seconds"
    unprofiled = candidates_for(workload(implementation="steps"), known_profiles=known)
    assert unprofiled[0].cost_unit == "forward"


def test_fused_kernels_without_a_measurement_are_refused():
    with pytest.raises(ProfileNeeded, match="probe the model"):
        candidates_for(workload())


@pytest.mark.parametrize("missing", ["segments", "cell", "sequence_length"])
def test_a_malformed_record_is_refused(missing):
    record = {name: value for name, value in RECORD.items() if name != missing}
    with pytest.raises(InvalidChain, match=missing) as refusal:
        profile_from_record(record)
    assert refusal.value.field == "profile"


def test_shipped_profiles_are_sound():
    for profile in shipped_profiles():
        assert profile.device == "cpu"
        for segments in profile.segments:
            assert 1 <= segments.last_steps <= segments.segment_steps <= profile.sequence_length
            assert segments.inner.tape_bytes >= segments.inner.state_bytes > 0
            steps = segments.segment_steps
            costs = segments.inner.forward_cost, segments.inner.taped_forward_cost
            assert profile.cost_unit == "forward"
            assert (*costs, segments.inner.backward_cost) == (steps, steps, 2 * steps)


def test_a_request_that_matches_a_shipped_profile_is_planned_with_it():
    for profile in shipped_profiles():
        model = RecurrentModel(
            cell_kind=profile.cell,
            input_size=profile.input_size,
            hidden_size=profile.hidden_size,
            num_layers=1,
            dtype=profile.dtype,
            implementation=profile.implementation,
        )
        asked = Workload(
            model=model,
            sequence_length=profile.sequence_length,
            batch_size=profile.batch_size,
            optimizer="sgd",
            loss="outside",
            device="cpu",
        )
        candidates = candidates_for(asked, known_profiles=shipped_profiles())
        assert [c.segment_steps for c in candidates] == [s.segment_steps for s in profile.segments]
        assert candidates[0].sources.tapes.exactness == "calibrated"


@pytest.mark.parametrize(
    "profile", shipped_profiles(), ids=lambda p: f"{p.cell}-{p.implementation}-{p.dtype}"
)
def test_unfused_cells_tape_as_much_as_the_counted_units_say(profile):
    """Probes of other sizes and of float64 give the whole numbers on which the counting rests."""
    cell = CELLS[profile.cell]
    unit = profile.batch_size * profile.hidden_size * ITEM_BYTES[profile.dtype]
    for segments in profile.segments:
        assert segments.inner.state_bytes == cell.state_units * unit
        if profile.implementation == "steps":
            assert segments.inner.tape_bytes == segments.segment_steps * cell.taped_units * unit


def test_a_record_survives_json():
    assert profile_from_record(json.loads(json.dumps(RECORD))) == profile_from_record(RECORD)
