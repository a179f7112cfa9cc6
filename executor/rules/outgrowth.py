"""Tapes larger than those that a plan counts: steps go by what is in their tensors, and meet other data.

What a tape takes cannot be asked of torch on the CPU. The sizes of what its operations put out can, and grow
with it: a loop that goes on for longer, a mask that selects more rows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import lru_cache
from math import prod
from typing import Any

from torch._C._autograd import _get_sequence_nr  # each node takes the next one; it has no public name

from executor.rules.graph import Walk, makers

_VIEWS = frozenset(
    {
        "Expand",
        "Permute",
        "Select",
        "Slice",
        "Split",
        "Squeeze",
        "T",
        "Transpose",
        "Unbind",
        "Unsqueeze",
        "UnsafeView",
        "View",
    }
)
"""Operations that put out memory of others; not all of them."""
Tell = Callable[[int], None]
"""Is told the largest graph of a stage, in bytes."""


def graph_bytes(roots: Iterable[Any]) -> int:
    """Bytes that the operations of the graph above `roots` put out; no leaves, views, nested tensors."""
    total = 0
    walk = Walk(makers(roots))
    for node in walk:
        walk.go_on(node)
        if _puts_out_memory(type(node).__name__):
            total += sum(map(_bytes, node._input_metadata))  # noqa: SLF001 - it has no public name
    return total


@lru_cache(maxsize=4096)
def _puts_out_memory(kind: str) -> bool:
    """Whether nodes of this kind stand for operations, not for leaves or views."""
    name = kind.partition("Backward")[0]
    return name != "AccumulateGrad" and name not in _VIEWS


def _bytes(of_output: Any) -> int:
    if of_output.is_nested_tensor or of_output.is_cpp_nested_tensor:
        return 0
    return int(prod(of_output.shape)) * int(of_output.dtype.itemsize)


class Outgrowth:
    """Whether the live tapes of one run ever were larger than so many of `planned_bytes` each.

    Where steps only branch, graphs of as many nodes are taken to be alike, and not looked at again; not where
    their `sizes_vary`.
    """

    def __init__(self, planned_bytes: int, tell: Tell, *, sizes_vary: bool = True) -> None:
        self._planned_bytes = planned_bytes
        self._tell = tell
        self._sizes_vary = sizes_vary
        self._begun_at = 0
        self._bytes_of: dict[int, int] = {}
        """By their number of nodes, the bytes of graphs that were looked at."""
        self._live: dict[int, int] = {}
        """By stage, the bytes of its graph beyond those planned."""
        self._beyond_bytes = 0
        self._largest_bytes = 0
        self._has_outgrown = False

    def begin(self) -> None:
        """A stage will be taped."""
        self._begun_at = _get_sequence_nr()

    def taped(self, stage: int, roots: Iterable[Any]) -> None:
        """The stage was taped; its graph ends in `roots`."""
        found = self._graph_bytes(roots)
        self._live[stage] = found - self._planned_bytes
        self._beyond_bytes += self._live[stage]
        self._largest_bytes = max(self._largest_bytes, found)
        self._has_outgrown |= self._beyond_bytes > 0

    def _graph_bytes(self, roots: Iterable[Any]) -> int:
        if self._sizes_vary:
            return graph_bytes(roots)
        nodes = _get_sequence_nr() - self._begun_at
        if nodes not in self._bytes_of:
            self._bytes_of[nodes] = graph_bytes(roots)
        return self._bytes_of[nodes]

    def reversed(self, stage: int) -> None:
        """The tape of a stage is used up."""
        self._beyond_bytes -= self._live.pop(stage, 0)

    def conclude(self) -> None:
        """Say so, if they were."""
        if self._has_outgrown:
            self._tell(self._largest_bytes)
