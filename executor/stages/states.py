"""States between stages: what is stored of one, and how its leaves enter a new graph."""

from __future__ import annotations

from typing import Any, NamedTuple

from torch import Tensor

from executor.errors import StateMutated
from executor.replay import NOTHING, Surroundings
from executor.trees import Leaves, is_continuous


class StoredState(NamedTuple):
    """x_i: its leaves, detached, and what surrounds the step that follows it."""

    leaves: Leaves
    surroundings: Surroundings = NOTHING


def leaf_needs_gradient(leaf: Any, inside: bool) -> bool:
    """Whether a state's leaf is differentiated: every floating tensor inside the chain, and of the
    initial state what the caller wants.
    """
    if not isinstance(leaf, Tensor):
        return False
    return leaf.requires_grad or (inside and is_continuous(leaf))


def may_count(leaf: Any) -> bool:
    """Whether a part of a state may tell one step from another: a number, or one in a tensor."""
    if isinstance(leaf, Tensor):
        return leaf.numel() == 1 and not is_continuous(leaf)
    return leaf is not None


def owned(leaves: Leaves) -> Leaves:
    """The leaves, copied where they are views that would keep a larger storage alive."""
    tensors = [leaf for leaf in leaves if isinstance(leaf, Tensor)]
    storages = {leaf.untyped_storage().data_ptr(): leaf.untyped_storage().nbytes() for leaf in tensors}
    if sum(storages.values()) <= sum(leaf.nbytes for leaf in tensors):
        return leaves
    return tuple(leaf.clone() if isinstance(leaf, Tensor) else leaf for leaf in leaves)


def raise_mutated(stage: int) -> None:
    """Refuse a step that wrote into the state, or the inputs, that it was given."""
    raise StateMutated(
        f"the step changed its input state or its inputs in place (stage {stage}): what is stored, and what "
        "the step reads when it runs again, would no longer be what it was; make new tensors (h = h + … "
        "instead of h += …)"
    )


def leaf_of(leaf: Any, inside: bool) -> Any:
    """A state's leaf as the leaf of a new graph."""
    if not isinstance(leaf, Tensor):
        return leaf
    return leaf.detach().requires_grad_(leaf_needs_gradient(leaf, inside))
