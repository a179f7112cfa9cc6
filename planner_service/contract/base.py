"""What every message of the wire shares.

The texts below fields are their descriptions in the OpenAPI document. A list that may be long is refused at
its first wrong item (`fail_fast`): an error takes a thousand times the bytes of what is wrong.
"""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict
from pydantic_core import PydanticCustomError


class Message(BaseModel):
    """A frozen value; an unknown field is an error, so that a typing mistake cannot change a plan."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, use_attribute_docstrings=True)


class Answer(BaseModel):
    """A frozen value that the service sends; readers must ignore fields that they do not know."""

    model_config = ConfigDict(extra="ignore", frozen=True, allow_inf_nan=False, use_attribute_docstrings=True)


def invalid(field: str, reason: str) -> PydanticCustomError:
    """An error of a whole message that is about one of its fields."""
    return PydanticCustomError("request", "{reason}", {"reason": reason, "field": field})
