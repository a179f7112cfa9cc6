"""Texts of the wire that every database can hold: Unicode without NUL."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, Field
from pydantic_core import PydanticCustomError


def _storable(text: str) -> str:
    if "\0" in text:
        raise PydanticCustomError("quantity", "a text must not hold the character NUL")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise PydanticCustomError("quantity", "a text must not hold half of a surrogate pair") from None
    return text


StorableText = Annotated[str, AfterValidator(_storable)]
"""A text that is kept."""


def _of_one_line(text: str) -> str:
    if not text.isprintable() or text != text.strip():
        raise PydanticCustomError(
            "quantity", "a name must be one line of printable characters, without blanks around it"
        )
    return text


LineText = Annotated[StorableText, AfterValidator(_of_one_line)]
"""A text that stands in a line, a path or a cell of a table."""

Name = Annotated[StorableText, Field(min_length=1, max_length=200)]
"""A name that people or programs gave to something."""
