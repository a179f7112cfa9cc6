"""Tensors whose bytes no plan can count: those that have no values, and those that wrap other tensors."""

from __future__ import annotations

from collections.abc import Iterable

from torch import Tensor, nn

from executor.memory.sizes import storage_address

_USUAL = frozenset({Tensor, nn.Parameter})
_REMEDIES = {
    "DTensor": "pass what to_local() gives; where fully_shard cut a parameter, cut the module that calls the "
    "loop instead, in whose forward parameters are whole, and none that a step calls"
}
"""By the name of a class, so that torch's distributed part need not be loaded."""


def require_values(tensors: Iterable[Tensor | None], what: str | None = None) -> None:
    """Raise TypeError for a tensor on the meta device or of a FakeTensorMode: a step is measured by running
    it, and there is nothing that it could be run on. `what` is named in the message where it is no step, but
    a layer that goes by values, or whose kernels are given addresses.
    """
    for tensor in tensors:
        if tensor is not None and (tensor.is_meta or (type(tensor) not in _USUAL and _is_fake(tensor))):
            kind = "a tensor on the meta device" if tensor.is_meta else f"a {type(tensor).__name__}"
            move = "move the model to a device first (module.to_empty(device=…))"
            if what is not None:
                raise TypeError(f"{kind} has no values, and {what} computes with them alone: {move}")
            raise TypeError(
                f"{kind} has no values, so the step cannot be run to learn what it needs: {move}, or ask for "
                "shapes under torch.no_grad(), where nothing is planned"
            )


def require_unwrapped(tensors: Iterable[Tensor]) -> None:
    """Raise TypeError for a tensor that wraps others, such as a DTensor or a MaskedTensor: its memory is
    theirs, and nobody says which part of it one step shares with the next.
    """
    for tensor in tensors:
        if type(tensor) not in _USUAL and wraps(tensor):
            kind = type(tensor).__name__
            remedy = _REMEDIES.get(kind, "pass the tensors in it and put them together in the step")
            raise TypeError(f"a {kind} has no memory of its own that a plan could count: {remedy}")


def wraps(tensor: Tensor) -> bool:
    """Whether a tensor has no memory, but other tensors that have. Fake ones warn when asked for an
    address.
    """
    return not _is_fake(tensor) and storage_address(tensor) is None


def _is_fake(tensor: Tensor) -> bool:
    try:
        return tensor.untyped_storage().device.type == "meta"
    except RuntimeError:
        return False
