"""Engines are chosen by name."""

from __future__ import annotations

import pytest

from planner_service.dispatch import ENGINES, EngineRefused, Launch, UnknownEngine, engine_of
from planner_service.settings import ENGINE_NAMES, InvalidSetting, Settings


def test_every_engine_of_the_settings_can_be_made():
    assert set(ENGINES) <= set(ENGINE_NAMES)
    for name in ENGINES:
        assert engine_of(name, Settings()).name == name


def test_an_unknown_engine_is_refused_with_those_there_are():
    with pytest.raises(UnknownEngine, match="choose one of local, agents"):
        engine_of("nomad", Settings())
    with pytest.raises(InvalidSetting, match="TIGHTFIT_ENGINE=nomad"):
        Settings.from_environ({"TIGHTFIT_ENGINE": "nomad"})


def test_agents_are_given_nothing():
    agents = engine_of("agents", Settings())
    assert agents.most_unfinished == 0
    launch = Launch(job_id="j", number=1, command=("true",), launch_token="t", work_dir=".")
    with pytest.raises(EngineRefused, match="agents claim job j themselves"):
        agents.submit(launch)
    assert agents.statuses(["j"])["j"].state == "missing"
