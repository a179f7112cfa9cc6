"""Standings for tests: a job in each state, reached by the transitions themselves."""

from __future__ import annotations

from dataclasses import replace

from planner_service.jobs import DeviceNeeds, JobNeeds, Standing, assign, open_attempt

NEEDS = DeviceNeeds(held_bytes=100, least_bytes=300, needed_bytes=1100)


def queued(**fields: object) -> Standing:
    """A job that has just been submitted: budget 1000 bytes, agents, two failures allowed."""
    new = Standing(engine="agents", maximum_failures=2, needs=JobNeeds(cpu=NEEDS, cuda=NEEDS), budget=1000)
    return replace(new, **fields)


def assigned(**fields: object) -> Standing:
    """Given to node `a` for the first time."""
    return assign(queued(**fields), launch_hash="h", node="a", granted_bytes=1000).standing


def running(**fields: object) -> Standing:
    """Its first attempt runs on node `a`."""
    return open_attempt(assigned(**fields)).standing
