"""Sparsified gate gradients as they are written in a request: `training.gradient_sparsity`."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from planner_service.contract.base import Message, invalid
from planner_service.contract.quantities import Count

SparsityRule = Literal["absolute", "rms", "top", "columns", "blocks", "rows", "mixed"]
Threshold = Annotated[float, Field(strict=True, ge=0, allow_inf_nan=False)]
KeptRatio = Annotated[float, Field(strict=True, gt=0, le=1, allow_inf_nan=False)]

_SETTINGS: dict[SparsityRule, frozenset[str]] = {
    "absolute": frozenset({"threshold"}),
    "rms": frozenset({"threshold"}),
    "top": frozenset({"keep_ratio"}),
    "columns": frozenset({"keep_ratio", "share_steps"}),
    "blocks": frozenset({"keep_ratio", "share_steps", "block_size"}),
    "rows": frozenset({"keep_ratio", "share_steps"}),
    "mixed": frozenset({"keep_ratio", "share_steps", "row_ratio"}),
}
"""The settings of each rule of executor.sparse."""


class GradientSparsity(Message):
    """A rule by which gate gradients are dropped. Gradients are then not those of full BPTT."""

    rule: SparsityRule
    threshold: Threshold | None = None
    """absolute: of an entry (needed); rms: of an entry over the RMS of its step (0.3)."""
    keep_ratio: KeptRatio | None = None
    """Kept share: top: of the entries (0.2); columns, blocks: of the gate units (0.25); rows: of the
    sequences (0.5); mixed: of the gate units that the gradient flows on through (0.125)."""
    row_ratio: KeptRatio | None = None
    """mixed: sampled share of the rows (steps x sequences) of the weight gradients (0.5)."""
    share_steps: Count | None = None
    """Steps that share their columns or rows (25; rows: 5)."""
    block_size: Count | None = None
    """blocks: neighbouring columns in a block (16)."""
    warm_up_iterations: Annotated[int, Field(strict=True, ge=0, le=10**9)] = 0
    """Dense iterations at the start; a plan's cost is that of the iterations after them."""
    dense_every: Annotated[int, Field(strict=True, ge=2, le=10**9)] | None = None
    """Every n-th iteration is dense; null: none."""
    error_feedback: Annotated[bool, Field(strict=True)] = False
    """Add what an iteration drops of the weight gradients to those of the next one."""

    @model_validator(mode="after")
    def _settings_are_those_of_the_rule(self) -> Self:
        known = _SETTINGS[self.rule]
        for name in sorted(frozenset().union(*_SETTINGS.values()) - known):
            if getattr(self, name) is not None:
                raise invalid(
                    name, f"the rule {self.rule!r} has no {name}: it has {', '.join(sorted(known))}"
                )
        if self.rule == "absolute" and self.threshold is None:
            raise invalid("threshold", "the rule 'absolute' needs one: it depends on the loss's scale")
        if self.rule == "mixed" and self.error_feedback:
            raise invalid("error_feedback", "the rule 'mixed' samples without bias: nothing to carry over")
        return self
