"""Calls into the database from the event loop: in threads of their own, and never awaited without end.

A database that hangs keeps the threads that ask it until the limits of `store.postgresql` free them. They are
not the threads that plans are made and bodies are read in, and who waits for one is answered in time.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import ParamSpec, TypeVar

from planner_service.api.errors import StorageStalled

THREADS = 24
ANSWER_SECONDS = 8.0
"""Less than workers wait for an answer, so that they hear the refusal."""

_threads = ThreadPoolExecutor(THREADS, thread_name_prefix="store")

Asked = ParamSpec("Asked")
Answer = TypeVar("Answer")


async def stored(call: Callable[Asked, Answer], *args: Asked.args, **kwargs: Asked.kwargs) -> Answer:
    """What `call(*args, **kwargs)` gives. Raises StorageStalled after ANSWER_SECONDS, and what it raises."""
    return await within(ANSWER_SECONDS, lambda: call(*args, **kwargs))


async def within(seconds: float, call: Callable[[], Answer]) -> Answer:
    """What `call()` gives within `seconds`; one that has not begun by then never will.

    Raises StorageStalled, and what the call raises.
    """
    context = contextvars.copy_context()
    begun = asyncio.get_running_loop().run_in_executor(_threads, context.run, call)
    await asyncio.wait({begun}, timeout=seconds)
    if not begun.done():
        begun.cancel()
        raise StorageStalled
    return begun.result()
