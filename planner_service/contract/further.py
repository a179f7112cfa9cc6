"""What a message may say besides its fields: any JSON, nested no deeper than its readers can follow."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, JsonValue
from pydantic_core import PydanticCustomError

MOST_LEVELS = 100
"""Readers give up at 200 and writers at 255; answers put such values some levels deeper."""


def _not_too_deep(value: JsonValue) -> JsonValue:
    level, levels = [value], 0
    while level := [part for whole in level for part in _parts(whole)]:
        levels += 1
        if levels > MOST_LEVELS:
            raise PydanticCustomError(
                "quantity",
                "a further value must not be nested over {levels} levels deep",
                {"levels": MOST_LEVELS},
            )
    return value


def _parts(value: JsonValue) -> list[JsonValue]:
    if isinstance(value, dict):
        return [*value.values()]
    return value if isinstance(value, list) else []


FurtherValue = Annotated[JsonValue, AfterValidator(_not_too_deep)]
"""A value that is kept and shown, never acted upon."""
