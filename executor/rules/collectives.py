"""Steps that exchange numbers with other processes, which run theirs again at other times or not at all."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch.utils._python_dispatch import TorchDispatchMode

from executor.errors import UnsupportedCollective

_NAMESPACES = frozenset({"c10d", "_c10d_functional", "_c10d_functional_autograd"})


@contextmanager
def refusing_collectives() -> Iterator[None]:
    """Within the context UnsupportedCollective is raised in the place of an operation that takes part in an
    exchange between processes.
    """
    distributed: Any = sys.modules.get("torch.distributed")
    if distributed is None or not (distributed.is_available() and distributed.is_initialized()):
        yield
        return
    with _Refusing():  # type: ignore[no-untyped-call]
        yield


class _Refusing(TorchDispatchMode):  # type: ignore[no-untyped-call]
    def __torch_dispatch__(self, function: Any, types: Any, given: Any = (), options: Any = None) -> Any:
        if function.namespace in _NAMESPACES:
            raise UnsupportedCollective(
                f"the step calls {function.__name__.partition('.')[0].strip('_')} of torch.distributed: each "
                "process probes, plans and runs steps again by its own clock, so that what they exchange "
                "would be of different steps; exchange outside of the loop, as DistributedDataParallel does, "
                "and let each process normalise for itself"
            )
        return function(*given, **(options or {}))
