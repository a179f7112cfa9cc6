"""Byte quantities as people write them: 536870912, "512MiB", "2 GB", "1.5GiB".

Binary units are powers of 1024 (KiB, MiB, GiB, TiB, PiB), decimal ones of 1000 (kB, MB, GB, TB, PB).
A bare M or G is refused: some tools mean 10**6 by it, others 2**20.
"""

from __future__ import annotations

import math
import re
from fractions import Fraction

from planner_service.chain.errors import PlanningError
from planner_service.chain.stage import MAXIMUM_BYTES

_PREFIXES = "kmgtp"
UNITS: dict[str, int] = {"b": 1, "bytes": 1, "byte": 1, "": 1}
"""Bytes in one of each unit, by its lower-case name."""
for _power, _prefix in enumerate(_PREFIXES, start=1):
    UNITS[f"{_prefix}b"] = 1000**_power
    UNITS[f"{_prefix}ib"] = UNITS[f"{_prefix}i"] = 1024**_power

_TEXT = re.compile(r"\s*([+-]?)([0-9]{1,30}(?:\.[0-9]{1,30})?)\s*([A-Za-z]*)\s*")


class InvalidQuantity(PlanningError, ValueError):
    """Something that is not a byte quantity; `given` is what was written."""

    def __init__(self, given: object, reason: str) -> None:
        self.given = given
        self.reason = reason
        super().__init__(f"{_shortened(given)} is no byte quantity: {reason}")

    def __reduce__(self) -> tuple[object, ...]:
        return (InvalidQuantity, (self.given, self.reason))


def parse_bytes(value: object) -> int:
    """`value` in bytes, a broken byte dropped: what was written as a budget is never exceeded.

    Takes a whole number, a float that is one (JSON clients write 260.0), or a text with a unit.
    Raises InvalidQuantity for anything else, for negative amounts and for more than 2**62 bytes.
    """
    return math.floor(_bytes(value))


def parse_size_bytes(value: object) -> int:
    """Like `parse_bytes`, a broken byte counted whole: what is stored is never understated."""
    return math.ceil(_bytes(value))


def _bytes(value: object) -> Fraction:
    if isinstance(value, bool):
        raise InvalidQuantity(value, "write a number of bytes")
    if isinstance(value, int):
        amount = Fraction(value)
    else:
        amount = _float_bytes(value) if isinstance(value, float) else _text_bytes(value)
    if amount < 0:
        raise InvalidQuantity(value, "it must not be negative")
    if amount > MAXIMUM_BYTES:
        raise InvalidQuantity(value, f"the most that can be planned is {MAXIMUM_BYTES} bytes")
    return amount


def _float_bytes(value: float) -> Fraction:
    if not value.is_integer():  # NaN and the infinities are not, either
        raise InvalidQuantity(value, "a number without a unit must be a whole number of bytes")
    return Fraction(value)


def _text_bytes(value: object) -> Fraction:
    parts = _TEXT.fullmatch(value) if isinstance(value, str) else None
    if parts is None:
        raise InvalidQuantity(value, 'write a whole number of bytes or a text such as "512MiB" or "2GB"')
    sign, digits, unit = parts.groups()
    size = UNITS.get(unit.lower())
    if size is None:
        raise InvalidQuantity(value, f"unknown unit {_shortened(unit)}: {_suggestion(unit)}")
    return Fraction(f"{sign}{digits}") * size


def _suggestion(unit: str) -> str:
    if len(unit) == 1 and unit.lower() in _PREFIXES:
        prefix = unit.upper()
        decimal = "kB" if prefix == "K" else f"{prefix}B"
        return f"write {prefix}iB for powers of 1024 or {decimal} for powers of 1000"
    return "use B, kB, MB, GB, TB, PB or KiB, MiB, GiB, TiB, PiB"


def _shortened(given: object) -> str:
    if isinstance(given, int) and given.bit_length() > 128:
        return f"a number of {given.bit_length()} bits"  # Python refuses to print the longest ones
    text = repr(given)
    return text if len(text) <= 60 else f"{text[:57]}..."


def format_bytes(count: int) -> str:
    """`count` bytes for people, in binary units, to three significant digits: 1536 -> "1.5 KiB".

    Rounded to nearest: never use it to pass a number on.
    """
    size: float = abs(count)
    if size < 1024:
        return f"{count} B"
    for prefix in "KMGTPE":
        # Two roundings decide the unit: 1023.9996 KiB would otherwise print as "1024 KiB".
        size_in_unit = size / 1024
        if float(f"{size_in_unit:.4g}") < 1024 or prefix == "E":
            break
        size = size_in_unit
    digits = max(0, 2 - math.floor(math.log10(size_in_unit)))
    number = f"{size_in_unit:.{digits}f}"
    number = number.rstrip("0").rstrip(".") if "." in number else number
    return f"{'-' if count < 0 else ''}{number} {prefix}iB"
