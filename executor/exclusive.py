"""One thread at a time runs loops of a module, whose parameters are replaced meanwhile."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from executor.errors import ConcurrentUse

_lock = threading.Lock()
_users: dict[int, tuple[int, int]] = {}
"""Of a module's dictionary of parameters: the thread that uses it, and how many of its loops do."""


@contextmanager
def exclusively(owned: Iterable[dict[str, Any]]) -> Iterator[None]:
    """Within the context no other thread may enter with one of these dictionaries, which are alive. Raises
    ConcurrentUse when one is.
    """
    keys, me = {id(each) for each in owned}, threading.get_ident()
    with _lock:
        if any(_users.get(key, (me, 0))[0] != me for key in keys):
            raise ConcurrentUse(
                "another thread is running a loop of the same module, whose parameters are replaced while it "
                "runs: give each thread a copy of the module, or let them take turns"
            )
        for key in keys:
            _users[key] = (me, _users.get(key, (me, 0))[1] + 1)
    try:
        yield
    finally:
        with _lock:
            for key in keys:
                depth = _users.pop(key)[1] - 1
                if depth:
                    _users[key] = (me, depth)
