"""What one training iteration runs over, and what is held from its start to its end whatever the plan."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from planner_service.memory.ledger import LedgerLine
from planner_service.memory.model import INDEX_BYTES, RecurrentModel
from planner_service.memory.sparsity import GradientSparsity

Optimizer = Literal["sgd", "momentum", "adam"]
OPTIMIZER_COPIES: dict[Optimizer, int] = {"sgd": 0, "momentum": 1, "adam": 2}
"""State tensors that an optimizer keeps per parameter."""
ADAM_STEP_BYTES = 4
"""Adam's step counter: one float32 per parameter tensor."""

LossPlace = Literal["inside", "outside"]
"""inside: every segment ends in its share of the loss; outside: all outputs and their gradient are held."""

Device = Literal["cpu", "cuda"]
MATMUL_WORKSPACE_BYTES: dict[Device, int] = {"cpu": 0, "cuda": 32 * 2**20}
"""What the matrix library reserves once: cuBLAS takes up to 32 MiB (on Hopper; less on older ones)."""


@dataclass(frozen=True, kw_only=True)
class Workload:
    """A model, the sequence it is trained on, and how."""

    model: RecurrentModel
    sequence_length: int
    """T, in steps."""
    batch_size: int
    optimizer: Optimizer
    loss: LossPlace
    device: Device
    reserved_bytes: int = 0
    """What the process costs before the first tensor, in bytes."""
    gradient_sparsity: GradientSparsity | None = None
    """None: the gradient is exact."""

    def caller_ledger(self) -> list[LedgerLine]:
        """What lives before the unrolled call and after it: it follows from the request alone."""
        lines = [
            LedgerLine("reserved", self.reserved_bytes, "memory.reserved_bytes", "exact"),
            *self._parameter_lines(),
            self._optimizer_line(),
            self._input_line(),
            self._target_line(),
        ]
        return [line for line in lines if line.bytes]

    def call_ledger(self) -> list[LedgerLine]:
        """What the unrolled call itself holds throughout, besides states, tapes and gradients of states."""
        matmul_bytes = MATMUL_WORKSPACE_BYTES[self.device]
        lines = [
            self._gradient_line(),
            LedgerLine("matrix library", matmul_bytes, f"workspace of the {self.device} library", "bound"),
        ]
        if self.loss == "outside":
            lines += [self._output_line("outputs"), self._output_line("gradients of the outputs")]
        return [line for line in lines if line.bytes]

    def _parameter_lines(self) -> list[LedgerLine]:
        item_bytes = self.model.item_bytes
        return [
            LedgerLine(
                f"parameters: {group.name}",
                group.element_count * item_bytes,
                f"({group.formula}) x {item_bytes} B",
                "exact",
            )
            for group in self.model.parameter_groups()
        ]

    def _gradient_line(self) -> LedgerLine:
        count, item_bytes = self.model.parameter_count, self.model.item_bytes
        formula = f"{count} parameters x {item_bytes} B"
        return LedgerLine("parameter gradients", count * item_bytes, formula, "exact")

    def _optimizer_line(self) -> LedgerLine:
        copies = OPTIMIZER_COPIES[self.optimizer]
        size = copies * self.model.parameter_bytes
        formula = f"{self.optimizer}: {copies} x {self.model.parameter_bytes} B of parameters"
        if self.optimizer == "adam":
            counters = self.model.parameter_tensor_count
            size += counters * ADAM_STEP_BYTES
            formula += f" + {counters} step counters x {ADAM_STEP_BYTES} B"
        return LedgerLine("optimizer state", size, formula, "exact")

    def _input_line(self) -> LedgerLine:
        if self.model.embedding_size is not None:
            return self._per_step_line("inputs", 1, INDEX_BYTES)
        return self._per_step_line("inputs", self.model.input_size, self.model.item_bytes)

    def _target_line(self) -> LedgerLine:
        """Classes for a head, values as wide as the output otherwise; a loss outside brings its own."""
        if self.loss == "outside":
            return LedgerLine("targets", 0, "the loss is outside", "exact")
        if self.model.head_output_size is not None:
            return self._per_step_line("targets", 1, INDEX_BYTES)
        return self._per_step_line("targets", self.model.output_size, self.model.item_bytes)

    def _output_line(self, name: str) -> LedgerLine:
        return self._per_step_line(name, self.model.output_size, self.model.item_bytes)

    def _per_step_line(self, name: str, width: int, item_bytes: int) -> LedgerLine:
        size = self.sequence_length * self.batch_size * width * item_bytes
        formula = f"{self.sequence_length} steps x {self.batch_size} x {width} x {item_bytes} B"
        return LedgerLine(name, size, formula, "exact")
