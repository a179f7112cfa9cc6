"""Leases end by seconds of watched silence, whatever the clock does."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from planner_service.jobs import Lease, LeaseWatch, State

RUNNING = Lease("j", State.RUNNING, attempt=1, renewals=7)
ASSIGNED = Lease("k", State.ASSIGNED, attempt=0, renewals=1)


def watch() -> LeaseWatch:
    return LeaseWatch(assigned_seconds=60, running_seconds=180, longest_step_seconds=10)


def silence(watcher: LeaseWatch, leases: list[Lease], *, start: float, seconds: float) -> list[Lease]:
    """What has run out after `seconds` of looking every 5 seconds."""
    found: list[Lease] = []
    for step in range(int(seconds // 5) + 1):
        found = watcher.observe(leases, start + 5 * step)
    return found


@pytest.mark.parametrize(("seconds", "ended"), [(55, []), (60, [ASSIGNED]), (175, [ASSIGNED])])
def test_each_state_has_its_own_patience(seconds, ended):
    assert silence(watch(), [RUNNING, ASSIGNED], start=1000, seconds=seconds) == ended


def test_a_running_attempt_ends_after_three_minutes():
    assert silence(watch(), [RUNNING], start=0, seconds=180) == [RUNNING]


def test_a_sign_of_life_begins_the_count_anew():
    watcher = watch()
    silence(watcher, [RUNNING], start=0, seconds=175)
    renewed = replace(RUNNING, renewals=8)
    assert silence(watcher, [renewed], start=180, seconds=175) == []
    assert watcher.observe([renewed], 360) == [renewed]


def test_a_service_that_was_down_or_stopped_has_seen_nobody_silent():
    watcher = watch()
    silence(watcher, [RUNNING], start=0, seconds=100)
    assert watcher.observe([RUNNING], 100 + 86_400) == []
    assert watch().observe([RUNNING], 10**9) == []


@given(
    jumps=st.lists(st.sampled_from([-86_400.0, -3.0, 0.0, 5.0, 7.5, 3600.0, 1e9]), min_size=1, max_size=40)
)
def test_jumps_of_the_clock_never_end_a_lease_sooner_than_its_looks_allow(jumps):
    """Between two looks at most ten seconds count: fewer than 18 steps forward end nothing."""
    watcher, now = watch(), 0.0
    watcher.observe([RUNNING], now)
    for looks, jump in enumerate(jumps, start=1):
        now += jump
        if watcher.observe([RUNNING], now):
            assert looks * 10 >= 180
            return


@given(offset=st.floats(-1e9, 1e9))
def test_a_lease_ends_at_last_wherever_the_clock_starts(offset):
    assert silence(watch(), [RUNNING], start=offset, seconds=200) == [RUNNING]
