"""Shadow parameters: what the tapes see instead of the module's real ones.

A shadow shares the parameter's memory but not its hooks: inner backward passes accumulate into it, and
the real parameter gets one gradient at the end, so that its hooks (and those of DDP) fire once.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from weakref import ref

import torch
from torch import Tensor, nn
from torch.autograd.graph import increment_version

from executor.errors import ModifiedBetweenPasses
from executor.memory.sizes import storage_address
from executor.stages.exclusive import exclusively
from executor.surroundings.put_back import put_back
from executor.trees import version_of

_FLAT = ("_flat_weights", "_flat_weight_refs")
"""A recurrent module's lists of its weights, in the order of the kernels."""
_IS_SHADOW = "_is_shadow_of_tightfit"


def accumulator(parameter: Tensor) -> Tensor | None:
    """The gradient of a shadow, made of zeros if there is none yet: a backward function may add to it in
    place, and return None, instead of making a gradient that is then added. None for other tensors.
    """
    if not getattr(parameter, _IS_SHADOW, False):
        return None
    if parameter.grad is None:
        parameter.grad = _plain_zeros_like(parameter)
    increment_version(parameter.grad)
    return parameter.grad


def gradient_sum(parameter: Tensor) -> tuple[Tensor, Tensor | None]:
    """What a backward function adds the gradient of `parameter` to, and what it then returns for it: the same
    where it was made here, of zeros, and None where it is a total that the caller has already.
    """
    total = accumulator(parameter)
    if total is not None:
        return total, None
    made = _plain_zeros_like(parameter)
    return made, made


def _shadow_of(parameter: Tensor) -> Tensor:
    shadow = _twin_of(parameter, requires_grad=True)
    setattr(shadow, _IS_SHADOW, True)
    return shadow


def _twin_of(parameter: Tensor, *, requires_grad: bool) -> Tensor:
    """A leaf in the same memory, of the same class and with the same attributes: a subclass may have its say
    in what functions do with it, and steps may read what is noted on a parameter.
    """
    kind = type(parameter)
    twin = None if kind is nn.Parameter else _detached(parameter)
    if type(twin) is kind:  # a tensor that wraps others: up to torch 2.8 `_make_subclass` would fail
        twin.requires_grad_(requires_grad)
    else:
        twin = Tensor._make_subclass(kind, parameter, requires_grad)  # noqa: SLF001 - it has no public name
    vars(twin).update(vars(parameter))
    return twin


def _detached(parameter: Tensor) -> Tensor:
    with torch._C.DisableTorchFunctionSubclass():  # noqa: SLF001 - it has no public name
        return parameter.detach()


def _plain_zeros_like(parameter: Tensor) -> Tensor:
    """A gradient, which is no more than a tensor, whatever the parameter is."""
    with torch._C.DisableTorchFunctionSubclass():  # noqa: SLF001 - it has no public name
        return torch.zeros_like(parameter, requires_grad=False)


