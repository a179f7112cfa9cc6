"""Budgets as people write them: bytes, text with a unit, a share of full BPTT's activations, or "free"."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from planner_service.chain.quantities import InvalidQuantity, format_bytes, parse_bytes

FREE = "free"
"""The budget that takes what the device has left."""

_PERCENTAGE = re.compile(r"\s*(\d+(?:\.\d+)?)\s*%\s*")


class InvalidBudget(ValueError):
    """A budget that is neither bytes, nor a share, nor "free"; `value` is what was given."""

    def __init__(self, value: object) -> None:
        self.value = value
        super().__init__(
            f"budget={value!r} is not a budget: give a positive whole number of bytes, text with a unit "
            f'("512MiB", "2GB"), a share of the activations of full BPTT ("5%" or 0.05), or "{FREE}"'
        )


@dataclass(frozen=True)
class Budget:
    """One of three: a number of bytes, a share of full BPTT's activation bytes, or what is free."""

    given_bytes: int | None = None
    """The budget in bytes, when it was given in bytes."""
    activation_ratio: float | None = None
    """The budget as a share of the bytes that full BPTT keeps between its forward and backward pass."""

    @property
    def is_free(self) -> bool:
        """True for the budget that takes what the device has left."""
        return self.given_bytes is None and self.activation_ratio is None

    def bytes(self, *, activation_bytes: Callable[[], int], free_bytes: Callable[[], int]) -> int:
        """The budget in bytes; asks for the activations or for the free bytes only when it needs them."""
        if self.given_bytes is not None:
            return self.given_bytes
        if self.activation_ratio is not None:
            return int(self.activation_ratio * activation_bytes())
        return free_bytes()

    def __str__(self) -> str:
        if self.given_bytes is not None:
            return format_bytes(self.given_bytes)
        if self.activation_ratio is not None:
            return f"{100 * self.activation_ratio:g}% of full BPTT's activations"
        return FREE


def parse_budget(value: object) -> Budget:
    """The budget that `value` means: an integer or "512MiB", 0.05 or "5%", or "free".

    Raises InvalidBudget for anything else, for zero and for shares above 1.
    """
    if value == FREE:
        return Budget()
    ratio = _ratio(value)
    if ratio is not None:
        if not 0 < ratio <= 1:
            raise InvalidBudget(value)
        return Budget(activation_ratio=ratio)
    try:
        given_bytes = parse_bytes(value)
    except InvalidQuantity as error:
        raise InvalidBudget(value) from error
    if given_bytes == 0:
        raise InvalidBudget(value)
    return Budget(given_bytes=given_bytes)


def _ratio(value: object) -> float | None:
    if isinstance(value, float):
        return value
    match = _PERCENTAGE.fullmatch(value) if isinstance(value, str) else None
    return None if match is None else float(match[1]) / 100
