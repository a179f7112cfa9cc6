"""The type of what comes in: that of the weights, which only autocast may change it to."""

from __future__ import annotations

from torch import Tensor

from executor.errors import StateChanged
from executor.surroundings.autocast import autocast_to


def in_type_of(weight: Tensor, given: Tensor, what: str) -> Tensor:
    """`given` in the type of `weight`, under autocast; elsewhere it has to have it.

    Raises StateChanged, as torch's modules refuse it; `what` names it in the message.
    """
    given = autocast_to(weight.dtype, given)
    if given.dtype == weight.dtype:
        return given
    other = f", or the layers with .to({given.dtype})" if given.is_floating_point() else ""
    raise StateChanged(
        f"{what} is {given.dtype}, the weights are {weight.dtype}: convert it with .to({weight.dtype}){other}"
    )
