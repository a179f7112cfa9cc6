"""What reversible modules refuse before they begin: arguments, types, inputs, states and targets."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from executor.drop_ins.given_state import parts_of_state
from executor.errors import StateChanged
from executor.reversible.errors import InvalidReversible
from executor.reversible.trajectory import Coding
from executor.rules.first_order import require_reverse_mode
from executor.rules.own_memory import require_values
from executor.surroundings.autocast import autocast_to

TYPES = (torch.float32, torch.float64)


def require_sizes(*, input_size: int, hidden_size: int, num_layers: int, segment_steps: int) -> None:
    """Raises InvalidReversible for a size that is no whole number of at least 1, and an odd hidden size."""
    sizes = {
        "input_size": input_size,
        "hidden_size": hidden_size,
        "num_layers": num_layers,
        "segment_steps": segment_steps,
    }
    for name, size in sizes.items():
        if isinstance(size, bool) or not isinstance(size, int):
            raise InvalidReversible(f"{name}={size!r} must be a whole number")
        if size < 1:
            raise InvalidReversible(f"{name}={size} must be at least 1")
    if hidden_size % 2:
        raise InvalidReversible(
            f"hidden_size={hidden_size} must be even: a reversible state is split in two halves"
        )


def require_choices(*, dropout: object, coding: Coding, dtype: torch.dtype | None) -> None:
    """Raises InvalidReversible."""
    if isinstance(dropout, bool) or not isinstance(dropout, int | float) or not 0 <= dropout < 1:
        raise InvalidReversible(f"dropout={dropout!r} must be a number in [0, 1)")
    if coding not in ("entropy", "scheduled"):
        raise InvalidReversible(f'coding={coding!r} must be "entropy" or "scheduled"')
    dtype = dtype or torch.get_default_dtype()
    if dtype not in TYPES:
        raise InvalidReversible(f"dtype={dtype} must be float32 or float64")


def require_type(weight: Tensor) -> None:
    """Raises InvalidReversible for a module that was converted to a type of less than 32 bits."""
    if weight.dtype not in TYPES:
        raise InvalidReversible(
            f"the parameters are {weight.dtype}, and must be float32 or float64: gates of fewer bits are not "
            "computed; convert these layers back with .float(), they keep their type under autocast"
        )


def accepted_input(x: Tensor, *, dtype: torch.dtype, input_size: int) -> Tensor:
    """The input in `dtype`, that of the weights, to which autocast casts it.

    Raises InvalidReversible for what is not [steps, batch, input_size] of that type.
    """
    require_tensor(x)
    x = autocast_to(dtype, x)
    if x.dim() != 3 or x.shape[2] != input_size or x.dtype != dtype or not x.numel():
        raise InvalidReversible(
            f"inputs are {x.dtype} {list(x.shape)}; these layers need {dtype} "
            f"[steps, batch, {input_size}], at least one step and one row"
        )
    return x


def accepted_state(given: object, names: Sequence[str], *, like: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """The parts of a state called `names` in the type of the weights, to which autocast casts them.

    Raises StateChanged for parts that are not `like` those of these layers.
    """
    state = tuple(autocast_to(like[0].dtype, part) for part in parts_of_state(given, names))
    for part, expected in zip(state, like, strict=True):
        if part.shape != expected.shape or part.dtype != expected.dtype:
            raise StateChanged(
                f"a part of the state ({', '.join(names)}) is {part.dtype} {list(part.shape)}; "
                f"these layers need {expected.dtype} {list(expected.shape)}"
            )
    return state


def require_ordinary(tensors: Iterable[Tensor]) -> None:
    """Raises UnsupportedTransform inside a transform of torch.func and for tangents of forward mode,
    TypeError for tensors without values.
    """
    given = tuple(tensors)
    require_reverse_mode(given, "a reversible layer")
    require_values(given, "a reversible layer")


def require_tensor(inputs: object) -> None:
    """Raises InvalidReversible for packed sequences, lists and whatever else is no tensor."""
    if not isinstance(inputs, Tensor):
        raise InvalidReversible(
            f"inputs are a {type(inputs).__name__}; these layers need a tensor, time first: pad packed "
            "sequences and leave the padded steps out of the loss"
        )


def require_steps(inputs: Tensor) -> None:
    """Raises InvalidReversible for what is not [steps, batch, …] of at least one step and one row."""
    require_tensor(inputs)
    if inputs.dim() < 2 or not inputs.numel():
        raise InvalidReversible(
            f"inputs are {list(inputs.shape)}, and must be [steps, batch, …], at least one step and one row"
        )


def require_targets(inputs: Tensor, targets: object, *, has_budget: bool) -> None:
    """Raises InvalidReversible for targets that are no tensor of as many steps, or would lose a gradient."""
    require_tensor(inputs)
    if not isinstance(targets, Tensor) or not targets.dim():
        given = "one number" if isinstance(targets, Tensor) else f"of type {type(targets).__name__}"
        raise InvalidReversible(f"targets are {given}, and must be a tensor, time first: stack several")
    if len(targets) != len(inputs):
        raise InvalidReversible(f"{len(inputs)} steps of inputs meet {len(targets)} steps of targets")
    if targets.requires_grad and torch.is_grad_enabled() and not has_budget:
        raise InvalidReversible(
            "the targets need a gradient, which only layers with a budget compute: detach them or set one"
        )
