"""Reversible recurrent models as they are written in a request."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self, get_args

from pydantic import Field, model_validator

from planner_service.contract.base import Message, invalid
from planner_service.contract.layers import Embedding, Head
from planner_service.contract.quantities import Count

ReversibleKind = Literal["rev_gru", "rev_lstm", "nf_rev_gru", "nf_rev_lstm"]
REVERSIBLE_KINDS: tuple[ReversibleKind, ...] = get_args(ReversibleKind)
Coding = Literal["entropy", "scheduled"]
ForgetBits = Annotated[int, Field(ge=1, le=10, strict=True)]


class ReversibleModel(Message):
    """A recurrent network of cells whose steps can be undone, as executor.reversible defines them.

    The `nf` cells never forget: they archive nothing, and `forget_bits` is null.
    """

    kind: ReversibleKind
    input_size: Count
    hidden_size: Count
    """Even: a reversible state is split in two halves."""
    num_layers: Count = 1
    dtype: Literal["float32", "float64"] = "float32"
    forget_bits: ForgetBits | None = 3
    """Most bits that a unit can forget in a step; null sets no limit but the 10 bits of a forget gate."""
    coding: Coding = "entropy"
    """entropy: archives about the bits forgotten; scheduled: all that may be, at times known in advance."""
    segment_steps: Count | None = None
    """Steps computed at once; null: the planner chooses."""
    head: Head | None = None
    embedding: Embedding | None = None

    @model_validator(mode="before")
    @classmethod
    def _cells_that_never_forget_have_no_limit(cls, given: Any) -> Any:
        if not isinstance(given, dict) or not str(given.get("kind", "")).startswith("nf_"):
            return given
        if given.get("forget_bits") is not None:
            raise invalid("forget_bits", f"{given['kind']} never forgets: leave forget_bits out")
        return {**given, "forget_bits": None}

    @model_validator(mode="after")
    def _state_has_two_halves(self) -> Self:
        check_halves(self.hidden_size)
        return self


def check_halves(hidden_size: int) -> None:
    """Raise the refusal of an odd size of a reversible state."""
    if hidden_size % 2:
        reason = f"hidden_size={hidden_size} must be even: a reversible state is split in two halves"
        raise invalid("hidden_size", reason)
