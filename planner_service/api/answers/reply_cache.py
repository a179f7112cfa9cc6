"""Answers ready to send, the least recently used dropped first."""

from __future__ import annotations

from collections import OrderedDict


class ReplyCache:
    """Replies by the id of their question, at most `capacity_bytes` of them. For the event loop's thread."""

    def __init__(self, capacity_bytes: int) -> None:
        self._capacity_bytes = capacity_bytes
        self._replies: OrderedDict[str, bytes] = OrderedDict()
        self.used_bytes = 0
        self.hits = 0
        self.misses = 0

    def __contains__(self, question_id: str) -> bool:
        return question_id in self._replies

    def get(self, question_id: str) -> bytes | None:
        """The reply, or None."""
        reply = self._replies.get(question_id)
        if reply is None:
            self.misses += 1
        else:
            self.hits += 1
            self._replies.move_to_end(question_id)
        return reply

    def put(self, question_id: str, reply: bytes) -> None:
        """Keep `reply`, unless it alone is over the capacity."""
        if question_id in self._replies or len(reply) > self._capacity_bytes:
            return
        self._replies[question_id] = reply
        self.used_bytes += len(reply)
        while self.used_bytes > self._capacity_bytes:
            _, dropped = self._replies.popitem(last=False)
            self.used_bytes -= len(dropped)

    def clear(self) -> None:
        """Keep nothing of what there is."""
        self._replies.clear()
        self.used_bytes = 0
