"""Engines are chosen by name."""

from __future__ import annotations

import pytest

from planner_service.dispatch import (
    ENGINES,
    EngineNotConfigured,
    EngineRefused,
    Launch,
    UnknownEngine,
    engine_of,
    require_engine,
)
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


@pytest.mark.parametrize(
    ("engine", "configured"),
    [
        ("kubernetes", {"kubernetes_url": "https://cluster.example"}),
        ("ray", {"ray_url": "http://head.example:8265"}),
        ("ray", {"ray_url": "http://127.0.0.1:8265"}),
    ],
)
def test_an_engine_that_is_not_configured_takes_no_jobs(engine, configured, tmp_path):
    """Its jobs could only come back; the operator's default is taken at its word"""
    nowhere = {"kubernetes_token_file": str(tmp_path / "none")}
    with pytest.raises(EngineNotConfigured, match=engine):
        require_engine(engine, Settings(**nowhere))
    require_engine(engine, Settings(**nowhere, **configured))
    require_engine(engine, Settings(**nowhere, engine=engine))
    require_engine("agents", Settings(**nowhere))


def test_slurm_is_there_where_its_command_is(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(EngineNotConfigured, match="sbatch"):
        require_engine("slurm", Settings())
    (tmp_path / "sbatch").write_text("#!/bin/sh\n")
    (tmp_path / "sbatch").chmod(0o755)
    require_engine("slurm", Settings())
