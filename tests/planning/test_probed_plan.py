"""From the executor's probe to a plan over the wire: what was measured is what is planned."""

import json

import pytest

from planner_service.contract import PlanRequest, ProfileRecord
from planner_service.planning import Planner
from planner_service.planning.candidates import candidates_of

torch = pytest.importorskip("torch")

from executor import probe  # noqa: E402

LENGTH, BATCH, INPUT, HIDDEN = 23, 3, 5, 7
DESCRIPTION = {
    "cell": "gru",
    "implementation": "steps",
    "dtype": "float32",
    "input_size": INPUT,
    "hidden_size": HIDDEN,
    "num_layers": 1,
    "batch_size": BATCH,
    "embedding_size": None,
    "head_output_size": None,
}


@pytest.fixture(scope="module")
def report():
    cell = torch.nn.GRUCell(INPUT, HIDDEN)

    def step(state, x_t):
        state = cell(x_t, state)
        return state, state

    inputs, state = torch.randn(LENGTH, BATCH, INPUT), torch.zeros(BATCH, HIDDEN)
    return probe(step, state, inputs, module=cell, candidates=(5,))


@pytest.fixture
def request_(report):
    record = json.loads(json.dumps(report.record(DESCRIPTION)))
    return PlanRequest.model_validate(
        {
            "model": {"kind": "gru", "input_size": INPUT, "hidden_size": HIDDEN},
            "sequence": {"length": LENGTH, "batch_size": BATCH},
            "training": {"optimizer": "sgd", "loss": "outside"},
            "memory": {"device_budget_bytes": "1MiB"},
            "profile": record,
        }
    )


def test_the_planned_chains_are_the_probed_ones(report, request_):
    for candidate in candidates_of(request_, ()):
        probed = report.chain(LENGTH, candidate.segment_steps)
        assert candidate.chain.runs == probed.runs
        assert candidate.chain.input_gradient_bytes >= probed.input_gradient_bytes
        lines = {line.name: line.bytes for line in candidate.ledger}
        held_by_the_caller = lines["parameters: gru layers"] + lines["inputs"]
        assert candidate.chain.static_bytes >= probed.static_bytes + held_by_the_caller


def test_the_plan_is_in_seconds_and_holds(request_):
    reply = Planner(()).plan(request_)
    assert reply.cost.unit == "seconds"
    assert (reply.segment_steps, reply.segment_count, reply.last_segment_steps) == (5, 5, 3)
    assert reply.memory.projected_peak_bytes <= 2**20


def test_the_record_reads_back_unchanged(report):
    record = report.record(DESCRIPTION)
    read = ProfileRecord.model_validate(record).model_dump()
    assert {name: read[name] for name in record if name not in {"static", "segments"}} == {
        name: value for name, value in record.items() if name not in {"static", "segments"}
    }
    assert [segments["inner"] for segments in read["segments"]] == [s["inner"] for s in record["segments"]]
