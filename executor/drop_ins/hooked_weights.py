"""Weights that torch's older functions compute before each call of a module: pruned ones, and those of the
weight_norm and spectral_norm that came before parametrizations.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn
from torch.nn.utils.prune import BasePruningMethod

_OWNER = "torch.nn.utils."


def renew_hooked_weights(module: nn.Module) -> None:
    """Have them computed for a method that is called instead of the module: they would be those of the last
    call, of before an optimizer's step. Hooks of anybody else are about calls, and are not run.
    """
    for hook in _hooks(module):
        hook(module, ())


def hooked_weight_names(module: nn.Module) -> list[str]:
    """Under which of its names `module` has such weights."""
    return [
        hook._tensor_name if isinstance(hook, BasePruningMethod) else hook.name  # noqa: SLF001 - no public name
        for hook in _hooks(module)
    ]


@contextmanager
def hooked_weights_put_back(module: nn.Module) -> Iterator[None]:
    """Afterwards they are the tensors that they were."""
    before = {name: getattr(module, name) for name in hooked_weight_names(module)}
    try:
        yield
    finally:
        for name, weight in before.items():
            setattr(module, name, weight)


def _hooks(module: nn.Module) -> list[Any]:
    hooks = module._forward_pre_hooks.values()  # noqa: SLF001 - torch has no public list of them
    return [hook for hook in hooks if type(hook).__module__.startswith(_OWNER)]
