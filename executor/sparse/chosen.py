"""The rule and the sparsifier of a module or cell, from the arguments of its constructor."""

from __future__ import annotations

from executor.sparse.cell import Cell
from executor.sparse.errors import InvalidSparsity
from executor.sparse.rule import Rule
from executor.sparse.rules import require_columns, rule_named
from executor.sparse.schedule import Schedule
from executor.sparse.sparsifier import Sparsifier


def chosen_sparsifier(
    cell: Cell,
    hidden_size: int,
    rule: str | Rule,
    *,
    schedule: Schedule | None,
    error_feedback: bool,
    seed: int,
    **settings: float | None,
) -> Sparsifier:
    """That of layers of `cell` with `hidden_size` units; `settings` are those of a rule given by name.

    Raises InvalidSparsity.
    """
    chosen = _chosen_rule(rule, settings)
    require_columns(chosen, len(cell.gate_names) * hidden_size)
    return Sparsifier(chosen, cell.gate_names, schedule=schedule, error_feedback=error_feedback, seed=seed)


def _chosen_rule(rule: str | Rule, settings: dict[str, float | None]) -> Rule:
    if isinstance(rule, str):
        return rule_named(rule, **settings)
    given = [name for name, value in settings.items() if value is not None]
    if given:
        raise InvalidSparsity("rule", f"{rule} has its own settings: leave {' and '.join(given)} out")
    return rule
