"""Weights that `torch.nn.utils.parametrize.cached()` computes once for all steps: they are computed before
the loop, which captures them.

Computed inside of it, each would be computed once per tape: spectral norms would have moved on, and weights
with dropout would be others in every tape.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

Key = tuple[int, str]
"""Under which torch keeps a weight: the identity of its module, and its name."""


class CachedWeights:
    """What is cached when a loop begins, `used` by its modules or not."""

    def __init__(self, used: Iterable[Tensor] = (), made_for: Iterable[nn.Module] = ()) -> None:
        self._enabled = parametrize._cache_enabled  # noqa: SLF001 - no other way in
        self._kept = dict(parametrize._cache) if self._enabled else {}  # noqa: SLF001
        self.used = tuple(used)
        """The weights of the loop's modules."""
        self.made_for = tuple(made_for)
        """The modules whose weights had not been computed yet."""

    @classmethod
    def of(cls, modules: Iterable[nn.Module]) -> CachedWeights:
        """Compute those of a loop's modules that are not cached yet; but without gradients none: what is
        computed then would be taken for a constant afterwards.
        """
        if not parametrize._cache_enabled or not torch.is_grad_enabled():  # noqa: SLF001
            return cls()
        used: dict[Key, Tensor] = {}
        made_for: dict[nn.Module, None] = {}
        parts = {part: None for module in modules for part in module.modules()}
        for part in filter(parametrize.is_parametrized, parts):
            for name in part.parametrizations:  # type: ignore[union-attr]
                if (id(part), name) not in parametrize._cache:  # noqa: SLF001
                    made_for[part] = None
                used[id(part), name] = getattr(part, name)
        return cls(used.values(), made_for)

    def alone(self) -> None:
        """Let nothing be cached besides: what a tape or an advance computed belongs to it."""
        if parametrize._cache_enabled:  # noqa: SLF001
            parametrize._cache.clear()  # noqa: SLF001
            parametrize._cache.update(self._kept)  # noqa: SLF001

    @contextmanager
    def entered(self) -> Iterator[None]:
        """Within the context steps find what they found then, whether torch caches weights now or not."""
        enabled, kept = parametrize._cache_enabled, dict(parametrize._cache)  # noqa: SLF001
        parametrize._cache_enabled = self._enabled  # noqa: SLF001
        self.alone()
        try:
            yield
        finally:
            parametrize._cache_enabled = enabled  # noqa: SLF001
            parametrize._cache.clear()  # noqa: SLF001
            parametrize._cache.update(kept)  # noqa: SLF001
