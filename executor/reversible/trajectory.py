"""The state of a stack of layers on its way through a sequence, forward and back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from executor.errors import OTHER_GATES
from executor.reversible.archive import BLOCK_WORDS, Archive, Discard, block_words
from executor.reversible.cell import Cell, Parts
from executor.reversible.choice import kernels_for
from executor.reversible.coders import Coder, EntropyCoder, ScheduledCoder
from executor.reversible.errors import InvalidReversible, ReversalMismatch
from executor.reversible.kernels import Kernels
from executor.reversible.layer import Halves
from executor.reversible.register import Product, Register, Sum

Coding = Literal["entropy", "scheduled"]


@dataclass(frozen=True)
class Moment:
    """All the numbers of one layer's state between two steps, in fixed point."""

    fixed: tuple[Parts, Parts]
    """The registers of both halves, float64 [B, m] each."""
    buffers: tuple[Parts, Parts]
    """Their buffers, likewise; empty tuples for a cell that never forgets."""
    step: int
    """Steps taken since the buffers were empty."""


def archives_for(
    moments: Sequence[Moment], *, reversible: bool, in_small_blocks: bool = False
) -> list[Archive]:
    """An empty archive for each layer; one that forgets what it is given where nobody goes back. Small blocks
    have room for the words that are moved at once.
    """
    kind = Archive if reversible else Discard
    registers = [moment.fixed[0][0] for moment in moments]
    return [
        kind(register.device, block_words=block_words(register.numel()) if in_small_blocks else BLOCK_WORDS)
        for register in registers
    ]


def start_moment(cell: Cell, fixed: tuple[Parts, Parts], coding: Coding) -> Moment:
    """The state `fixed` with empty buffers."""
    if cell.forget_bits is None:
        return Moment(fixed, ((), ()), 0)
    start = EntropyCoder.start if coding == "entropy" else ScheduledCoder.start
    first, second = (tuple(torch.full_like(part, start) for part in half) for half in fixed)
    return Moment(fixed, (first, second), 0)


class LayerTrajectory:
    """One layer's registers and its archive. Changes in place as the layer advances and reverses."""

    def __init__(
        self, cell: Cell, moment: Moment, *, dtype: torch.dtype, coding: Coding, archive: Archive
    ) -> None:
        device = moment.fixed[0][0].device
        self.archive = archive
        self._cell, self._coding, self._dtype = cell, coding, dtype
        self._kernels: Kernels = kernels_for(device, dtype)
        self.step = moment.step
        self.halves: Halves = (self._registers(moment, 0), self._registers(moment, 1))

    def _registers(self, moment: Moment, half: int) -> tuple[Register, ...]:
        fixed = [_rows(part) for part in moment.fixed[half]]
        if self._cell.forget_bits is None:
            return tuple(Sum(part, dtype=self._dtype) for part in fixed)
        return tuple(
            Product(
                part,
                _rows(buffer),
                dtype=self._dtype,
                coder=self._coder(self._cell.forget_bits),
                kernels=self._kernels,
                step=moment.step,
            )
            for part, buffer in zip(fixed, moment.buffers[half], strict=True)
        )

    def _coder(self, forget_bits: int) -> Coder:
        if self._coding == "entropy":
            return EntropyCoder(self.archive, self._kernels)
        return ScheduledCoder(self.archive, forget_bits=forget_bits)

    def moment(self, *, steps: int) -> Moment:
        """Where the registers are, `steps` steps after the moment of the beginning; shares their memory."""
        first, second = (tuple(register.fixed for register in half) for half in self.halves)
        buffers = [tuple(r.buffer for r in half if isinstance(r, Product)) for half in self.halves]
        return Moment((first, second), (buffers[0], buffers[1]), self.step + steps)

    def values(self) -> tuple[Parts, Parts]:
        """The state as floats."""
        first, second = (tuple(register.value for register in half) for half in self.halves)
        return first, second

    def is_at_start(self, moment: Moment) -> bool:
        """Whether the registers are bitwise those of `moment`, and buffers and archive empty."""
        registers = [register for half in self.halves for register in half]
        starts = [part for half in moment.fixed for part in half]
        return len(self.archive) == 0 and all(
            register.is_at_start(start) for register, start in zip(registers, starts, strict=True)
        )


def _rows(part: Tensor) -> Tensor:
    """A copy whose numbers lie row after row, as kernels count them, whatever the layout of `part`."""
    return part.clone(memory_format=torch.contiguous_format)


class Trajectory:
    """The registers of all layers, with what lets them go back."""

    def __init__(
        self,
        cell: Cell,
        moments: Sequence[Moment],
        *,
        dtype: torch.dtype,
        coding: Coding,
        archives: Sequence[Archive],
    ) -> None:
        self.layers = [
            LayerTrajectory(cell, moment, dtype=dtype, coding=coding, archive=archive)
            for moment, archive in zip(moments, archives, strict=True)
        ]
        self._dtype, self._batch_size = dtype, moments[0].fixed[0][0].shape[0]

    @property
    def archived_bytes(self) -> int:
        """Bytes of all words in the archives, exactly."""
        return sum(layer.archive.stored_bytes for layer in self.layers)

    def check(self, x: Tensor, weight: Tensor) -> None:
        """Raises InvalidReversible unless inputs and weights are of the state's type and batch."""
        if weight.dtype != self._dtype or x.dtype != self._dtype:
            raise InvalidReversible(
                f"a state of {self._dtype} meets weights of {weight.dtype} and inputs of {x.dtype}: a "
                "sequence goes forward and back in one type"
            )
        if x.shape[1] != self._batch_size:
            raise InvalidReversible(
                f"a state of batch_size={self._batch_size} meets inputs of batch_size={x.shape[1]}: a "
                "sequence goes forward and back with one batch"
            )

    def check_at_start(self, moments: Sequence[Moment]) -> None:
        """Raises ReversalMismatch unless every layer came back to `moments` bitwise, nothing left over."""
        for index, (layer, moment) in enumerate(zip(self.layers, moments, strict=True)):
            if not layer.is_at_start(moment):
                raise ReversalMismatch(
                    f"layer {index} did not come back to its initial state: {OTHER_GATES}; these gradients "
                    "are not to be trusted"
                )
