"""What is held whatever the plan: exact, line by line, and as torch's own modules hold it."""

import pytest

from planner_service.memory import RecurrentModel, Workload, total_bytes
from planner_service.memory.model import ITEM_BYTES

BATCH, INPUT, HIDDEN, LAYERS, ROWS, OUTPUTS, LENGTH = 7, 5, 13, 3, 11, 17, 29


def model_of(cell="lstm", *, dtype="float32", embedding=True, head=True, num_layers=LAYERS):
    return RecurrentModel(
        cell_kind=cell,
        input_size=INPUT,
        hidden_size=HIDDEN,
        num_layers=num_layers,
        dtype=dtype,
        embedding_size=ROWS if embedding else None,
        head_output_size=OUTPUTS if head else None,
    )


def workload_of(model, *, optimizer="adam", loss="inside", device="cpu", reserved_bytes=0):
    return Workload(
        model=model,
        sequence_length=LENGTH,
        batch_size=BATCH,
        optimizer=optimizer,
        loss=loss,
        device=device,
        reserved_bytes=reserved_bytes,
    )


def by_name(lines):
    assert len({line.name for line in lines}) == len(lines)
    return {line.name: line.bytes for line in lines}


def test_the_callers_lines_for_distinct_prime_sizes():
    workload = workload_of(model_of(), reserved_bytes=19)
    embedding, head = 11 * 5, 17 * 14
    layers = 4 * 13 * (5 + 13 + 2) + 2 * 4 * 13 * (13 + 13 + 2)
    assert by_name(workload.caller_ledger()) == {
        "reserved": 19,
        "parameters: embedding": embedding * 4,
        "parameters: lstm layers": layers * 4,
        "parameters: head": head * 4,
        "optimizer state": 2 * (embedding + layers + head) * 4 + (1 + 3 * 4 + 2) * 4,
        "inputs": 29 * 7 * 8,
        "targets": 29 * 7 * 8,
    }
    assert by_name(workload.call_ledger()) == {"parameter gradients": (embedding + layers + head) * 4}


def test_a_loss_outside_holds_all_outputs_and_their_gradient():
    workload = workload_of(model_of(embedding=False, head=False, dtype="float64"), loss="outside")
    outputs = 29 * 7 * 13 * 8
    assert by_name(workload.call_ledger())["outputs"] == outputs
    assert by_name(workload.call_ledger())["gradients of the outputs"] == outputs
    assert by_name(workload.caller_ledger())["inputs"] == 29 * 7 * 5 * 8
    assert "targets" not in by_name(workload.caller_ledger())


def test_on_cuda_the_matrix_librarys_workspace_is_counted():
    lines = workload_of(model_of(), device="cuda").call_ledger()
    assert by_name(lines)["matrix library"] == 32 * 2**20


@pytest.mark.parametrize(("optimizer", "copies"), [("sgd", 0), ("momentum", 1), ("adam", 2)])
def test_optimizer_state_in_copies_of_the_parameters(optimizer, copies):
    workload = workload_of(model_of(), optimizer=optimizer)
    counters = (1 + 3 * 4 + 2) * 4 if optimizer == "adam" else 0
    expected = copies * workload.model.parameter_bytes + counters
    assert by_name(workload.caller_ledger()).get("optimizer state", 0) == expected


@pytest.mark.parametrize("cell", ["rnn", "gru", "lstm"])
@pytest.mark.parametrize("dtype", list(ITEM_BYTES))
@pytest.mark.parametrize("optimizer", ["sgd", "momentum", "adam"])
def test_torch_modules_hold_what_the_ledger_says(cell, dtype, optimizer):
    torch = pytest.importorskip("torch")
    kind = getattr(torch, dtype)
    module = torch.nn.ModuleList(
        [
            torch.nn.Embedding(ROWS, INPUT, dtype=kind),
            getattr(torch.nn, cell.upper())(INPUT, HIDDEN, LAYERS, dtype=kind),
            torch.nn.Linear(HIDDEN, OUTPUTS, dtype=kind),
        ]
    )
    parameters = list(module.parameters())
    for parameter in parameters:
        parameter.grad = torch.zeros_like(parameter)
    stepper = {
        "sgd": lambda: torch.optim.SGD(parameters, 0.1),
        "momentum": lambda: torch.optim.SGD(parameters, 0.1, momentum=0.9),
        "adam": lambda: torch.optim.Adam(parameters, 0.1),
    }[optimizer]()
    stepper.step()
    states = [value for state in stepper.state.values() for value in state.values() if value is not None]
    lines = by_name(workload_of(model_of(cell, dtype=dtype), optimizer=optimizer).caller_ledger())
    assert sum(size for name, size in lines.items() if name.startswith("parameters")) == _bytes(parameters)
    assert lines.get("optimizer state", 0) == _bytes(states)


def _bytes(tensors):
    return sum(tensor.untyped_storage().nbytes() for tensor in tensors)


def test_lines_without_bytes_are_left_out():
    lines = workload_of(model_of(), optimizer="sgd").caller_ledger()
    assert all(line.bytes > 0 for line in lines)
    assert total_bytes(lines) == sum(by_name(lines).values())
