"""A run whose plan moves stored states to other tiers: the four further actions of a schedule.

When a state may be used, and when its memory may go, is a matter of waiting for transfers; the peak on
the device follows from the order of the actions alone (planner_service.chain.tiers_actions).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from executor.engine import Run
from executor.errors import PlanMismatch
from executor.offload.layout import storages_of
from executor.offload.shelf import Shelf
from executor.offload.transfers import Transfer
from executor.stages.states import StoredState
from planner_service.chain import Discard, Fetch, Free, Move, Store, Tier, TieredAction


class TieredRun(Run):
    """A `Run` with shelves beside the device; arguments as there.

    `most_states` says how many states the schedule keeps in each tier at once.
    """

    def __init__(
        self,
        *arguments: Any,
        tiers: Sequence[Tier],
        most_states: Mapping[str, int],
        device: torch.device,
        **options: Any,
    ) -> None:
        super().__init__(*arguments, **options)
        self._shelves = {
            tier.name: Shelf(tier, most_states=most_states.get(tier.name, 0), device=device) for tier in tiers
        }
        self._kept = storages_of(self.initial)
        self._arriving: dict[int, Transfer] = {}
        """Fetched states that nobody has waited for."""
        self._leaving: dict[int, list[Transfer]] = {}
        """Writes of states whose memory on the device has not gone."""
        self._passing = 0
        """The state that only the advance that comes next needs; 0 for none."""

    def release(self) -> None:
        """Drop what is held on the device and in the tiers, once no transfer touches it."""
        for shelf in self._shelves.values():
            shelf.settle()
        super().release()
        self._shelves.clear()
        self._arriving.clear()
        self._leaving.clear()

    def __del__(self) -> None:
        # A result that is dropped without a backward pass: a read may still be writing device memory.
        for shelf in getattr(self, "_shelves", {}).values():
            shelf.settle()

    def _execute(self, action: TieredAction) -> None:
        if isinstance(action, Store):
            self._store(action)
        elif isinstance(action, Fetch):
            self._fetch(action)
        elif isinstance(action, Discard):
            self._shelf(action.tier).discard(action.state)
        elif isinstance(action, Move):
            self._move(action.first, action.last)
        else:
            if isinstance(action, Free):
                self._wait_before_free(action.state)
            super()._execute(action)

    def _store(self, action: Store) -> None:
        state = self._checkpoints.get(action.state)
        if state is None:
            raise PlanMismatch(f"store {action.state} {action.tier}: x_{action.state} is not a checkpoint")
        self._wait_until_there(action.state)
        written = self._shelf(action.tier).store(action.state, state, self._kept)
        self._leaving.setdefault(action.state, []).append(written)

    def _fetch(self, action: Fetch) -> None:
        if action.state in self._checkpoints:
            raise PlanMismatch(f"fetch {action.state} {action.tier}: x_{action.state} is stored already")
        state, self._arriving[action.state] = self._shelf(action.tier).fetch(action.state)
        self._checkpoints[action.state] = state

    def _move(self, first: int, last: int) -> None:
        self._advance(first, first)
        self._execute(Free(first - 1))
        if first < last:
            self._passing = first
            self._advance(first + 1, last)

    def _state(self, index: int) -> StoredState:
        self._wait_until_there(index)
        if index and index == self._passing:
            self._passing = 0
            return self._checkpoints.pop(index)
        return super()._state(index)

    def _wait_until_there(self, index: int) -> None:
        arriving = self._arriving.pop(index, None)
        if arriving is not None:
            arriving.wait()

    def _wait_before_free(self, index: int) -> None:
        self._wait_until_there(index)
        for transfer in self._leaving.pop(index, ()):
            transfer.wait()

    def _shelf(self, tier: str) -> Shelf:
        shelf = self._shelves.get(tier)
        if shelf is None:
            raise PlanMismatch(f"there is no tier {tier!r} in this plan, only {sorted(self._shelves)}")
        return shelf
