"""What is deployed: images that are not root, a service without torch, units and a composition that fit.

`docker compose config` and `systemd-analyze verify` judge too where they are installed.
"""

from __future__ import annotations

import configparser
import os
import re
import shutil
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from planner_service.cli.main import _parser
from planner_service.settings import PREFIX, Settings, variable

ROOT = Path(__file__).parent.parent.parent
DOCKERFILES = [ROOT / "Dockerfile", ROOT / "deploy" / "Dockerfile.worker"]
UNITS = sorted((ROOT / "deploy" / "systemd").glob("*.service"))
COMPOSITION = ROOT / "docker-compose.yml"


def instructions(path: Path) -> list[tuple[str, str]]:
    """A Dockerfile's instructions, continued lines joined, comments dropped."""
    lines = [line for line in path.read_text().splitlines() if not line.startswith("#")]
    text = "\n".join(lines).replace("\\\n", " ")
    return [(word, rest) for word, _, rest in (line.partition(" ") for line in text.splitlines()) if word]


def services() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(COMPOSITION.read_text())["services"]
    return found


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.name)
def test_an_image_runs_as_a_numbered_user_and_copies_what_is_there(path):
    found = instructions(path)
    users = [rest for word, rest in found if word == "USER"]
    assert re.fullmatch(r"[1-9][0-9]*", users[-1])
    known = {"FROM", "ARG", "WORKDIR", "COPY", "RUN", "USER", "ENV", "VOLUME", "EXPOSE", "CMD"}
    assert {word for word, _ in found} <= known | {"ENTRYPOINT", "STOPSIGNAL"}
    for word, rest in found:
        if word == "COPY":
            assert all((ROOT / name).exists() for name in rest.split()[:-1]), rest


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.name)
def test_the_extras_that_an_image_installs_exist_and_only_the_worker_has_torch(path):
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    (named,) = re.findall(r'"\.\[([a-z,]+)\]"', path.read_text())
    wanted = [requirement for extra in named.split(",") for requirement in extras[extra]]
    assert any(requirement.startswith("torch") for requirement in wanted) == (path.suffix == ".worker")


def test_the_worker_keeps_the_torch_of_its_base_with_the_packages_that_it_takes(tmp_path):
    """A torch may take one sympy alone (2.6 does), or no new setuptools: pins would end the build"""
    (run,) = [rest for word, rest in instructions(DOCKERFILES[1]) if word == "RUN"]
    (tmp_path / "constraints.txt").write_bytes((ROOT / "constraints.txt").read_bytes())
    subprocess.run(["sh", "-c", run.partition("&&")[0]], cwd=tmp_path, check=True)
    kept = {line.partition("==")[0] for line in (tmp_path / "kept.txt").read_text().splitlines()}
    pinned = {line.partition("==")[0] for line in (ROOT / "constraints.txt").read_text().splitlines()}
    assert pinned - kept == {"torch", "triton", "setuptools", "sympy"}


def test_the_composition_has_the_service_its_database_and_workers():
    assert set(services()) == {"database", "service", "worker", "gpu-worker"}
    service = services()["service"]
    assert service["read_only"] is True
    assert all(port.startswith("127.0.0.1:") for port in service["ports"])
    assert "/readyz" in service["healthcheck"]["test"][-1]
    (device,) = services()["gpu-worker"]["deploy"]["resources"]["reservations"]["devices"]
    assert device["capabilities"] == ["gpu"]
    for name in ("service", "worker", "gpu-worker"):
        assert services()[name]["cap_drop"] == ["ALL"]


def test_every_setting_that_the_files_give_exists():
    names = {variable(name) for name in vars(Settings())} | {"TIGHTFIT_API_KEY"}
    others = {"TIGHTFIT_DATABASE_PASSWORD", "TIGHTFIT_PLANNER_URL"}  # of the files themselves
    for path in [*DOCKERFILES, *UNITS, COMPOSITION]:
        assert set(re.findall(PREFIX + "[A-Z_]+", path.read_text())) <= names | others, path


def test_the_commands_that_the_comments_tell_exist():
    told = re.findall(r"tightfit (keys [^)\n]*)", COMPOSITION.read_text())
    assert told
    for command in told:
        _parser().parse_args(command.split())


@pytest.mark.parametrize("path", UNITS, ids=lambda path: path.name)
def test_a_unit_is_confined_and_stops_in_time(path):
    unit = configparser.ConfigParser(strict=False, interpolation=None, comment_prefixes=("#",))
    unit.optionxform = str  # type: ignore[assignment]  # names are told apart by case
    unit.read_string(path.read_text().replace("\\\n", " "))
    service = unit["Service"]
    assert service["User"] != "root"
    assert service["NoNewPrivileges"] == "yes"
    assert service["ProtectSystem"] == "strict"
    assert float(service["TimeoutStopSec"]) > Settings().shutdown_seconds
    assert unit["Install"]["WantedBy"] == "multi-user.target"


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="no systemd here")
@pytest.mark.parametrize("path", UNITS, ids=lambda path: path.name)
def test_systemd_accepts_the_unit(path):
    done = subprocess.run(["systemd-analyze", "verify", path], capture_output=True, text=True)
    said = [line for line in done.stderr.splitlines() if "is not executable" not in line]
    assert said == []


@pytest.mark.skipif(
    shutil.which("docker") is None
    or subprocess.run(["docker", "compose", "version"], capture_output=True).returncode != 0,
    reason="no docker compose here",
)
def test_docker_accepts_the_composition():
    done = subprocess.run(
        ["docker", "compose", "--file", COMPOSITION, "--profile", "gpu", "config", "--quiet"],
        env={**os.environ, "TIGHTFIT_DATABASE_PASSWORD": "x"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
