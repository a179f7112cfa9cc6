"""Rules by name, as modules, job files and requests to the planner give them."""

from __future__ import annotations

from executor.sparse.absolute import Absolute
from executor.sparse.columns import Columns
from executor.sparse.errors import InvalidSparsity
from executor.sparse.mixed import Mixed
from executor.sparse.relative import Relative
from executor.sparse.rows import Rows
from executor.sparse.rule import Rule
from executor.sparse.top_entries import TopEntries

RULES: dict[str, type[Rule]] = {
    "absolute": Absolute,
    "rms": Relative,
    "top": TopEntries,
    "columns": Columns,
    "blocks": Columns,
    "rows": Rows,
    "mixed": Mixed,
}
_BLOCK_SIZE = 16


def rule_named(name: str, **settings: float | int | None) -> Rule:
    """The rule called `name`; settings that are None have its defaults.

    absolute: threshold. rms: threshold (0.3). top: keep_ratio (0.2). columns, blocks: keep_ratio (0.25),
    share_steps (25), for blocks block_size (16). rows: keep_ratio (0.5), share_steps (5). mixed: keep_ratio
    (0.125) of the columns, share_steps, row_ratio (0.5).

    Raises InvalidSparsity for an unknown name, a setting that the rule does not have or needs, or a value out
    of range.
    """
    if name not in RULES:
        raise InvalidSparsity("rule", f"{name!r} is not one of {', '.join(RULES)}")
    kind = RULES[name]
    given = {field: value for field, value in settings.items() if value is not None}
    if name == "blocks":
        given = {"block_size": _BLOCK_SIZE, **given}
    known = set(getattr(kind, "__dataclass_fields__", {})) - (set() if name == "blocks" else {"block_size"})
    for field in given:
        if field not in known:
            raise InvalidSparsity(
                field, f"the rule {name!r} has no such setting: it has {', '.join(sorted(known))}"
            )
    if name == "absolute" and "threshold" not in given:
        raise InvalidSparsity("threshold", "the rule 'absolute' needs one: it depends on the loss's scale")
    return kind(**given)


def require_columns(rule: Rule, columns: int) -> None:
    """Raise InvalidSparsity when `rule` cannot work on gate gradients [B, columns]."""
    if isinstance(rule, Columns):
        rule.require_columns(columns)
