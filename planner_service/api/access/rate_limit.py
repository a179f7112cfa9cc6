"""How often one caller may ask: a bucket of tokens for each, in this process."""

from __future__ import annotations

from collections import OrderedDict

MOST_CALLERS = 10_000
"""Buckets kept; a caller that was forgotten starts with a full one, as after a long silence."""


class RateLimit:
    """Admits `rate_per_second` requests a second of each caller, and two seconds' worth at once.

    Not for several threads.
    """

    def __init__(self, rate_per_second: float) -> None:
        """`rate_per_second` 0: no limit."""
        self._rate = rate_per_second
        self._most = max(1.0, 2 * rate_per_second)
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def wait_seconds(self, caller: str, now: float) -> float:
        """Take one token; 0, or the seconds until there is one. `now` is of a monotonic clock."""
        if not self._rate:
            return 0.0
        tokens, since = self._buckets.pop(caller, (self._most, now))
        tokens = min(self._most, tokens + (now - since) * self._rate)
        is_admitted = tokens >= 1
        self._buckets[caller] = (tokens - 1 if is_admitted else tokens, now)
        if len(self._buckets) > MOST_CALLERS:
            self._buckets.popitem(last=False)
        return 0.0 if is_admitted else (1 - tokens) / self._rate
