"""Budgets as people write them: bytes, text with a unit, a share of full BPTT's activations, or "free"."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from operator import index

from planner_service.chain.quantities import InvalidQuantity, format_bytes, parse_bytes

FREE = "free"
"""The budget that takes what the device has left."""

_PERCENTAGE = re.compile(r"\s*(\d+(?:\.\d+)?)\s*%\s*")
_KINDS = f'give bytes (2**29, "512MiB"), a share of the activations of full BPTT ("5%", 0.05), or "{FREE}"'
_OF_OTHERS = (
    f'shares of full BPTT and "{FREE}" are for LSTM, GRU and RNN of this package and for jobs '
    "(predict(...).full_bptt_peak_bytes tells what a share is of)"
)


class InvalidBudget(ValueError):
    """A budget that is neither bytes, nor a share, nor "free"; `value` is what was given as `name`."""

    def __init__(self, value: object, reason: str, name: str = "budget") -> None:
        self.value, self.reason, self.name = value, reason, name
        super().__init__(f"{name}={value!r}: {reason}")

    def __reduce__(self) -> tuple[object, ...]:
        return (InvalidBudget, (self.value, self.reason, self.name))


@dataclass(frozen=True)
class Budget:
    """One of three: a number of bytes, a share of full BPTT's activation bytes, or what is free."""

    given_bytes: int | None = None
    """The budget in bytes, when it was given in bytes."""
    activation_ratio: float | None = None
    """The budget as a share of the bytes that full BPTT keeps between its forward and backward pass."""

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
    if isinstance(value, str) and value.strip() == FREE:
        return Budget()
    ratio = _ratio(value)
    if ratio is None:
        return Budget(given_bytes=_positive_bytes(value, "budget", _KINDS))
    if not 0 < ratio <= 1:
        raise InvalidBudget(value, f"a share of full BPTT is above 0 and at most 1; {_KINDS}")
    return Budget(activation_ratio=ratio)


def parse_budget_bytes(value: object, *, name: str = "budget") -> int:
    """Bytes of 536870912, "512MiB" or "2 GB".

    Raises InvalidBudget, which calls it by `name`, unless they are a positive number.
    """
    is_of_others = isinstance(value, str) and (_PERCENTAGE.fullmatch(value) or value.strip() == FREE)
    return _positive_bytes(value, name, _OF_OTHERS if is_of_others else "")


def _positive_bytes(value: object, name: str, hint: str) -> int:
    hint = f"; {hint}" if hint else ""
    try:
        given = value if isinstance(value, int | float | str) else index(value)  # type: ignore[arg-type]
        given_bytes = parse_bytes(given)
    except InvalidQuantity as refusal:
        raise InvalidBudget(value, f"{refusal.reason}{hint}", name) from None
    except TypeError:
        raise InvalidBudget(value, f"write a number of bytes{hint}", name) from None
    if given_bytes == 0:
        raise InvalidBudget(value, f"must be positive{hint}", name)
    return given_bytes


def _ratio(value: object) -> float | None:
    if isinstance(value, float):
        return value
    match = _PERCENTAGE.fullmatch(value) if isinstance(value, str) else None
    return None if match is None else float(match[1]) / 100
