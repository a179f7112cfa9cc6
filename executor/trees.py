"""States, inputs and outputs as flat tuples of leaves.

A state may be a tensor, a flat tuple of tensors or any pytree (dicts, lists, named tuples, with
integers and None as leaves). The first two, nearly every real case, cost nothing to flatten; the rest
goes through `torch.utils._pytree`, which is several microseconds per step.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Protocol, TypeGuard

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from executor.errors import StateChanged

Leaves = tuple[Any, ...]
"""The leaves of a tree in order: tensors, numbers, None."""


class Structure(Protocol):
    """How a tree is put together; turns trees of this structure into leaves and back."""

    def flatten(self, tree: Any) -> Leaves:
        """The leaves of `tree`. Raises StateChanged when it has another structure."""
        ...

    def unflatten(self, leaves: Leaves) -> Any:
        """The tree of `leaves`."""
        ...


class _Single:
    """One leaf that is the whole tree."""

    def flatten(self, tree: Any) -> Leaves:
        if not isinstance(tree, Tensor):
            raise StateChanged(f"a single tensor is expected, not a {type(tree).__name__}")
        return (tree,)

    def unflatten(self, leaves: Leaves) -> Any:
        return leaves[0]


class _Flat:
    """A plain tuple of tensors: its own leaves."""

    def __init__(self, size: int) -> None:
        self._size = size

    def flatten(self, tree: Any) -> Leaves:
        if type(tree) is not tuple or len(tree) != self._size:
            raise StateChanged(f"a tuple of {self._size} tensors is expected, not {_outline(tree)}")
        return tree

    def unflatten(self, leaves: Leaves) -> Any:
        return tuple(leaves)


class _Tree:
    """Any other pytree."""

    def __init__(self, spec: pytree.TreeSpec) -> None:
        self._spec = spec

    def flatten(self, tree: Any) -> Leaves:
        leaves, spec = pytree.tree_flatten(tree)
        if spec != self._spec:
            raise StateChanged(_other_tree(self._spec, tree, spec))
        return tuple(leaves)

    def unflatten(self, leaves: Leaves) -> Any:
        return pytree.tree_unflatten(list(leaves), self._spec)


def structure_of(tree: Any) -> tuple[Structure, Leaves]:
    """The structure of `tree` and its leaves."""
    if isinstance(tree, Tensor):
        return _Single(), (tree,)
    if type(tree) is tuple and tree and all(isinstance(leaf, Tensor) for leaf in tree):
        return _Flat(len(tree)), tree
    leaves, spec = pytree.tree_flatten(tree)
    return _Tree(spec), tuple(leaves)


def leaf_description(leaf: Any) -> tuple[Any, ...]:
    """What must not change from step to step: shape, dtype and device of a tensor, else the type."""
    if isinstance(leaf, Tensor):
        return (tuple(leaf.shape), leaf.dtype, leaf.device)
    return (type(leaf),)


def is_continuous(leaf: Any) -> TypeGuard[Tensor]:
    """Whether a leaf is a tensor of numbers that can have a gradient: floating ones, complex ones."""
    return isinstance(leaf, Tensor) and (leaf.is_floating_point() or leaf.is_complex())


def detached(leaves: Iterable[Any]) -> Leaves:
    """The leaves without their graphs."""
    return tuple(leaf.detach() if isinstance(leaf, Tensor) else leaf for leaf in leaves)


def ungraphed(leaves: Leaves) -> Leaves:
    """`detached` leaves where any has a graph; else `leaves` themselves."""
    has_graph = any(isinstance(leaf, Tensor) and leaf.requires_grad for leaf in leaves)
    return detached(leaves) if has_graph else leaves


def cut(leaves: Leaves) -> Leaves:
    """The leaves without their graphs, in need of a gradient where they were and gradients are enabled."""
    without = ungraphed(leaves)
    if without is not leaves and torch.is_grad_enabled():
        for leaf, before in zip(without, leaves, strict=True):
            if isinstance(leaf, Tensor):
                leaf.requires_grad_(before.requires_grad)
    return without


def versions_of(leaves: Iterable[Any]) -> list[int]:
    """Autograd's version counters of the tensors among `leaves`: they move with in-place changes."""
    return [version_of(leaf) for leaf in leaves if isinstance(leaf, Tensor)]


def version_of(tensor: Tensor) -> int:
    """Autograd's version counter; 0 of a tensor made in inference mode, which has none."""
    return 0 if tensor.is_inference() else tensor._version


def _outline(tree: Any) -> str:
    if type(tree) is tuple:
        return f"a tuple of {len(tree)}"
    return f"a {type(tree).__name__}"


def _other_tree(expected: pytree.TreeSpec, found: Any, spec: pytree.TreeSpec) -> str:
    """Says that a tree is not put together as `expected`; modules that make their first state themselves are
    handed a single leaf, None, for it.
    """
    if expected.is_leaf():
        return (
            f"a single value that is no tensor, such as None, is expected, not {_outline(found)}: begin with "
            "a state of the structure that steps return (where they make it from None themselves, zeros in "
            "the shapes of what one step returns)"
        )
    return f"a tree like {expected} is expected, not {spec}"
