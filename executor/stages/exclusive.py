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
    # A thread of autograd's works for one that waits, and may hold them.
    is_autograds = isinstance(threading.current_thread(), threading._DummyThread)  # noqa: SLF001
    with _lock:
        if not is_autograds and any(_users.get(key, (me, 0))[0] != me for key in keys):
            raise ConcurrentUse(
                "another thread is running a loop of the same module, whose parameters are replaced while it "
                "runs: give each thread a copy of the module, or let them take turns"
            )
        for key in keys:
            user, depth = _users.get(key, (me, 0))
            _users[key] = (user, depth + 1)
    try:
        yield
    finally:
        with _lock:
            for key in keys:
                user, depth = _users.pop(key)
                if depth > 1:
                    _users[key] = (user, depth - 1)
