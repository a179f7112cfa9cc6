"""Counted and bounded bytes of step-by-step cells against what torch really allocates."""

import dataclasses

import pytest

from planner_service.chain import InvalidChain
from planner_service.memory import RecurrentModel, Workload, candidates_for
from planner_service.memory.steps import SCALAR_BYTES, StepBytes, segment_stage, step_candidates

torch = pytest.importorskip("torch")

from executor.jobs.job import ModelSpec  # noqa: E402
from executor.jobs.models import CharacterModel, Window  # noqa: E402
from executor.measure import measure_timeline  # noqa: E402

BATCH, INPUT, HIDDEN, VOCABULARY = 7, 5, 13, 11
CELLS = {"rnn": torch.nn.RNNCell, "gru": torch.nn.GRUCell, "lstm": torch.nn.LSTMCell}


def workload_of(cell="lstm", *, num_layers=1, dtype="float32", length=29, device="cpu", loss="inside"):
    model = RecurrentModel(
        cell_kind=cell,
        input_size=INPUT,
        hidden_size=HIDDEN,
        num_layers=num_layers,
        dtype=dtype,
        embedding_size=VOCABULARY,
        head_output_size=VOCABULARY,
    )
    return Workload(
        model=model, sequence_length=length, batch_size=BATCH, optimizer="sgd", loss=loss, device=device
    )


class Segment:
    """The executor's character model, run for one segment of `steps` steps; `options` are the model's."""

    def __init__(self, workload, steps, **options):
        spec = ModelSpec(
            kind=workload.model.cell_kind,
            hidden_size=HIDDEN,
            embedding_size=INPUT,
            num_layers=workload.model.num_layers,
            dtype=workload.model.dtype,
        )
        self.model = CharacterModel(spec, vocabulary_size=VOCABULARY, **options)
        indices = torch.randint(VOCABULARY, (steps + 1, BATCH))
        self.window = Window.of(indices)
        self.state = tuple(part.requires_grad_() for part in self.model.initial_state(batch_size=BATCH))

    def advance(self):
        with torch.no_grad():
            return self.model.segment(self.state, self.window)

    def tape(self):
        return self.model.segment(self.state, self.window)

    def backward(self, taped):
        state, loss = taped
        gradients = [torch.ones_like(part) for part in state]
        return torch.autograd.grad(
            [loss, *state], [*self.state, *self.model.parameters()], [None, *gradients]
        )


class StepByStep(Segment):
    """The same of torch's cells, called step after step on inputs that are embedded in one call."""

    def __init__(self, workload, steps):
        super().__init__(workload, steps)
        recurrent = self.model.recurrent
        self.cell = CELLS[workload.model.cell_kind](INPUT, HIDDEN, dtype=recurrent.weight_hh_l0.dtype)
        self.state = tuple(part[0].detach().requires_grad_() for part in self.state)
        self.model = torch.nn.ModuleList([self.model.embedding, self.cell, self.model.head])

    def advance(self):
        with torch.no_grad():
            return self.tape()

    def tape(self):
        embedding, cell, head = self.model
        embedded, state, outputs = embedding(self.window.characters), self.state, []
        for step in range(len(embedded)):
            state = cell(embedded[step], state if len(state) > 1 else state[0])
            state = state if isinstance(state, tuple) else (state,)
            outputs.append(state[0])
        logits = head(torch.stack(outputs)).flatten(0, 1)
        return state, torch.nn.functional.cross_entropy(
            logits, self.window.following.flatten(), reduction="sum"
        )


@pytest.mark.parametrize(("cell", "steps"), [("rnn", 2), ("gru", 5), ("lstm", 5)])
def test_gradients_of_wide_embedded_inputs_are_counted(cell, steps, monkeypatch):
    """The way back took up to twice what it was said to: torch spreads each step's over a buffer for all"""
    for name, size in {"INPUT": 500, "HIDDEN": 2, "BATCH": 33}.items():
        monkeypatch.setitem(globals(), name, size)
    workload = workload_of(cell)
    stage = segment_stage(workload, StepBytes(workload), steps)
    segment = StepByStep(workload, steps)
    segment.backward(segment.tape())  # whatever torch sets up once
    taped = segment.tape()
    reversed_ = measure_timeline(lambda: segment.backward(taped))
    from_outside = stage.state_bytes + workload.model.parameter_bytes
    assert reversed_.peak_bytes <= from_outside + stage.state_bytes + stage.backward_workspace_bytes


