"""Calibrated bytes never undershoot what they were calibrated on, and say how sure they are."""

import random
from dataclasses import replace
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from planner_service.calibration import (
    Coverage,
    PeakResidual,
    estimated_profile,
    family_ratios,
    margins_of,
    stage_errors,
    stage_ratios,
    with_margins,
    workload_of,
)
from planner_service.calibration.margins import MOST_RATIO
from planner_service.chain import (
    EMPTY,
    ArchiveNode,
    BudgetTooSmall,
    Policy,
    expand,
    segmented_chain,
    simulate,
)
from planner_service.memory import candidates_for, profile_from_record, profile_record, total_bytes
from planner_service.memory.profile import ProfiledSegments
from planner_service.memory.reversible_cells import ReversibleModel
from planner_service.solvers import solve
from tests.calibration.profiles import SIZES, profile_of, profiles, workload


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
    least = least_budget_bytes(chain)
    solution = solve(chain, least + int(share * least))
    needed = simulate(chain_of(profile, seen), expand(solution.policy))
    assert needed.legal
    assert needed.peak_bytes <= solution.verdict.peak_bytes


def least_budget_bytes(chain):
    """The least budget with a plan, as the refusal names it"""
    with pytest.raises(BudgetTooSmall) as refusal:
        solve(chain, 1)
    return refusal.value.minimum_budget_bytes


residuals = st.builds(
    PeakResidual,
    segment_steps=st.sampled_from([1, 5, 10]),
    projected_bytes=st.integers(1, 2**40),
    measured_bytes=st.integers(0, 2**40),
)


@given(profiles, st.lists(residuals, max_size=20), st.floats(0, 1))
def test_a_margin_covers_every_run_that_it_was_made_of_whatever_its_plan_was(profile, runs, share):
    """Any plan's projection grows by the run's ratio of measured to projected at least"""
    margins = margins_of(runs)
    widened = with_margins(profile, margins)
    assert workload_of(widened) == workload_of(profile)
    for seen, wide in zip(profile.segments[1:], widened.segments[1:], strict=True):
        chain = chain_of(profile, seen)
        least = least_budget_bytes(chain)
        solution = solve(chain, least + int(share * least))
        projected = simulate(chain_of(widened, wide), expand(solution.policy)).peak_bytes
        for run in runs:
            if run.segment_steps == seen.segment_steps and run.ratio <= MOST_RATIO:
                assert projected >= run.ratio * solution.verdict.peak_bytes
        assert projected >= solution.verdict.peak_bytes


def test_a_margin_is_the_largest_ratio_and_never_below_one():
    """Runs below their projection leave it as it is; the coverage is that of the largest of n"""
    runs = [PeakResidual(5, 1000, 990), PeakResidual(5, 1000, 1002), PeakResidual(10, 1000, 900)]
    margins = margins_of(runs)
    assert margins[5].factor == Fraction(1002, 1000)
    assert margins[10].factor == 1
    assert margins[10].largest_ratio == Fraction(9, 10)
    assert margins[5].coverage == Coverage(2)
    assert margins[5].coverage.ratio == pytest.approx(2 / 3)


def test_a_run_far_beyond_its_projection_is_set_aside_and_changes_no_plan():
    """Twice the projection still counts; what is absurd is counted, and that is all"""
    profile = profile_of(workload(16, 2, 40), dict.fromkeys(SIZES, 1.0), static_bytes=10**4)
    absurd = [PeakResidual(5, 1, 2**62), PeakResidual(5, 1000, 2001)]
    (margin,) = margins_of(absurd).values()
    assert (margin.factor, margin.set_aside, margin.coverage.ratio) == (1, 2, 0)
    assert with_margins(profile, {5: margin}) is profile
    (margin,) = margins_of([*absurd, PeakResidual(5, 1000, 2000)]).values()
    assert (margin.factor, margin.set_aside, margin.coverage) == (2, 2, Coverage(1))


def reversible_profile():
    """A profile of a RevGRU whose stages are those that are counted."""
    model = ReversibleModel(
        cell_kind="rev_gru",
        input_size=8,
        hidden_size=24,
        num_layers=1,
        dtype="float32",
        embedding_size=20,
        head_output_size=20,
        forget_bits=3,
        coding="scheduled",
    )
    asked = replace(workload(24, 3, 40), model=model)
    (counted,) = (one for one in candidates_for(asked) if one.segment_steps == 5)
    chain = counted.chain
    plain = profile_of(workload(24, 3, 40), dict.fromkeys(SIZES, 1.0), static_bytes=10**4)
    return replace(
        plain,
        cell="rev_gru",
        forget_bits=3,
        coding="scheduled",
        input_bytes=chain.input_bytes,
        input_gradient_bytes=chain.gradient_bytes(0),
        loss_gradient_bytes=chain.loss_gradient_bytes,
        segments=(ProfiledSegments(5, 5, chain.runs[0].stage, None, None),),
    )


