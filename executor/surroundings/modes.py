"""Whether modules train: what the forward pass found, for steps that run again."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from torch import nn

from executor.surroundings.wiring import Wiring


class Modes:
    """Which parts of some modules train, and how these are put together."""

    def __init__(self, modules: Iterable[nn.Module]) -> None:
        modules = tuple(modules)
        self._wiring = Wiring(modules)
        taken: set[nn.Module] = set()
        parts = (part for module in modules for _, part in module.named_modules(taken))
        self._flags = [(part, part.training) for part in parts]

    @contextmanager
    def restored(self) -> Iterator[None]:
        """Within the context they train, or not, and have the parts and hooks that they had when this was
        made.
        """
        changed = [(part, then) for part, then in self._flags if part.training != then]
        for part, then in changed:
            part.training = then
        try:
            with self._wiring.restored():
                yield
        finally:
            for part, then in changed:
                part.training = not then
