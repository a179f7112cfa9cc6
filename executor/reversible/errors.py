"""What reversible layers refuse."""

from __future__ import annotations

from executor.errors import ExecutorError, ReversalMismatch

__all__ = ["InvalidReversible", "ReversalMismatch"]


class InvalidReversible(ExecutorError, ValueError):
    """Sizes, forget bits, inputs or states that a reversible layer cannot work with."""
