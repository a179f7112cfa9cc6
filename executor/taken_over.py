"""Parameters of a torch module that a module of ours takes over."""

from __future__ import annotations

from collections.abc import Iterable

from torch import nn


def take_over_parameters(owner: nn.Module, module: nn.Module, needed: Iterable[str]) -> None:
    """Register the parameters of `module` with `owner` under the same names, tied ones under each of theirs.

    Raises TypeError where one of the `needed` names is no parameter: pruning and weight normalisation compute
    weights in hooks of the module, which stay behind.
    """
    for name, parameter in module.named_parameters(remove_duplicate=False):
        owner.register_parameter(name, parameter)
    for name in needed:
        if name not in owner._parameters:
            made, given = type(owner).__name__, type(module).__name__
            raise TypeError(
                f"{name} of the {given} is computed by a hook (pruned, or normed) and no parameter: prune or "
                f"norm the {made} in place of the {given}, or make it permanent first (prune.remove)"
            )
