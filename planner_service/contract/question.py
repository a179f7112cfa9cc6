"""What every question to the planner says: which model, trained on what, where."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from planner_service.contract.base import Message, invalid
from planner_service.contract.models import Model, Sequence, Training
from planner_service.contract.profile import ProfileRecord


class Question(Message):
    """A model with what it is trained on; the requests of the wire add what is asked about it."""

    model: Model
    sequence: Sequence | None = None
    """Needed for a recurrent model; a chain brings its own length."""
    training: Training | None = None
    device: Literal["cpu", "cuda"] = "cpu"
    """Where the plan will run: it decides which byte formulas apply without a profile. Not said, with a
    `profile_id` or a `device_name` that is known: what that profile or device is."""
    profile: ProfileRecord | None = None
    """What a probe measured of this very model; used as it stands where it matches."""
    profile_id: str | None = Field(
        default=None, pattern="^[0-9a-f]{32}$", exclude_if=lambda given: given is None
    )
    """A profile that the service keeps (/v1/profiles), instead of a profile in full."""
    device_name: str | None = Field(
        default=None, min_length=1, max_length=200, exclude_if=lambda given: given is None
    )
    """A device that the service has measurements of, such as `cpu` or a GPU's name: the plan then uses
    this model's profile there, else what models alike measured there, else the formulas."""

    @model_validator(mode="after")
    def _sequence_goes_with_the_model(self) -> Self:
        recurrent = self.model.kind != "chain"
        if recurrent and self.sequence is None:
            raise invalid("sequence", f"model.kind={self.model.kind!r} needs a sequence with a length")
        if not recurrent:
            for name in ("sequence", "training", "profile", "profile_id", "device_name"):
                if getattr(self, name) is not None:
                    raise invalid(name, f"a chain brings its own stages: leave {name} out")
        if self.profile_id is not None and self.profile is not None:
            raise invalid("profile_id", "the request brings a profile in full: leave one of the two out")
        return self
