"""What sparse training refuses."""

from __future__ import annotations

import math
from typing import TypeGuard

from executor.errors import ExecutorError

_MOST_BITS = 1024
"""Of the largest float."""


class InvalidSparsity(ExecutorError, ValueError):
    """A rule, a schedule or a size is out of range; `field` names it."""

    def __init__(self, field: str, reason: str) -> None:
        self.field = field
        self.reason = reason
        super().__init__(f"{field}: {reason}")

    def __reduce__(self) -> tuple[object, ...]:
        return (InvalidSparsity, (self.field, self.reason))


class EverythingDropped(ExecutorError, RuntimeError):
    """No gate gradient of a layer was left in an iteration: neither its weights nor the layers below it would
    learn anything from it. `layers` are named as torch names their weights: l0, l1_reverse, …
    """

    def __init__(self, *, rule: str, iteration: int, layers: tuple[str, ...]) -> None:
        self.rule = rule
        self.iteration = iteration
        self.layers = layers
        super().__init__(
            f"{rule} dropped every gate gradient of {', '.join(layers)} in iteration {iteration}: lower the "
            "threshold. An absolute threshold depends on the scale of the loss (a mean or a sum) and on the "
            "depth of the layer; a relative one does not"
        )

    def __reduce__(self) -> tuple[object, ...]:
        return (_everything_dropped, (self.rule, self.iteration, self.layers))


def _everything_dropped(rule: str, iteration: int, layers: tuple[str, ...]) -> EverythingDropped:
    return EverythingDropped(rule=rule, iteration=iteration, layers=layers)


def require_threshold(field: str, value: object) -> None:
    """Refuse what is no finite number of at least 0."""
    if not _is_finite(value) or value < 0:
        raise InvalidSparsity(field, f"{_shown(value)} must be a finite number, 0 or more")


def require_scale(field: str, value: object) -> None:
    """Refuse what is no finite number above 0."""
    if not _is_finite(value) or value <= 0:
        raise InvalidSparsity(field, f"{_shown(value)} must be a finite number above 0")


def _is_finite(value: object) -> TypeGuard[float]:
    """Whether it is a number that a float has room for."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:
        return False


def _shown(value: object) -> str:
    """The value, unless it has more digits than anyone reads."""
    is_long = isinstance(value, int) and value.bit_length() > _MOST_BITS
    return "a whole number that no float can hold" if is_long else repr(value)


def require_share(field: str, value: object) -> None:
    """Refuse what is no number in (0, 1]: nothing kept is nothing learned."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= 1:
        raise InvalidSparsity(field, f"{_shown(value)} must be a number above 0 and at most 1")


def require_count(field: str, value: object, *, least: int = 1) -> None:
    """Refuse what is no whole number of at least `least`."""
    if type(value) is not int or value < least:
        raise InvalidSparsity(field, f"{value!r} must be a whole number, {least} or more")
