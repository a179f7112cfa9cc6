"""A stage: one link of a chain, with what it costs and what it occupies (docs/memory_model.md)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from planner_service.chain.errors import InvalidChain

MAXIMUM_BYTES = 2**62
"""Largest byte count of one quantity; sums of a whole chain then stay exact Python integers and
differences stay inside the solvers' 64-bit words."""

MAXIMUM_COST = 1e100
"""Largest cost of one action: sums over any chain and any recomputation then stay finite."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reversal:
    """What it takes to undo a stage: to compute x_{i-1} from x_i and the bits that the stage lost.

    Raises InvalidChain for a cost or byte count out of range.
    """

    archive_bytes: int
    """r_i: the most that the lost bits can take, in bytes. 0 for a stage that loses none."""
    undo_cost: float
    """v_i: undoing the stage, which makes its tape, and reversing it, in the chain's cost unit."""
    undo_workspace_bytes: int = 0
    """u_i: temporary bytes meanwhile, its tape included, beyond x_{i-1} and the gradients."""
    archive_cost: float | None = None
    """k_i: running the stage and keeping what is needed to undo it. None means f_i, as an advance."""
    archive_workspace_bytes: int | None = None
    """Temporary bytes meanwhile, beyond both states and what is kept. None means as in an advance."""

    def __post_init__(self) -> None:
        check_bytes("archive_bytes", self.archive_bytes)
        check_cost("undo_cost", self.undo_cost)
        check_bytes("undo_workspace_bytes", self.undo_workspace_bytes)
        if self.archive_cost is not None:
            check_cost("archive_cost", self.archive_cost)
        if self.archive_workspace_bytes is not None:
            check_bytes("archive_workspace_bytes", self.archive_workspace_bytes)


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """Costs and byte sizes of stage i, which turns state x_{i-1} into x_i.

    Raises InvalidChain for a cost that is not a number in [0, 1e100] and for byte counts that are
    not integers in [0, 2**62].
    """

    forward_cost: float
    """f_i: running the stage without a tape (advance), in the chain's cost unit."""
    taped_forward_cost: float
    """t_i: running it with a tape."""
    backward_cost: float
    """b_i: reversing it."""
    state_bytes: int
    """a_i: the state x_i, in bytes."""
    tape_bytes: int
    """e_i: what autograd keeps of the taped stage beyond its input state, x_i included, in bytes."""
    forward_workspace_bytes: int = 0
    """Temporary bytes while the stage is advanced, beyond its output state."""
    taped_forward_workspace_bytes: int = 0
    """Temporary bytes while it is taped, beyond its tape."""
    backward_workspace_bytes: int = 0
    """Temporary bytes while it is reversed, beyond the gradient of its input state."""
    gradient_bytes: int | None = None
    """g_i: the gradient of x_i, in bytes. None means a_i; 0 turns gradients off, as the papers do."""
    reversal: Reversal | None = None
    """How the stage is undone; None when it cannot be."""

    def __post_init__(self) -> None:
        for name in _COST_FIELDS:
            check_cost(name, getattr(self, name))
        for name in _BYTES_FIELDS:
            check_bytes(name, getattr(self, name))
        if self.gradient_bytes is not None:
            check_bytes("gradient_bytes", self.gradient_bytes)

    @property
    def live_gradient_bytes(self) -> int:
        """g_i with its default resolved, in bytes."""
        return self.state_bytes if self.gradient_bytes is None else self.gradient_bytes

    @property
    def archiving_cost(self) -> float:
        """k_i with its default resolved, in the chain's cost unit."""
        given = None if self.reversal is None else self.reversal.archive_cost
        return self.forward_cost if given is None else given

    @property
    def archiving_workspace_bytes(self) -> int:
        """Temporary bytes while the stage is archived, in bytes; the default resolved."""
        given = None if self.reversal is None else self.reversal.archive_workspace_bytes
        return self.forward_workspace_bytes if given is None else given


# Not looked up for every stage: a chain may have a million different ones.
_COST_FIELDS = tuple(field.name for field in fields(Stage) if field.name.endswith("_cost"))
_BYTES_FIELDS = tuple(
    field.name for field in fields(Stage) if field.name.endswith("_bytes") and field.name != "gradient_bytes"
)


def check_bytes(name: str, value: object) -> None:
    """Raise InvalidChain unless `value` is a whole number of bytes that the solvers can carry."""
    if type(value) is not int:
        raise InvalidChain(f"{name}={value!r} must be a whole number of bytes", field=name)
    if not 0 <= value <= MAXIMUM_BYTES:
        raise InvalidChain(f"{name}={value} must lie in 0..{MAXIMUM_BYTES} bytes", field=name)


def check_cost(name: str, value: object) -> None:
    """Raise InvalidChain unless `value` is a number of which a whole chain's sum stays finite."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InvalidChain(f"{name}={value!r} must be a number", field=name)
    if not 0 <= value <= MAXIMUM_COST:  # NaN fails every comparison
        raise InvalidChain(f"{name}={value} must be finite, in 0..{MAXIMUM_COST:g}", field=name)


def stage_from_record(record: Mapping[str, Any]) -> Stage:
    """The inverse of `stage_record`. Raises TypeError for fields that are none, and InvalidChain."""
    reversal = record.get("reversal")
    return Stage(**{**record, "reversal": None if reversal is None else Reversal(**reversal)})


def stage_record(stage: Stage) -> dict[str, Any]:
    """The stage as it goes over the wire: without what it does not have."""
    return asdict(stage, dict_factory=_given)


def _given(items: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    return {name: value for name, value in items if value is not None}
