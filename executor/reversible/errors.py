"""What reversible layers refuse."""

from __future__ import annotations

from executor.errors import ExecutorError


class InvalidReversible(ExecutorError, ValueError):
    """Sizes, forget bits, inputs or states that a reversible layer cannot work with."""


class ReversalMismatch(ExecutorError, RuntimeError):
    """Reversing did not end at the state it began with: the two passes computed different gates.

    The gradients of this backward pass are not to be trusted and were not returned.
    """
