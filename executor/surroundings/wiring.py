"""How modules are put together: their parts, hooks and forward methods, as the forward pass found them."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn

from executor.surroundings.likeness import lines_of

_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
_DICTIONARIES = (
    "_modules",
    *_HOOKS,
    "_forward_hooks_with_kwargs",
    "_forward_pre_hooks_with_kwargs",
    "_forward_hooks_always_called",
)


def wiring_likeness(part: nn.Module) -> Hashable:
    """What counts of the hooks of one module, and of a forward method of its own: their lines."""
    slots = vars(part)
    hooks = [(name, lines_of(hook)) for name in _HOOKS for hook in (slots.get(name) or {}).values()]
    return (*hooks, lines_of(slots["forward"])) if "forward" in slots else tuple(hooks)


class Wiring:
    """Of some modules, with all their parts, at the time when this is made."""

    def __init__(self, modules: Iterable[nn.Module]) -> None:
        taken: set[nn.Module] = set()
        parts = [vars(part) for module in modules for _, part in module.named_modules(taken)]
        found = (part.get(name) for part in parts for name in _DICTIONARIES)
        self._dictionaries = [(slots, dict(slots)) for slots in found if isinstance(slots, dict)]
        self._forwards = [(part, part.get("forward")) for part in parts]

    @contextmanager
    def restored(self) -> Iterator[None]:
        """Within the context they are put together as they were then: a hook that was removed since, or a
        part that was replaced, is there when steps run again.
        """
        others = [(slots, then, dict(slots)) for slots, then in self._dictionaries if slots != then]
        forwards = [(part, then, part.get("forward")) for part, then in self._forwards]
        forwards = [each for each in forwards if each[1] is not each[2]]
        try:
            for slots, then, _ in others:
                _put(slots, then)
            for part, forward, _ in forwards:
                _put_forward(part, forward)
            yield
        finally:
            for slots, _, now in others:
                _put(slots, now)
            for part, _, forward in forwards:
                _put_forward(part, forward)


def _put(slots: dict[Any, Any], entries: dict[Any, Any]) -> None:
    slots.clear()
    slots.update(entries)


def _put_forward(part: dict[str, Any], forward: Any) -> None:
    if forward is None:
        part.pop("forward", None)
    else:
        part["forward"] = forward
