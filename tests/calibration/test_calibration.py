"""Calibrated bytes never undershoot what they were calibrated on, and say how sure they are."""

from hypothesis import given
from hypothesis import strategies as st

from planner_service.calibration import (
    estimated_profile,
    family_ratios,
    stage_errors,
    workload_of,
)
from planner_service.chain import segmented_chain, simulate
from planner_service.memory import total_bytes
from planner_service.solvers import solve
from tests.calibration.profiles import SIZES, profiles


def chain_of(profile, segments):
    """The chain of a profile at one segment length, without its caller's bytes."""
    count = -(-profile.sequence_length // segments.segment_steps)
    return segmented_chain(
        segments.inner,
        count,
        first=segments.first,
        last=segments.last,
        static_bytes=total_bytes(profile.static),
        loss_gradient_bytes=0,
    )


@given(st.lists(profiles, min_size=1, max_size=6))
def test_an_estimate_never_undershoots_the_stages_it_was_made_from(measured):
    """Every quantity of every measured model, at every segment length"""
    ratios = family_ratios(measured)
    for profile in measured:
        estimate = estimated_profile(workload_of(profile), ratios, like=measured[0])
        assert total_bytes(estimate.static) >= total_bytes(profile.static)
        for seen, bound in zip(profile.segments, estimate.segments, strict=True):
            for name in ("state_bytes", *SIZES):
                assert getattr(bound.inner, name) >= getattr(seen.inner, name)
        for error in stage_errors(profile, measured):
            assert error.estimated_bytes >= error.measured_bytes


@given(st.lists(profiles, min_size=1, max_size=4), st.floats(0, 1))
def test_an_estimated_plan_never_projects_less_than_the_measured_stages_need(measured, share):
    """The plan of an estimate, replayed on the very stages that were measured: its peak is below"""
    profile = measured[0]
    estimate = estimated_profile(workload_of(profile), family_ratios(measured), like=profile)
    seen, bound = profile.segments[-1], estimate.segments[-1]
    chain = chain_of(estimate, bound)
    everything = simulate(chain, solve(chain, 2**50).policy_schedule()) if False else None
    assert everything is None
    least = least_budget(chain)
    solution = solve(chain, least + int(share * least))
    assert simulate(chain_of(profile, seen), schedule(solution)).peak_bytes <= solution.verdict.peak_bytes
