"""Weights that torch's older functions compute before each call of a module: pruned ones, and those of the
weight_norm and spectral_norm that came before parametrizations.
"""

from __future__ import annotations

from torch import nn

_OWNER = "torch.nn.utils."


def renew_hooked_weights(module: nn.Module) -> None:
    """Have them computed for a method that is called instead of the module: they would be those of the last
    call, of before an optimizer's step. Hooks of anybody else are about calls, and are not run.
    """
    for hook in module._forward_pre_hooks.values():  # noqa: SLF001 - torch has no public list of them
        if type(hook).__module__.startswith(_OWNER):
            hook(module, ())
