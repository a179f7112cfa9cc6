"""A part of the state in fixed point: units that steps change and reversed steps change back."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from executor.reversible.coders import Coder
from executor.reversible.errors import InvalidReversible
from executor.reversible.fixed_point import ONE, to_value
from executor.reversible.kernels import Kernels


class Register(Protocol):
    """Units of the state [batch, units]; `fixed` is float64 and changes in place.

    `value` is a new tensor of the parameters' type after every step, so that tapes may keep it.
    """

    fixed: Tensor
    value: Tensor

    def advance(self, addend: Tensor, factor: Tensor | None) -> None:
        """The state times factor / 2**10, plus the addend."""

    def reverse(self, addend: Tensor, factor: Tensor | None) -> None:
        """Undo `advance` with the same addend and factor."""

    def is_at_start(self, fixed: Tensor) -> bool:
        """Whether the state is bitwise `fixed` and nothing is left in the buffer."""


class Product:
    """Units that are multiplied by a forget factor and added to; the buffer changes in place."""

    def __init__(
        self, fixed: Tensor, buffer: Tensor, *, dtype: torch.dtype, coder: Coder, kernels: Kernels, step: int
    ) -> None:
        self.fixed = fixed
        self.buffer = buffer
        self.value = to_value(fixed, dtype)
        self._coder = coder
        self._kernels = kernels
        self._step = step

    def advance(self, addend: Tensor, factor: Tensor | None) -> None:
        """See Register; the factor is given."""
        assert factor is not None  # noqa: S101 - for the type checker
        _require_alike(self.fixed, addend, factor)
        self._coder.make_room(self.buffer, factor, step=self._step)
        self.value = torch.empty_like(self.value)
        self._kernels.advance(self.fixed, self.buffer, factor, addend, self.value)
        self._step += 1

    def reverse(self, addend: Tensor, factor: Tensor | None) -> None:
        """See Register; the factor is given."""
        assert factor is not None  # noqa: S101 - for the type checker
        _require_alike(self.fixed, addend, factor)
        self.value = torch.empty_like(self.value)
        self._kernels.reverse(self.fixed, self.buffer, factor, addend, self.value)
        self._step -= 1
        self._coder.take_back(self.buffer, step=self._step)

    def is_at_start(self, fixed: Tensor) -> bool:
        """See Register."""
        return torch.equal(self.fixed, fixed) and bool((self.buffer == self._coder.start).all())


class Sum:
    """Units of a cell that never forgets: they are only added to, which needs no buffer."""

    def __init__(self, fixed: Tensor, *, dtype: torch.dtype) -> None:
        self.fixed = fixed
        self.value = to_value(fixed, dtype)

    def advance(self, addend: Tensor, factor: Tensor | None) -> None:
        """See Register; there is no factor."""
        _require_alike(self.fixed, addend)
        self.fixed.add_(torch.round(addend.double() * ONE))
        self.value = to_value(self.fixed, self.value.dtype)

    def reverse(self, addend: Tensor, factor: Tensor | None) -> None:
        """See Register; there is no factor."""
        _require_alike(self.fixed, addend)
        self.fixed.sub_(torch.round(addend.double() * ONE))
        self.value = to_value(self.fixed, self.value.dtype)

    def is_at_start(self, fixed: Tensor) -> bool:
        """See Register."""
        return torch.equal(self.fixed, fixed)


def _require_alike(fixed: Tensor, *updates: Tensor) -> None:
    """Kernels trust the sizes that they are given. Raises InvalidReversible for updates of another shape."""
    for update in updates:
        if update.shape != fixed.shape:
            raise InvalidReversible(
                f"half a state is [batch, units] = {list(fixed.shape)}, and the gates that update it are "
                f"{list(update.shape)}: the weights are those of other layers"
            )