@pytest.mark.parametrize("cell", ["rnn", "gru", "lstm"])
@pytest.mark.parametrize(
    ("num_layers", "dtype", "steps"),
    [(1, "float32", 1), (2, "float64", 3), (1, "bfloat16", 1), (2, "bfloat16", 4)],
)
def test_torch_never_holds_more_than_the_stage_says(cell, num_layers, dtype, steps, monkeypatch):
    monkeypatch.setattr("executor.fused.choice.kernels_for", lambda _dtype: None)  # torch's cells are counted
    torch.set_num_threads(1)  # a product of bfloat16 takes a buffer for every thread
    workload = workload_of(cell, num_layers=num_layers, dtype=dtype)
    stage = segment_stage(workload, StepBytes(workload), steps)
    segment = Segment(workload, steps)
    segment.backward(segment.tape())  # whatever torch sets up once

    advanced = measure_timeline(segment.advance)
    assert advanced.peak_bytes <= stage.state_bytes + stage.forward_workspace_bytes

    taped = measure_timeline(segment.tape)
    kept_bytes = taped.points[-1].live_bytes
    scalars_bytes = steps * SCALAR_BYTES
    assert 0.8 * (stage.tape_bytes - scalars_bytes) <= kept_bytes <= stage.tape_bytes
    assert taped.peak_bytes <= stage.tape_bytes + stage.taped_forward_workspace_bytes

    reversed_ = measure_timeline(lambda: segment.backward(taped.result))
    from_outside = stage.state_bytes + workload.model.parameter_bytes  # dL/dx_i and the accumulators
    assert reversed_.peak_bytes <= from_outside + stage.state_bytes + stage.backward_workspace_bytes


def test_a_segment_is_counted_tensor_by_tensor():
    """Sizes are distinct primes, so that no two terms can be swapped unnoticed."""
    stage = segment_stage(workload_of("lstm"), StepBytes(workload_of("lstm")), 3)
    unit = 7 * 13 * 4
    embedded, log_probabilities = 7 * 5 * 4, 7 * 11 * 4
    wide = embedded + 2 * unit + 2 * log_probabilities + SCALAR_BYTES
    parameters = (11 * 5 + 4 * 13 * (5 + 13 + 2) + 11 * 14) * 4
    assert stage.state_bytes == 2 * unit
    assert stage.tape_bytes == 3 * (7 * unit + embedded + unit + log_probabilities + SCALAR_BYTES) + 2 * unit
    assert stage.forward_workspace_bytes == 21 * unit + 3 * wide
    assert stage.backward_workspace_bytes == 21 * unit + 3 * wide + 4 * embedded + 2 * parameters
    assert (stage.forward_cost, stage.taped_forward_cost, stage.backward_cost) == (3, 3, 6)


@pytest.mark.parametrize("cell", ["rnn", "gru", "lstm"])
def test_without_a_measurement_every_computed_tensor_counts_as_kept(cell):
    on_cpu, on_cuda = (
        segment_stage(workload_of(cell, device=device), StepBytes(workload_of(cell, device=device)), 5)
        for device in ("cpu", "cuda")
    )
    assert on_cuda.tape_bytes > on_cpu.tape_bytes
    assert on_cuda.tape_bytes % 512 == 0


@pytest.mark.parametrize("length", [1, 2, 7, 29, 100])
def test_every_candidate_covers_the_sequence_exactly(length):
    for candidate in step_candidates(workload_of(length=length)):
        segments, last = candidate.chain.length, candidate.last_steps
        assert (segments - 1) * candidate.segment_steps + last == length
        assert 1 <= last <= candidate.segment_steps
        assert candidate.chain.store_all_makespan == 3 * length
        assert candidate.chain.stage(segments).forward_cost == last


def test_sizes_out_of_range_are_refused_as_the_models():
    workload = workload_of()
    huge = dataclasses.replace(workload, model=dataclasses.replace(workload.model, hidden_size=10**10))
    with pytest.raises(InvalidChain, match="out of range") as refusal:
        candidates_for(huge)
    assert refusal.value.field == "model"
