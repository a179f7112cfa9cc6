"""What the steps put out: stacked on dimension 0, summed, or only the last one kept.

An output is a tensor, None or a pytree of tensors. It is stored once, when its step runs for the first
time; a recomputation's output serves only to carry the gradient.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from executor.errors import StateChanged, UnsupportedOutput
from executor.trees import Leaves, Structure, structure_of

Reduce = Literal["stack", "sum", "last"]
REDUCTIONS: tuple[Reduce, ...] = ("stack", "sum", "last")


class Outputs:
    """Collects the outputs of `length` steps and hands out the gradients of each stage's part.

    A *block* is what one call put out: one step's output, or a segment function's for `count` steps
    ([count, …] to be stacked, already summed, or the last one).
    """

    def __init__(self, reduce: Reduce, length: int, *, blocks_are_segments: bool) -> None:
        if reduce not in REDUCTIONS:
            raise ValueError(f"reduce={reduce!r} must be one of {', '.join(REDUCTIONS)}")
        self._reduce = reduce
        self._length = length
        self._segments = blocks_are_segments
        self._structure: Structure | None = None
        self._is_silent: bool | None = None
        """Whether steps put out None."""
        self.leaves: list[Tensor] = []

    def flatten(self, block: Any) -> Leaves:
        """The leaves of one block; of None, none. Raises UnsupportedOutput when it changed."""
        if self._is_silent is None:
            self._is_silent = block is None
        if self._is_silent is not (block is None):
            raise UnsupportedOutput(
                "some steps put out None and others do not: return zeros where there is nothing to put out "
                "(state.new_zeros(()) for a loss that is added up)"
            )
        if block is None:
            return ()
        if self._structure is None:
            self._structure, leaves = structure_of(block)
        else:
            leaves = self._flatten_again(block)
        if not all(isinstance(leaf, Tensor) for leaf in leaves):
            raise UnsupportedOutput(_not_tensors(leaves))
        return leaves

    def _flatten_again(self, block: Any) -> Leaves:
        assert self._structure is not None  # noqa: S101 - for the type checker
        try:
            return self._structure.flatten(block)
        except StateChanged as error:
            raise UnsupportedOutput(f"the output of a step changed: {error}") from None

    def write(self, first: int, count: int, blocks: Sequence[Leaves]) -> None:
        """Store the blocks of steps first..first+count-1 (0-based), run for the first time."""
        if not blocks or not blocks[0]:
            return
        if self._reduce == "stack":
            self._stack(first, count, blocks)
        elif self._reduce == "sum":
            self._add(blocks)
        elif first + count == self._length:
            self.leaves = [leaf.detach().clone() for leaf in blocks[-1]]

    def write_block(self, first: int, count: int, block: Leaves) -> None:
        """Store one block as soon as it exists."""
        self.write(first, count, [block])

    def _stack(self, first: int, count: int, blocks: Sequence[Leaves]) -> None:
        if not self.leaves:
            self.leaves = [self._allocate(leaf, count) for leaf in blocks[0]]
        for position, total in enumerate(self.leaves):
            rows = total.narrow(0, first, count)
            parts = [block[position].detach() for block in blocks]
            self._check_shape(parts, rows)
            if self._segments:
                rows.copy_(parts[0])
            elif count == 1:
                rows[0].copy_(parts[0])
            else:
                torch.stack(parts, out=rows)

    def _allocate(self, leaf: Tensor, count: int) -> Tensor:
        if self._segments and (leaf.dim() == 0 or leaf.shape[0] != count):
            raise UnsupportedOutput(
                f"a segment of {count} steps must put out [{count}, …] to be stacked, not {list(leaf.shape)}"
            )
        shape = leaf.shape[1:] if self._segments else leaf.shape
        return leaf.new_empty((self._length, *shape), requires_grad=False)

    def _check_shape(self, parts: Sequence[Tensor], rows: Tensor) -> None:
        expected = rows.shape if self._segments else rows.shape[1:]
        for part in parts:
            if part.shape != expected or part.dtype != rows.dtype:
                raise UnsupportedOutput(
                    f"outputs to be stacked must agree: {list(part.shape)} {part.dtype} after "
                    f"{list(expected)} {rows.dtype}; use reduce='sum' or return equal shapes"
                )

    def _check_sum(self, total: Tensor, leaf: Tensor) -> None:
        if leaf.shape != total.shape:
            of_segments = " (that of a segment is the sum over its steps)" if self._segments else ""
            raise UnsupportedOutput(
                f"outputs to be added up must agree in shape{of_segments}: {list(leaf.shape)} after "
                f"{list(total.shape)}"
            )
        if leaf.dtype != total.dtype and torch.promote_types(leaf.dtype, total.dtype) != total.dtype:
            raise UnsupportedOutput(
                f"outputs to be added up must agree in type: {leaf.dtype} after {total.dtype}, in which the "
                "sum would lose digits; where there is nothing to put out, return state.new_zeros(()), which "
                "has the type of the state"
            )

    def _add(self, blocks: Sequence[Leaves]) -> None:
        for block in blocks:
            if self.leaves:
                for total, leaf in zip(self.leaves, block, strict=True):
                    self._check_sum(total, leaf)
                    total.add_(leaf.detach())
            else:
                self.leaves = [leaf.detach().clone() for leaf in block]

    def result(self, leaves: Sequence[Tensor]) -> Any:
        """The tree of reduced outputs made of `leaves`; None when the steps put out nothing."""
        if self._structure is None or not leaves:
            return None
        return self._structure.unflatten(tuple(leaves))

    def gradients(self, first: int, count: int, totals: Sequence[Tensor | None]) -> list[list[Tensor | None]]:
        """The gradients of the blocks of steps first..first+count-1, one list of leaves per block,
        out of the gradients of the reduced outputs.
        """
        blocks = 1 if self._segments else count
        if self._reduce == "sum":
            return [list(totals)] * blocks
        columns = [self._column(total, first, count, blocks) for total in totals]
        return [list(row) for row in zip(*columns, strict=True)]

    def _column(self, total: Tensor | None, first: int, count: int, blocks: int) -> Sequence[Tensor | None]:
        if total is None:
            return [None] * blocks
        if self._reduce == "last":
            return [None] * (blocks - 1) + [total if first + count == self._length else None]
        rows = total.narrow(0, first, count)
        return [rows] if self._segments else rows.unbind(0)


def _not_tensors(leaves: Leaves) -> str:
    """Says what among an output's leaves is no tensor, and what to put out in its place."""
    kinds = sorted({type(leaf).__name__ for leaf in leaves if not isinstance(leaf, Tensor)})
    return (
        f"a step's output must be a tensor, a tuple or dict of tensors, or None, and has {', '.join(kinds)} "
        "in it: leave out what is None, put out value.detach() in place of value.item(), and of a class of "
        "your own its tensors, or register it (torch.utils._pytree.register_dataclass)"
    )
