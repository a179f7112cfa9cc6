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
    """Those of some modules."""

    def __init__(
        self, weights: dict[Key, Tensor] | None = None, made_for: tuple[nn.Module, ...] = ()
    ) -> None:
        self._weights = weights or {}
        self.made_for = made_for
        """The modules whose weights had not been computed yet."""

    @classmethod
    def of(cls, modules: Iterable[nn.Module]) -> CachedWeights:
        """Compute those that are not cached yet. None outside of `parametrize.cached()`; nor without
        gradients: what is computed then would be taken for a constant afterwards.
        """
        if not parametrize._cache_enabled or not torch.is_grad_enabled():  # noqa: SLF001 - no other way in
            return cls()
        weights: dict[Key, Tensor] = {}
        made_for: dict[nn.Module, None] = {}
        parts = {part: None for module in modules for part in module.modules()}
        for part in filter(parametrize.is_parametrized, parts):
            for name in part.parametrizations:  # type: ignore[union-attr]
                if (id(part), name) not in parametrize._cache:  # noqa: SLF001
                    made_for[part] = None
                weights[id(part), name] = getattr(part, name)
        return cls(weights, tuple(made_for))

    @property
    def all(self) -> tuple[Tensor, ...]:
        """The weights."""
        return tuple(self._weights.values())

    def alone(self) -> None:
        """Let nothing else be cached: what a tape or an advance computed belongs to it."""
        if parametrize._cache_enabled:  # noqa: SLF001
            parametrize._cache.clear()  # noqa: SLF001
            parametrize._cache.update(self._weights)  # noqa: SLF001

    @contextmanager
    def entered(self) -> Iterator[None]:
        """Within the context steps find them, and no others, whether torch caches weights now or not."""
        enabled, kept = parametrize._cache_enabled, dict(parametrize._cache)  # noqa: SLF001
        parametrize._cache_enabled = int(bool(self._weights))  # noqa: SLF001
        self.alone()
        try:
            yield
        finally:
            parametrize._cache_enabled = enabled  # noqa: SLF001
            parametrize._cache.clear()  # noqa: SLF001
            parametrize._cache.update(kept)  # noqa: SLF001
