"""Tapes larger than those that a plan counts: steps go by what is in their tensors, and meet other data.

What a tape takes cannot be asked of torch on the CPU. The sizes of what its operations put out can, and grow
with it: a loop that goes on for longer, a mask that selects more rows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from math import prod
from typing import Any

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
        if hasattr(node, "variable"):
            continue
        walk.go_on(node)
        if node.name().partition("Backward")[0] not in _VIEWS:
            total += sum(map(_bytes, node._input_metadata))  # noqa: SLF001 - it has no public name
    return total


def _bytes(of_output: Any) -> int:
    if of_output.is_nested_tensor or of_output.is_cpp_nested_tensor:
        return 0
    sizes = of_output.shape
    return prod(sizes) * int(of_output.dtype.itemsize) if all(type(size) is int for size in sizes) else 0


class Outgrowth:
    """Whether the live tapes of one run ever were larger than so many of `planned_bytes` each."""

    def __init__(self, planned_bytes: int, tell: Tell) -> None:
        self._planned_bytes = planned_bytes
        self._tell = tell
        self._live: dict[int, int] = {}
        """By stage, the bytes of its graph beyond those planned."""
        self._beyond_bytes = 0
        self._largest_bytes = 0
        self._has_outgrown = False

    def taped(self, stage: int, roots: Iterable[Any]) -> None:
        """A stage was taped, whose graph ends in `roots`."""
        found = graph_bytes(roots)
        self._live[stage] = found - self._planned_bytes
        self._beyond_bytes += self._live[stage]
        self._largest_bytes = max(self._largest_bytes, found)
        self._has_outgrown |= self._beyond_bytes > 0

    def reversed(self, stage: int) -> None:
        """The tape of a stage is used up."""
        self._beyond_bytes -= self._live.pop(stage, 0)

    def conclude(self) -> None:
        """Say so, if they were."""
        if self._has_outgrown:
            self._tell(self._largest_bytes)
