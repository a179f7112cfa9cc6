"""A recurrent model in numbers: its tensors, counted as torch.nn.LSTM, GRU, RNN (tanh) lay them out."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Literal, NamedTuple

from planner_service.memory.cells import CELLS, Cell, CellKind

Dtype = Literal["float16", "bfloat16", "float32", "float64"]
ITEM_BYTES: dict[Dtype, int] = {"float16": 2, "bfloat16": 2, "float32": 4, "float64": 8}
INDEX_BYTES = 8
"""One 64-bit integer: a character, a class."""

Implementation = Literal["steps", "fused"]
"""steps: the cell applied step by step; fused: one kernel call per segment."""


class ParameterGroup(NamedTuple):
    """Parameters that belong together."""

    name: str
    element_count: int
    tensor_count: int
    formula: str


@dataclass(frozen=True, kw_only=True)
class RecurrentModel:
    """Layers of one cell, with an optional embedding below and an optional linear head above."""

    cell_kind: CellKind
    input_size: int
    hidden_size: int
    num_layers: int
    dtype: Dtype
    implementation: Implementation = "steps"
    embedding_size: int | None = None
    """Rows of the embedding table, each of `input_size` elements; None without one."""
    head_output_size: int | None = None

    @property
    def cell(self) -> Cell:
        """The numbers of the cell."""
        return CELLS[self.cell_kind]

    @property
    def item_bytes(self) -> int:
        """Bytes of one element."""
        return ITEM_BYTES[self.dtype]

    @property
    def output_size(self) -> int:
        """Elements of one step's output per sequence of the batch."""
        return self.head_output_size or self.hidden_size

    def state_bytes(self, batch_size: int) -> int:
        """S: the state between two steps, all layers, in bytes."""
        units = self.num_layers * self.cell.state_units
        return units * batch_size * self.hidden_size * self.item_bytes

    def parameter_groups(self) -> list[ParameterGroup]:
        """Every parameter of the model, in order from the input to the output."""
        return list(self._parameter_groups)

    @cached_property
    def _parameter_groups(self) -> list[ParameterGroup]:
        groups = []
        if self.embedding_size is not None:
            count = self.embedding_size * self.input_size
            formula = f"{self.embedding_size} rows x {self.input_size}"
            groups.append(ParameterGroup("embedding", count, 1, formula))
        groups.append(self._layer_group())
        if self.head_output_size is not None:
            count = self.head_output_size * (self.hidden_size + 1)
            formula = f"{self.head_output_size} x ({self.hidden_size} + 1)"
            groups.append(ParameterGroup("head", count, 2, formula))
        return groups

    def _layer_group(self) -> ParameterGroup:
        rows = self.cell.gate_count * self.hidden_size
        first = rows * (self.input_size + self.hidden_size + 2)
        other = rows * (2 * self.hidden_size + 2)
        formula = f"{rows} x ({self.input_size} + {self.hidden_size} + 2)"
        if self.num_layers > 1:
            formula += f" + {self.num_layers - 1} x {rows} x (2 x {self.hidden_size} + 2)"
        count = first + (self.num_layers - 1) * other
        return ParameterGroup(f"{self.cell_kind} layers", count, 4 * self.num_layers, formula)

    @cached_property
    def parameter_count(self) -> int:
        """Elements of all parameters."""
        return sum(group.element_count for group in self._parameter_groups)

    @property
    def parameter_tensor_count(self) -> int:
        """Tensors among the parameters."""
        return sum(group.tensor_count for group in self._parameter_groups)

    @property
    def parameter_bytes(self) -> int:
        """Bytes of all parameters."""
        return self.parameter_count * self.item_bytes
