"""The budget of a job: bytes, a share of full BPTT's activations, or what the device has free."""

from __future__ import annotations

import re
from typing import Annotated, Any

from pydantic import BeforeValidator, WithJsonSchema
from pydantic_core import PydanticCustomError

from planner_service.chain.quantities import InvalidQuantity, parse_bytes
from planner_service.chain.stage import MAXIMUM_BYTES

FREE = "free"
"""The budget that takes what the device has left when the attempt starts."""

_PERCENTAGE = re.compile(r"\s*([0-9]{1,3}(?:\.[0-9]{1,9})?)\s*%\s*", re.ASCII)
_MOST_CHARACTERS = 64


def share_of(budget: int | str) -> float | None:
    """0.05 for "5%"; None for bytes and for "free"."""
    match = _PERCENTAGE.fullmatch(budget) if isinstance(budget, str) else None
    return None if match is None else float(match[1]) / 100


def _read(value: object) -> int | str:
    """`value` in the one form that it has from here on: an integer, "5%" or "free"."""
    if value == FREE:
        return FREE
    if isinstance(value, float) and 0 < value < 1:
        return _percentage(value)
    if isinstance(value, str) and len(value) <= _MOST_CHARACTERS and (share := share_of(value)) is not None:
        if not 0 < share <= 1:
            raise _refused(value)
        return value.strip().replace(" ", "")
    try:
        budget_bytes = parse_bytes(value)
    except InvalidQuantity:
        raise _refused(value) from None
    if not 0 < budget_bytes <= MAXIMUM_BYTES:
        raise _refused(value)
    return budget_bytes


def _percentage(share: float) -> str:
    """The share as it is written, to nine decimals; a share that has none of those is refused."""
    digits = f"{100 * share:.9f}".rstrip("0").rstrip(".")
    if digits == "0":
        raise _refused(share)
    return f"{digits}%"


def _refused(value: object) -> PydanticCustomError:
    shown = _shown(value) if isinstance(value, str) else f"a value of type {type(value).__name__}"
    if isinstance(value, int) and value.bit_length() <= 128:
        shown = str(value)
    reason = (
        f'budget={shown} is none: give bytes in 1..{MAXIMUM_BYTES}, text with a unit ("512MiB"), a share '
        f'of the activations of full BPTT ("5%"), or "{FREE}"'
    )
    return PydanticCustomError("quantity", "{reason}", {"reason": reason})


def _shown(text: str) -> str:
    """The text's beginning; halves of surrogate pairs, which no message can hold, are escaped."""
    return f"{text:.60}".encode(errors="backslashreplace").decode()


_SCHEMA: dict[str, Any] = {
    "anyOf": [
        {"type": "integer", "minimum": 1, "maximum": MAXIMUM_BYTES},
        {"type": "string", "examples": ["512MiB", "5%", FREE], "maxLength": _MOST_CHARACTERS},
    ]
}

JobBudget = Annotated[int | str, BeforeValidator(_read), WithJsonSchema(_SCHEMA)]
"""An integer of bytes, "5%" (of the activations of full BPTT) or "free" (what the device has left)."""
