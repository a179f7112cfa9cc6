"""Weights of a module that are computed anew for each call: normed, pruned, or dropped, by parametrizations
or by the hooks that torch had before these.

They are made, and differentiated, outside of the loop that uses them, where no plan counts.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from contextlib import contextmanager
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from executor.drop_ins.hooked_weights import (
    hooked_weight_names,
    hooked_weights_put_back,
    renew_hooked_weights,
)
from executor.measure import measure
from executor.memory.sizes import held_bytes
from executor.memory.trace import paused
from executor.replay import recomputing
from executor.rules.saved_tensor_hooks import without_saved_tensor_hooks
from executor.stages.parameters import Parameters
from executor.surroundings.buffers import Buffers, untouched
from executor.surroundings.seen import Seen
from executor.surroundings.streams import ambient_generators

_measured: WeakKeyDictionary[nn.Module, tuple[Hashable, int]] = WeakKeyDictionary()


def computing_bytes(module: nn.Module) -> int:
    """What computing such weights of `module` itself and differentiating them adds at its peak,
    in bytes, beside the gradients of the computed weights, which are the loop's business; 0 where there are
    none.

    Measured when sizes, types or modes are new: they are computed once more then, on streams and buffers
    that are put back.
    """
    if not parametrize.is_parametrized(module) and not hooked_weight_names(module):
        return 0
    likeness = _likeness(module)
    found = _measured.get(module)
    if found is None or found[0] != likeness:
        found = _measured[module] = (likeness, _measured_bytes(module))
    return found[1]


def _likeness(module: nn.Module) -> Hashable:
    parameters = tuple(
        (each.shape, each.dtype, each.device, each.requires_grad) for each in module.parameters()
    )
    parts = tuple((type(part), part.training) for part in module.modules())
    return (
        parameters,
        parts,
        tuple(hooked_weight_names(module)),
        torch.is_autocast_enabled("cpu"),
        torch.is_autocast_enabled("cuda"),
    )


def _measured_bytes(module: nn.Module) -> int:
    parametrizations: nn.Module = getattr(module, "parametrizations", nn.ModuleDict())
    weights = [*(name for name, _ in parametrizations.named_children()), *hooked_weight_names(module)]
    seen = Seen.by((parametrizations,), (parametrizations,))
    parameters = Parameters((module,))
    streams = [*ambient_generators(list(module.parameters())), *seen.generators, *seen.streams]

    def computed() -> list[Tensor]:
        renew_hooked_weights(module)
        return [getattr(module, name) for name in weights]

    def differentiated() -> int:
        roots = [each for each in computed() if each.requires_grad]
        gradients = [torch.ones_like(each) for each in roots]
        if roots:
            torch.autograd.grad(roots, parameters.shadows, gradients, allow_unused=True)
        return sum(held_bytes(each) for each in gradients)

    with (
        paused(),
        without_saved_tensor_hooks(),
        recomputing(),
        untouched(Buffers((module, *seen.modules)), streams),
        hooked_weights_put_back(module),
        _uncached(),
        parameters.swapped(),
        torch.enable_grad(),
    ):
        device = next(module.parameters()).device
        forward, both = measure(computed, device=device), measure(differentiated, device=device)
        return max(forward.peak_bytes, both.peak_bytes - both.result)


@contextmanager
def _uncached() -> Iterator[None]:
    """Within the context `parametrize.cached()` neither gives nor keeps weights."""
    enabled, kept = parametrize._cache_enabled, dict(parametrize._cache)  # noqa: SLF001 - no other way in
    parametrize._cache_enabled = 0  # noqa: SLF001
    try:
        yield
    finally:
        parametrize._cache_enabled = enabled  # noqa: SLF001
        parametrize._cache.update(kept)  # noqa: SLF001
