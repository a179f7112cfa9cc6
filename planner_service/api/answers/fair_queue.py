"""What waits for a thread. Callers take turns: nobody waits for all that somebody else has asked for."""

from __future__ import annotations

from collections import OrderedDict, deque
from typing import Generic, TypeVar

Item = TypeVar("Item")


class FairQueue(Generic[Item]):
    """One after another of each caller's items, in the order in which the callers came. For one thread."""

    def __init__(self) -> None:
        self._waiting: OrderedDict[str, deque[Item]] = OrderedDict()

    def put(self, caller: str, item: Item) -> None:
        """Let `item` wait behind the caller's others."""
        self._waiting.setdefault(caller, deque()).append(item)

    def take(self) -> Item | None:
        """The first item of the caller whose turn it is, the last one from then on; None: nothing waits."""
        if not self._waiting:
            return None
        caller, items = self._waiting.popitem(last=False)
        item = items.popleft()
        if items:
            self._waiting[caller] = items
        return item

    def remove(self, caller: str, item: Item) -> bool:
        """Let `item` wait no longer; whether it did."""
        items = self._waiting.get(caller, deque())
        if item not in items:
            return False
        items.remove(item)
        if not items:
            del self._waiting[caller]
        return True
