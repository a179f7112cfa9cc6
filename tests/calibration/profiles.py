"""Strategies: profiles of models as a probe might have measured them."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from planner_service.calibration.stage_ratios import computed_stage
from planner_service.chain import Stage, segment_sizes
from planner_service.memory import LedgerLine, Profile, RecurrentModel, Workload
from planner_service.memory.profile import ProfiledSegments

SIZES = ("tape_bytes", "forward_workspace_bytes", "taped_forward_workspace_bytes", "backward_workspace_bytes")
LENGTHS = (1, 5, 10)


def workload(hidden_size: int, batch_size: int, length: int) -> Workload:
    """A GRU with an embedding and a head."""
    model = RecurrentModel(
        cell_kind="gru",
        input_size=8,
        hidden_size=hidden_size,
        num_layers=1,
        dtype="float32",
        embedding_size=20,
        head_output_size=20,
    )
    return Workload(
        model=model,
        sequence_length=length,
        batch_size=batch_size,
        optimizer="sgd",
        loss="inside",
        device="cpu",
    )


def profile_of(asked: Workload, factors: dict[str, float], *, static_bytes: int) -> Profile:
    """A profile whose stages are the computed ones times `factors`."""
    model = asked.model
    return Profile(
        **_unused(),
        source="probe",
        device="cpu",
        torch="2.13.0",
        cell=model.cell_kind,
        implementation="steps",
        dtype=model.dtype,
        input_size=model.input_size,
        hidden_size=model.hidden_size,
        num_layers=1,
        batch_size=asked.batch_size,
        embedding_size=model.embedding_size,
        head_output_size=model.head_output_size,
        sequence_length=asked.sequence_length,
        loss="inside",
        cost_unit="seconds",
        input_bytes=0,
        input_gradient_bytes=None,
        loss_gradient_bytes=0,
        static=(LedgerLine("everything", static_bytes, "", "exact"),),
        segments=tuple(_segments(asked, steps, factors) for steps in LENGTHS),
    )


def _unused() -> dict[str, Any]:
    """Fields of other cells, where profiles have them."""
    others = ("forget_bits", "coding")
    return {name: None for name in others if name in Profile.__dataclass_fields__}


def _segments(asked: Workload, steps: int, factors: dict[str, float]) -> ProfiledSegments:
    _, last_steps = segment_sizes(asked.sequence_length, steps)
    return ProfiledSegments(steps, last_steps, _stage(asked, steps, factors), None, None)


def _stage(asked: Workload, steps: int, factors: dict[str, float]) -> Stage:
    computed = computed_stage(asked, steps)
    sizes = {name: int(getattr(computed, name) * factors[name]) for name in SIZES}
    return Stage(
        forward_cost=steps,
        taped_forward_cost=steps,
        backward_cost=2 * steps,
        state_bytes=computed.state_bytes,
        **sizes,
    )


workloads = st.builds(
    workload,
    hidden_size=st.integers(1, 300),
    batch_size=st.integers(1, 40),
    length=st.integers(10, 60),
)
profiles = st.builds(
    lambda asked, factors, static: profile_of(asked, factors, static_bytes=static),
    workloads,
    st.fixed_dictionaries({name: st.floats(0.1, 3) for name in SIZES}),
    st.integers(0, 2**20),
)
