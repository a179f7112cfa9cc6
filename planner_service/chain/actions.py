"""The actions of a schedule (docs/memory_model.md), as run-length records.

`advance 1..17` runs stages 1 to 17 without tape and keeps only x_17, which stays stored until a
`free 17`. `tape 4..6` tapes stages 4, 5, 6 in this order; `backward 6..4` reverses them in that one.

Stages that can be undone have two more: `archive 1..17` is an advance that also keeps the bits that the
stages lose, and `undo 17..1` takes x_17 back to x_0 with them, reversing each stage on the way: undoing a
stage computes its tape.
"""

from __future__ import annotations

from typing import NamedTuple


class Advance(NamedTuple):
    """Run stages first..last without tape, from the stored x_{first-1}; x_last becomes a checkpoint."""

    first: int
    last: int


class Tape(NamedTuple):
    """Run stages first..last with tapes, from x_{first-1}, which stays pinned while the tape lives."""

    first: int
    last: int


class Backward(NamedTuple):
    """Reverse stages first, first-1, …, last (first >= last): tapes go, the gradient of x_{last-1} stays."""

    first: int
    last: int


class Free(NamedTuple):
    """Drop the checkpoint x_state."""

    state: int


class Archive(NamedTuple):
    """Advance stages first..last and keep the bits that they lose; x_last becomes a checkpoint."""

    first: int
    last: int


class Undo(NamedTuple):
    """Undo and reverse stages first, first-1, …, last (first >= last), all of them archived: from the
    checkpoint x_first, which becomes x_{last-1}. Their bits go; the gradient of x_{last-1} stays.
    """

    first: int
    last: int


Action = Advance | Tape | Backward | Free | Archive | Undo

_NAMES: dict[type[Action], str] = {
    Advance: "advance",
    Tape: "tape",
    Backward: "backward",
    Free: "free",
    Archive: "archive",
    Undo: "undo",
}
_TYPES: dict[str, type[Action]] = {name: kind for kind, name in _NAMES.items()}


def action_record(action: Action) -> dict[str, int | str]:
    """The action as it goes over the wire: {"action": "advance", "first": 1, "last": 17}."""
    return {"action": _NAMES[type(action)], **action._asdict()}


def action_from_record(record: dict[str, object]) -> Action:
    """The inverse of `action_record`. Raises ValueError for an unknown name or wrong fields."""
    fields = dict(record)
    name = fields.pop("action", None)
    kind = _TYPES.get(name) if isinstance(name, str) else None
    if kind is None:
        raise ValueError(f"unknown action {name!r}: one of {', '.join(_TYPES)}")
    if set(fields) != set(kind._fields):
        raise ValueError(f"{name} takes the fields {', '.join(kind._fields)}, not {sorted(fields)}")
    if not all(isinstance(value, int) and not isinstance(value, bool) for value in fields.values()):
        raise ValueError(f"the fields of {name} must be whole numbers, not {fields}")
    return kind(**fields)  # type: ignore[arg-type]


def describe(action: Action) -> str:
    """The action in a few words, for errors and tables: `advance 1..17`."""
    name = _NAMES[type(action)]
    if isinstance(action, Free):
        return f"{name} {action.state}"
    return (
        f"{name} {action.first}" if action.first == action.last else f"{name} {action.first}..{action.last}"
    )
