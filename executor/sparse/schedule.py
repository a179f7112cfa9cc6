"""When a rule applies: dense and sparse iterations mixed, which recovers accuracy."""

from __future__ import annotations

from dataclasses import dataclass

from executor.sparse.errors import InvalidSparsity, require_count


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """Dense for the first iterations, and now and then after. Iterations count from 0."""

    warm_up_iterations: int = 0
    """Iterations at the start that are dense."""
    dense_every: int | None = None
    """After those, every n-th iteration is dense (n >= 2); None means none is."""

    def __post_init__(self) -> None:
        require_count("warm_up_iterations", self.warm_up_iterations, least=0)
        if self.dense_every is not None:
            if self.dense_every == 1:
                raise InvalidSparsity("dense_every", "1 would make every iteration dense: leave the rule out")
            require_count("dense_every", self.dense_every, least=2)

    def is_dense(self, iteration: int) -> bool:
        """Whether the rule rests in this iteration."""
        since = iteration - self.warm_up_iterations
        return since < 0 or (self.dense_every is not None and (since + 1) % self.dense_every == 0)
