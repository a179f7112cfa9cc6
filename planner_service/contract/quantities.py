"""Number types of the wire: whole numbers, byte quantities and costs, checked at the edge.

JSON has one number type: 260 and 260.0 are the same whole number to JSON Schema, and so they are
here. Booleans, texts without need, infinities and NaN are refused.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import Field, GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import PydanticCustomError, core_schema

from planner_service.chain.quantities import InvalidQuantity, parse_bytes, parse_size_bytes
from planner_service.chain.stage import MAXIMUM_BYTES

FAST_BRANCH, SLOW_BRANCH = "(whole)", "(written)"
"""Names of the two branches of a number type in the location of a pydantic error."""

MAXIMUM_COUNT = 10**12
"""Largest count, length or dimension on the wire: beyond it byte counts leave 64 bits."""


@dataclass(frozen=True)
class _Number:
    """An integer in minimum..maximum; what is not plainly one goes through `read`.

    The plain case never leaves pydantic's compiled core: a chain may have a million stages.
    """

    minimum: int
    maximum: int
    read: Callable[[object], int]
    json_type: tuple[str, ...]

    def __get_pydantic_core_schema__(
        self, source: object, handler: GetCoreSchemaHandler
    ) -> core_schema.CoreSchema:
        plain = core_schema.int_schema(strict=True, ge=self.minimum, le=self.maximum)
        written = core_schema.no_info_plain_validator_function(self._read_checked)
        return core_schema.union_schema(
            [(plain, FAST_BRANCH), (written, SLOW_BRANCH)],
            mode="left_to_right",
            serialization=core_schema.simple_ser_schema("int"),
        )

    def _read_checked(self, value: object) -> int:
        number = self.read(value)
        if not self.minimum <= number <= self.maximum:
            raise _refused(f"{value!r:.60} must lie in {self.minimum}..{self.maximum}")
        return number

    def __get_pydantic_json_schema__(
        self, schema: core_schema.CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        whole: dict[str, Any] = {"type": "integer", "minimum": self.minimum, "maximum": self.maximum}
        if "string" not in self.json_type:
            return whole
        text = {"type": "string", "examples": ["512MiB", "2GB"], "maxLength": 64}
        return {"anyOf": [whole, text]}


def _refused(reason: str) -> PydanticCustomError:
    return PydanticCustomError("quantity", "{reason}", {"reason": reason})


def _read_with(parse: Callable[[object], int]) -> Callable[[object], int]:
    def read(value: object) -> int:
        try:
            return parse(value)
        except InvalidQuantity as error:
            raise _refused(str(error)) from None

    return read


def _read_whole(value: object) -> int:
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, int) and not isinstance(value, bool):
        if value.bit_length() > 128:
            raise _refused(f"a number of {value.bit_length()} bits is out of range")
        return value
    raise _refused(f"{value!r:.60} must be a whole number")


Count = Annotated[int, _Number(1, MAXIMUM_COUNT, _read_whole, ("integer",))]
"""A positive whole number: lengths, dimensions, counts."""

BudgetBytes = Annotated[int, _Number(1, MAXIMUM_BYTES, _read_with(parse_bytes), ("integer", "string"))]
"""A positive amount of bytes that may be used: 2147483648 or "2GiB"; a broken byte is dropped."""

SizeBytes = Annotated[int, _Number(0, MAXIMUM_BYTES, _read_with(parse_size_bytes), ("integer", "string"))]
"""An amount of bytes that something occupies; a broken byte counts whole."""

Cost = Annotated[float, Field(strict=True, ge=0, allow_inf_nan=False)]
"""A finite, non-negative cost: seconds, or any unit that all costs of the request share."""
