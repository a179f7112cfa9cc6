"""What a newer service on the same database has kept: shown here as far as this version knows it."""

from __future__ import annotations

import json
from typing import TypeVar

from pydantic import BaseModel, ValidationError

Shown = TypeVar("Shown", bound=BaseModel)


def as_far_as_known(kind: type[Shown], document: bytes | str) -> Shown:
    """The kept JSON as a `kind`, to be shown and nothing else: without the fields that this version does not
    know, or, where it knows a value no better, unchecked and as it was sent.
    """
    try:
        return kind.model_validate_json(document, extra="ignore")
    except ValidationError:
        return kind.model_construct(**json.loads(document))