def test_a_margin_covers_runs_that_undo_their_steps():
    """The bits that are kept and what undoing takes grow like all other bytes"""
    profile = reversible_profile()
    run = PeakResidual(5, 1000, 1500)
    widened = with_margins(profile, margins_of([run]))
    chain, wide = (chain_of(one, one.segments[0]) for one in (profile, widened))
    undone = Policy((ArchiveNode(chain.length, EMPTY),), 0)
    projected, grown = (simulate(one, expand(undone)).peak_bytes for one in (chain, wide))
    assert grown >= run.ratio * projected


def test_a_reversible_model_is_not_compared_with_the_formulas_of_other_cells():
    """No error before and after is better than one against tensors that its cells do not have"""
    profile = reversible_profile()
    assert stage_ratios([profile], 5) is None
    assert stage_errors(profile, [profile]) == []


def test_no_margin_makes_a_profile_that_is_no_chain():
    """Bytes at the end of what a chain can hold stay there"""
    vast = profile_of(workload(16, 2, 40), dict.fromkeys(SIZES, 1.0), static_bytes=2**62)
    (margin,) = margins_of([PeakResidual(5, 1000, 2000)]).values()
    assert total_bytes(with_margins(vast, {5: margin}).static) == 2**62


def test_the_coverage_that_is_stated_is_what_exchangeable_measurements_have():
    """The next of n + 1 draws exceeds the largest of n in 1 / (n + 1) of the cases, whatever they are"""
    draw = random.Random(0)
    rounds, count = 4000, 7
    covered = 0
    for _ in range(rounds):
        runs = [PeakResidual(1, 10**6, int(10**6 * draw.lognormvariate(0, 0.1))) for _ in range(count + 1)]
        margin = margins_of(runs[:count])[1]
        covered += runs[count].ratio <= margin.largest_ratio
    assert covered / rounds == pytest.approx(Coverage(count).ratio, abs=0.02)


def test_several_quantities_add_up_their_risks():
    """Bonferroni; with too few measurements nothing is known"""
    assert Coverage(11, 6).ratio == pytest.approx(0.5)
    assert Coverage(3, 6).ratio == 0


def test_the_ratios_are_the_largest_of_the_models_at_that_length():
    """By hand: twice the computed tape in one model, half in the other; the same model twice counts once"""
    small, large = workload(16, 2, 40), workload(64, 4, 40)
    double = profile_of(small, dict.fromkeys(SIZES, 2.0), static_bytes=10**4)
    half = profile_of(large, dict.fromkeys(SIZES, 0.5), static_bytes=10**4)
    row = stage_ratios([double, half, half], 5)
    assert row.models == 2
    assert row.of("tape_bytes") == 2
    assert row.of("state_bytes") == 1
    assert stage_ratios([double], 7) is None


def test_a_profile_goes_through_its_record_unchanged():
    """What the store keeps is what was measured"""
    profile = profile_of(workload(16, 2, 40), dict.fromkeys(SIZES, 1.5), static_bytes=7)
    assert profile_from_record(profile_record(profile)) == profile


def test_an_estimate_is_planned_like_any_profile_and_marked_calibrated():
    """It matches its workload; its stages say that they are calibrated, and on how many models"""
    asked = workload(24, 3, 40)
    measured = [
        profile_of(workload(h, 2, 40), dict.fromkeys(SIZES, 0.9), static_bytes=99) for h in (8, 16, 32)
    ]
    estimate = estimated_profile(asked, family_ratios(measured), like=measured[0])
    candidates = candidates_for(asked, profile=estimate)
    assert {candidate.sources.tapes.exactness for candidate in candidates} == {"calibrated"}
    assert "largest of 3" in estimate.source


def test_a_model_beyond_what_can_be_counted_says_nothing_of_its_likes_and_spoils_no_estimate_of_theirs():
    """As it may have been kept by a service that took any profile"""
    usual = profile_of(workload(16, 2, 40), dict.fromkeys(SIZES, 1.0), static_bytes=99)
    absurd = replace(usual, hidden_size=10**12, batch_size=10**12)
    assert family_ratios([absurd, usual]) == family_ratios([usual])
    assert stage_errors(absurd, [absurd, usual]) == []
