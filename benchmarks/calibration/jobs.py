"""Small training jobs of every cell, run step by step through the executor, and what they measure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd import backward

from executor.jobs.data import character_streams
from executor.jobs.job import DataSpec, SequenceSpec, TrainingSpec
from executor.jobs.models import Window
from executor.jobs.training import PlannedLoss, held_bytes
from executor.measure import measure
from executor.plan import ExecutionPlan
from executor.probe import probe_loop
from executor.replay import outputs_needed
from planner_service.chain import policy_from_record
from planner_service.client import PlannerClient
from planner_service.contract import PlanReply

CELLS: dict[str, Any] = {"lstm": nn.LSTMCell, "gru": nn.GRUCell, "rnn": nn.RNNCell}
DATA = DataSpec(characters=40_000)
TRAINING = TrainingSpec(iterations=1, optimizer="adam")
SEGMENT_LENGTHS = (1, 2, 5, 10, 20, 50)
BUDGET_SHARE = 0.3
"""Of the way from the least budget to that of full BPTT."""


class Case(NamedTuple):
    """One job."""

    cell: str
    dtype: str
    hidden_size: int
    embedding_size: int
    batch_size: int
    length: int


class SteppedModel(nn.Module):
    """Embedding, one cell applied step by step, linear head, cross-entropy: the model of the formulas."""

    def __init__(self, case: Case, *, vocabulary_size: int) -> None:
        super().__init__()
        dtype = getattr(torch, case.dtype)
        self.embedding = nn.Embedding(vocabulary_size, case.embedding_size, dtype=dtype)
        self.cell = CELLS[case.cell](case.embedding_size, case.hidden_size, dtype=dtype)
        self.head = nn.Linear(case.hidden_size, vocabulary_size, dtype=dtype)
        self._state_units = 2 if case.cell == "lstm" else 1

    def initial_state(self, *, batch_size: int) -> tuple[Tensor, ...]:
        """Zeros [batch, hidden]."""
        zeros = self.head.weight.new_zeros(batch_size, self.head.in_features)
        return tuple(zeros.clone() for _ in range(self._state_units))

    def segment(self, state: tuple[Tensor, ...], window: Window) -> tuple[tuple[Tensor, ...], Tensor | None]:
        """The state after the window, and the sum of its losses."""
        outputs = []
        for x in self.embedding(window.characters).unbind(0):
            after = self.cell(x, state if self._state_units == 2 else state[0])
            state = after if self._state_units == 2 else (after,)
            outputs.append(state[0])
        if not outputs_needed():
            return state, None
        logits = self.head(torch.stack(outputs)).flatten(0, 1)
        return state, nn.functional.cross_entropy(logits, window.following.flatten(), reduction="sum")


@dataclass(frozen=True)
class Ran:
    """One iteration under a plan: bytes that the call was projected to add, and that it added."""

    plan_id: str
    segment_steps: int
    projected_bytes: int
    measured_bytes: int
    exactness: list[str]
    """Of the ledger's lines that are not zero."""

    @property
    def ratio(self) -> float:
        """Projected over measured: 1 is the truth, less is a broken promise."""
        return self.projected_bytes / self.measured_bytes


class CalibrationJob:
    """A case made ready: its text, model and loss."""

    def __init__(self, case: Case) -> None:
        self.case = case
        sequence = SequenceSpec(length=case.length, batch_size=case.batch_size)
        streams = character_streams(DATA, sequence)
        self.vocabulary_size = streams.vocabulary.size
        torch.manual_seed(0)
        self.model = SteppedModel(case, vocabulary_size=self.vocabulary_size)
        self.window = Window.of(streams.window(0))
        self.loss = PlannedLoss(self.model, length=case.length, batch_size=case.batch_size)  # type: ignore[arg-type]

    def request(self, budget_bytes: int, **named: str) -> dict[str, Any]:
        """The plan request; `named` may name a device whose measurements are to be used."""
        case = self.case
        return {
            "model": {
                "kind": case.cell,
                "input_size": case.embedding_size,
                "hidden_size": case.hidden_size,
                "dtype": case.dtype,
                "embedding": {"vocabulary_size": self.vocabulary_size},
                "head": {"output_size": self.vocabulary_size},
                "implementation": "steps",
            },
            "sequence": {"length": case.length, "batch_size": case.batch_size},
            "training": {"optimizer": TRAINING.optimizer, "loss": "inside"},
            "memory": {"device_budget_bytes": budget_bytes},
            **named,
        }

    def budget_bytes(self, client: PlannerClient) -> int:
        """A budget that makes recomputation necessary, by the formulas."""
        memory = client.plan(self.request(2**40)).memory
        span = memory.store_all_peak_bytes - memory.minimum_budget_bytes
        return memory.minimum_budget_bytes + int(BUDGET_SHARE * span)

    def run(self, client: PlannerClient, budget_bytes: int, **named: str) -> Ran:
        """Ask for a plan, run one iteration under it, measure."""
        reply = client.plan(self.request(budget_bytes, **named))
        policy = policy_from_record(dict(reply.policy))
        plan = ExecutionPlan(self.case.length, reply.segment_steps or 0, policy, strategy=reply.strategy)
        self.loss.prepare(self.window)
        measured = measure(lambda: backward(self.loss.forward(self.window, plan)), device="cpu").peak_bytes
        self.model.zero_grad(set_to_none=True)
        return Ran(
            plan_id=reply.id,
            segment_steps=reply.segment_steps or 0,
            projected_bytes=reply.memory.projected_peak_bytes - self._held_bytes(reply),
            measured_bytes=measured,
            exactness=sorted({line.exactness for line in reply.memory.ledger if line.bytes}),
        )

    def _held_bytes(self, reply: PlanReply) -> int:
        """What the projection counts besides the call: parameters, optimizer, the window, the first state."""
        first = sum(line.bytes for line in reply.memory.ledger if line.name == "initial state")
        return held_bytes(self.model, self.window, TRAINING) + first

    def profile(self, device_name: str) -> dict[str, Any]:
        """What a probe measures of the stages, as the service takes it."""
        lengths = [steps for steps in SEGMENT_LENGTHS if steps <= self.case.length]
        report = probe_loop(self.loss.loop(self.window), candidates=lengths)
        case = self.case
        return report.record(
            {
                "device_name": device_name,
                "cell": case.cell,
                "implementation": "steps",
                "dtype": case.dtype,
                "input_size": case.embedding_size,
                "hidden_size": case.hidden_size,
                "num_layers": 1,
                "batch_size": case.batch_size,
                "embedding_size": self.vocabulary_size,
                "head_output_size": self.vocabulary_size,
                "loss": "inside",
            }
        )

    def measurement(self, ran: Ran, device_name: str, name: str) -> dict[str, Any]:
        """The run as the service takes it."""
        return {
            "job": name,
            "plan_id": ran.plan_id,
            "budget_bytes": max(ran.projected_bytes, ran.measured_bytes),
            "projected_peak_bytes": ran.projected_bytes,
            "measured_peak_bytes": ran.measured_bytes,
            "seconds_per_iteration": 0.0,
            "iterations": 1,
            "cell": self.case.cell,
            "implementation": "steps",
            "dtype": self.case.dtype,
            "segment_steps": ran.segment_steps,
            "torch": torch.__version__,
            "device": device_name,
        }
