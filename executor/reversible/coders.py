"""How a buffer stays small: two ways to move its low bits to the archive, both exactly reversible.

`ScheduledCoder` moves a word of every unit at steps known in advance: no look at the data, n bits a unit and
step for n forgotten bits. `EntropyCoder` moves a word of those units whose buffer is about to overflow: what
it stores approaches the bits that were really forgotten, the sum of -log2(factor / 2**10).

Why the entropy coder needs no flags (it is a range coder in the style of rANS, Duda 2013, arXiv:1311.2540):
between two steps every buffer lies in [2**24, 2**40). A step never shrinks a buffer, and a unit that moved a
word is below 2**24 before its step: undoing the step shows which units moved one. A unit moves a word when
its buffer is at least 2**30 * factor, which is exactly when the step would take it to 2**40 or above; with
the word gone the step takes it to 2**24 or above, because both bounds are multiples of 2**10.
"""

from __future__ import annotations

from typing import Protocol

from torch import Tensor

from executor.reversal import WORD_BYTES
from executor.reversible.archive import WORD_BITS, Archive
from executor.reversible.fixed_point import EXACT_BITS, FACTOR_BITS
from executor.reversible.kernels import Kernels, join_words, split_words

SCHEDULED_BITS = EXACT_BITS - FACTOR_BITS
"""Bits that a scheduled buffer may have before a step."""
ENTROPY_START = 2.0**24
ENTROPY_GATE = 2.0 ** (24 + WORD_BITS - FACTOR_BITS)
ENTROPY_LOSS_BITS = 1e-4
"""More than a step costs beyond the bits forgotten: log2(1 + 1/b), the least buffer b being 2**14."""


class Coder(Protocol):
    """What is done to a buffer before a step and after undoing one."""

    start: float
    """The empty buffer."""

    def make_room(self, buffer: Tensor, factor: Tensor, *, step: int) -> None:
        """Move words to the archive so that step number `step` (from 0), by `factor`, cannot overflow."""

    def take_back(self, buffer: Tensor, *, step: int) -> None:
        """Undo `make_room`, after step number `step` was undone."""


class ScheduledCoder:
    """Every unit moves a word at steps that depend on the number of steps alone.

    A buffer below 2**b is below 2**(b + n) after a step by factors of at least 2**(10 - n), so without moves
    it is below 2**(n * step) before a step, and below 2**41 once ceil((n * step - 41) / 16) words have gone.
    """

    start = 0.0

    def __init__(self, archive: Archive, *, forget_bits: int) -> None:
        self._archive = archive
        self._forget_bits = forget_bits

    def make_room(self, buffer: Tensor, factor: Tensor, *, step: int) -> None:
        """See Coder."""
        if self._is_due(step):
            rest, words = split_words(buffer)
            self._archive.push(words.view(-1))
            buffer.copy_(rest)

    def take_back(self, buffer: Tensor, *, step: int) -> None:
        """See Coder."""
        if self._is_due(step):
            words = self._archive.pop(buffer.numel())
            buffer.copy_(join_words(buffer, words.view_as(buffer)))

    def _is_due(self, step: int) -> bool:
        before = scheduled_words(step - 1, forget_bits=self._forget_bits)
        return scheduled_words(step, forget_bits=self._forget_bits) > before


class EntropyCoder:
    """A unit moves a word when its own buffer is about to overflow."""

    start = ENTROPY_START

    def __init__(self, archive: Archive, kernels: Kernels) -> None:
        self._archive = archive
        self._kernels = kernels

    def make_room(self, buffer: Tensor, factor: Tensor, *, step: int) -> None:
        """See Coder."""
        self._kernels.move_full(buffer, factor, ENTROPY_GATE, self._archive)

    def take_back(self, buffer: Tensor, *, step: int) -> None:
        """See Coder."""
        self._kernels.refill(buffer, ENTROPY_START, self._archive)


def scheduled_words(step: int, *, forget_bits: int) -> int:
    """Words that one unit has moved before step number `step` (from 0) under the schedule; exact."""
    return max(0, -((SCHEDULED_BITS - forget_bits * step) // WORD_BITS))


def scheduled_bytes(steps: int, *, units: int, forget_bits: int) -> int:
    """Bytes that `steps` steps of `units` units archive under the schedule: exact, known in advance."""
    return units * WORD_BYTES * scheduled_words(steps - 1, forget_bits=forget_bits)


def bits_of_a_step(forget_bits: int | None, coding: str) -> float:
    """The most bits that a step archives of a unit, on average over a stretch of steps and but for one word.

    That word: a stretch may begin with a buffer that is nearly full.
    """
    if forget_bits is None:
        return 0.0
    return forget_bits + ENTROPY_LOSS_BITS if coding == "entropy" else float(forget_bits)


def entropy_bound_bytes(steps: int, *, units: int, forget_bits: int) -> int:
    """The most bytes that `steps` steps of `units` units can archive with the entropy coder."""
    return units * WORD_BYTES * int(steps * (forget_bits + ENTROPY_LOSS_BITS) // WORD_BITS)
