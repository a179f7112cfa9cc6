"""What every message of the wire shares."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Message(BaseModel):
    """A frozen value; an unknown field is an error, so that a typing mistake cannot change a plan."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Answer(BaseModel):
    """A frozen value that the service sends; readers must ignore fields that they do not know."""

    model_config = ConfigDict(extra="ignore", frozen=True, allow_inf_nan=False)