class Parameters:
    """The parameters of some modules that need a gradient, each once however often it is tied; and the frozen
    ones, which stay those of the forward pass whatever the modules hold when backward is called.
    """

    def __init__(self, modules: Iterable[nn.Module]) -> None:
        self._slots: list[tuple[dict[str, Any], str, int]] = []
        self._frozen: list[tuple[dict[str, Any], str, Tensor]] = []
        self._recurrent: list[nn.RNNBase] = []
        self.real: list[Tensor] = []
        self.names: list[str] = []
        self.has_sparse_gradients = False
        """Whether an embedding wants sparse gradients, which a dense total would not keep."""
        seen: dict[int, int] = {}
        parts = [part for module in modules for part in module.named_modules()]
        with exclusively(owner._parameters for _, owner in parts if _trains(owner)):  # they might be shadows
            for prefix, owner in parts:
                self._take(prefix, owner, seen)
        self.shadows: list[Tensor] = [_shadow_of(parameter) for parameter in self.real]
        self._versions: list[int] = []
        self._frozen_versions: list[int] = []
        self._totals: list[Tensor] = []
        self._without_gradient = list(self.shadows)
        """Shadows whose gradient has not come yet."""

    def _take(self, prefix: str, owner: nn.Module, seen: dict[int, int]) -> None:
        if isinstance(owner, nn.RNNBase):
            self._recurrent.append(owner)
        for name, parameter in owner._parameters.items():
            if parameter is None:
                continue
            if not parameter.requires_grad:
                self._frozen.append((owner._parameters, name, parameter))
                continue
            self.has_sparse_gradients |= bool(getattr(owner, "sparse", False))
            if id(parameter) not in seen:
                seen[id(parameter)] = len(self.real)
                self.real.append(parameter)
                self.names.append(f"{prefix}.{name}" if prefix else name)
            self._slots.append((owner._parameters, name, seen[id(parameter)]))

    @property
    def frozen(self) -> list[Tensor]:
        """Parameters that need no gradient, as the forward pass uses them."""
        return [tensor for _, _, tensor in self._frozen]

    @contextmanager
    def swapped(self) -> Iterator[None]:
        """Within the context the modules use the shadows, and the frozen parameters of the forward pass."""
        frozen = self._others_now()
        places = [(slots, name) for slots, name, _ in (*self._slots, *frozen)]
        with exclusively(slots for slots, _ in places), put_back(places):
            flat = [{name: vars(owner)[name] for name in _FLAT} for owner in self._recurrent]
            try:
                for slots, name, tensor in frozen:
                    slots[name] = tensor
                self._put(self.shadows)
                yield
            finally:
                for owner, lists in zip(self._recurrent, flat, strict=True):
                    vars(owner).update(lists)

    def _others_now(self) -> list[tuple[dict[str, Any], str, Tensor]]:
        """Frozen parameters of the forward pass where the modules hold others now, or would train them."""
        return [
            (slots, name, _twin_of(tensor, requires_grad=False) if tensor.requires_grad else tensor)
            for slots, name, tensor in self._frozen
            if slots.get(name) is not tensor or tensor.requires_grad
        ]

    def renewed(self) -> list[Tensor]:
        """Put new leaves in the place of the shadows, within `swapped`; they share the shadows' memory.

        With leaves of its own a step's gradients are added to the totals as soon as the step is reversed;
        with leaves for a whole tape autograd holds a second set of gradients until the tape is reversed.
        """
        leaves = [_shadow_of(shadow) for shadow in self.shadows]
        self._put(leaves)
        return leaves

    def _put(self, leaves: Sequence[Tensor]) -> None:
        """Let the modules use `leaves`. torch's recurrent modules list their weights besides; one that finds
        others than those copies them all into one new buffer on CUDA, which no plan counts.
        """
        for slots, name, index in self._slots:
            slots[name] = leaves[index]
        for owner in self._recurrent:
            weights = [getattr(owner, name, None) for name in vars(owner)["_flat_weights_names"]]
            references = [None if each is None else ref(each) for each in weights]
            vars(owner).update(zip(_FLAT, (weights, references), strict=True))

    def add_up(self, leaves: Sequence[Tensor]) -> None:
        """Let the gradients of `leaves`, one or more times `renewed`, be added to those of the shadows."""
        if not self._totals:
            self._totals = [_plain_zeros_like(shadow) for shadow in self.shadows]
            for shadow, total in zip(self.shadows, self._totals, strict=True):
                shadow.grad = total
        for leaf, total in zip(leaves, self._totals * (len(leaves) // len(self.shadows)), strict=True):
            leaf.grad = total  # autograd adds to a gradient in place

    def own_gradients(self) -> None:
        """Copy gradients that came first in a backward pass that has just ended, and are views of something
        larger, which the totals would keep alive: that of the states to which a prompt was joined, say.
        """
        fresh = [shadow for shadow in self._without_gradient if shadow.grad is not None]
        if fresh:
            self._without_gradient = [shadow for shadow in self._without_gradient if shadow.grad is None]
            for shadow, gradient in zip(fresh, _in_own_memory([each.grad for each in fresh]), strict=True):
                shadow.grad = gradient

    def remember_versions(self) -> None:
        """To be called at the end of forward."""
        self._versions = [version_of(parameter) for parameter in self.real]
        self._frozen_versions = [version_of(parameter) for _, _, parameter in self._frozen]

    def require_unchanged(self) -> None:
        """Raise ModifiedBetweenPasses when a parameter changed since `remember_versions`."""
        for name, parameter, version in zip(self.names, self.real, self._versions, strict=True):
            if version_of(parameter) != version:
                raise ModifiedBetweenPasses(
                    f"parameter {name} was changed in place between forward and backward: recomputation "
                    "would use other weights; run backward before the optimizer's step, or, where the step "
                    "does not use it, name in module= only modules that it uses"
                )

    def require_frozen_unchanged(self) -> None:
        """The same for parameters that need no gradient, which matter where steps run again."""
        for (_, name, parameter), version in zip(self._frozen, self._frozen_versions, strict=True):
            if version_of(parameter) != version:
                raise ModifiedBetweenPasses(
                    f"frozen parameter {name} was changed in place between forward and backward: "
                    "recomputation would use other weights; change it after backward"
                )

    def take_gradients(self) -> list[Tensor | None]:
        """The accumulated gradients, handed over: no reference stays here, so nothing is copied."""
        gradients = [shadow.grad for shadow in self.shadows]
        if self._totals:  # what nothing was ever added to belongs to a parameter that is not used
            gradients = [total if total._version else None for total in self._totals]
        self._totals = []
        for shadow in self.shadows:
            shadow.grad = None
        return gradients


def _trains(owner: nn.Module) -> bool:
    """Whether any parameter of the module itself needs a gradient."""
    return any(each is not None and each.requires_grad for each in owner._parameters.values())


def _in_own_memory(gradients: Sequence[Any]) -> list[Tensor]:
    """Those that together are all of the memory that they lie in; copies of the others."""
    placed = [(gradient, storage_address(gradient)) for gradient in gradients]  # None of a sparse one
    used: Counter[int] = Counter()
    for gradient, address in placed:
        if address is not None:
            used[address] += gradient.nbytes
    return [
        gradient
        if address is None or gradient.untyped_storage().nbytes() <= used[address]
        else gradient.clone()
        for gradient, address in placed
    ]
