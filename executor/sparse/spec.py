"""Sparsity as a job file writes it: a rule by name, its settings, its schedule."""

from __future__ import annotations

from dataclasses import dataclass

from executor.sparse.errors import InvalidSparsity, require_count
from executor.sparse.rule import Rule
from executor.sparse.rules import require_columns, rule_named
from executor.sparse.schedule import Schedule


# The fields are those of planner_service.memory.sparsity once more: of the service this package knows only
# `chain`, whose words these are not, and the planner knows no rule. `planned` goes between the two, by name.
@dataclass(frozen=True, kw_only=True)
class SparsitySpec:
    """`training.gradient_sparsity` of a job. Raises InvalidSparsity with the field that is out of range."""

    rule: str
    """One of `RULES`; see `rule_named` for the settings of each."""
    threshold: float | None = None
    keep_ratio: float | None = None
    row_ratio: float | None = None
    share_steps: int | None = None
    block_size: int | None = None
    warm_up_iterations: int = 0
    dense_every: int | None = None
    error_feedback: bool = False
    cosine_every: int = 10
    """Every n-th iteration the gradient is compared with the dense one, by a pass of its own; 0: never."""

    def __post_init__(self) -> None:
        rule = self.made_rule()
        self.schedule()
        if type(self.error_feedback) is not bool:
            raise InvalidSparsity("error_feedback", f"{self.error_feedback!r} must be true or false")
        if self.error_feedback and not rule.drops_in_place:
            raise InvalidSparsity("error_feedback", f"the rule {self.rule!r} leaves no error to carry over")
        require_count("cosine_every", self.cosine_every, least=0)

    def made_rule(self) -> Rule:
        """The rule."""
        return rule_named(
            self.rule,
            threshold=self.threshold,
            keep_ratio=self.keep_ratio,
            row_ratio=self.row_ratio,
            share_steps=self.share_steps,
            block_size=self.block_size,
        )

    def require_columns(self, columns: int) -> None:
        """Raise InvalidSparsity when the rule cannot work on gate gradients [B, columns]."""
        require_columns(self.made_rule(), columns)

    def schedule(self) -> Schedule:
        """When it applies."""
        return Schedule(warm_up_iterations=self.warm_up_iterations, dense_every=self.dense_every)

    def planned(self) -> dict[str, object]:
        """What a planner is told: everything but how often the gradient is compared."""
        told = {name: value for name, value in vars(self).items() if name != "cosine_every"}
        return {name: value for name, value in told.items() if value is not None}
