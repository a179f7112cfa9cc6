"""The actions of a schedule with storage tiers: the four of `actions.py` and four more.

The device's peak follows from the order of the actions alone, never from how long a transfer takes:
`free` waits for the writes of its state, and the buffer of a fetched state counts from `fetch` on.
A wrong bandwidth can make a schedule late, but not too large.
"""

from __future__ import annotations

from typing import NamedTuple

from planner_service.chain.actions import (
    Action,
    Advance,
    Archive,
    Backward,
    Free,
    Tape,
    Undo,
    action_from_record,
    action_record,
)
from planner_service.chain.actions import describe as describe_action


class Move(NamedTuple):
    """Run stages first..last without tape, from the checkpoint x_{first-1}, which goes as soon as
    stage `first` has run and its pending writes are complete; x_last becomes a checkpoint.
    """

    first: int
    last: int


class Store(NamedTuple):
    """Start writing the checkpoint x_state to `tier`. The device's copy stays until it is freed."""

    state: int
    tier: str


class Fetch(NamedTuple):
    """Start reading x_state from `tier` into a new device buffer. It counts at once, and may be used
    (whoever uses it waits) when the read is complete. The tier keeps its copy.
    """

    state: int
    tier: str


class Discard(NamedTuple):
    """Drop the copy of x_state in `tier`, once the transfers that touch it are complete."""

    state: int
    tier: str


TieredAction = Action | Move | Store | Fetch | Discard

_TRANSFERS: dict[str, type[Store] | type[Fetch] | type[Discard]] = {
    "store": Store,
    "fetch": Fetch,
    "discard": Discard,
}


def tiered_action_record(action: TieredAction) -> dict[str, int | str]:
    """The action as it goes over the wire: {"action": "store", "state": 17, "tier": "host"}."""
    if isinstance(action, Advance | Tape | Backward | Free | Archive | Undo):
        return action_record(action)
    return {"action": type(action).__name__.lower(), **action._asdict()}


def tiered_action_from_record(record: dict[str, object]) -> TieredAction:
    """The inverse of `tiered_action_record`. Raises ValueError for an unknown name or wrong fields."""
    name = record.get("action")
    if name == "move":
        advance = action_from_record({**record, "action": "advance"})
        return Move(*advance)
    kind = _TRANSFERS.get(name) if isinstance(name, str) else None
    if kind is None:
        return action_from_record(record)
    state, tier = record.get("state"), record.get("tier")
    if set(record) != {"action", "state", "tier"} or type(state) is not int or not isinstance(tier, str):
        raise ValueError(f"{name} takes a whole number `state` and a text `tier`, not {record}")
    return kind(state, tier)


def describe(action: TieredAction) -> str:
    """The action in a few words: `store 17 host`."""
    if isinstance(action, Move):
        return describe_action(Advance(*action)).replace("advance", "move")
    if isinstance(action, Store | Fetch | Discard):
        return f"{type(action).__name__.lower()} {action.state} {action.tier}"
    return describe_action(action)
