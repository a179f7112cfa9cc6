"""The service's settings come from the environment, and wrong ones are refused by name."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from planner_service.settings import (
    OTHERS_VARIABLES,
    PREFIX,
    InvalidSetting,
    Settings,
    settings_table,
    variable,
)

README = Path(__file__).parent.parent / "README.md"


def test_an_empty_environment_gives_the_defaults():
    assert Settings.from_environ({}) == Settings()
    assert Settings().host == "127.0.0.1"


def test_variables_are_read_in_their_own_types():
    found = Settings.from_environ(
        {"TIGHTFIT_PORT": "9", "TIGHTFIT_DATA_DIR": "here", "TIGHTFIT_PLANNING_TIMEOUT_SECONDS": "1.5"}
    )
    assert found == Settings(port=9, data_dir=Path("here"), planning_timeout_seconds=1.5)


def test_other_programs_variables_are_ignored():
    assert Settings.from_environ({"PORT": "1", "HOME": "/root"}) == Settings()


def test_the_links_that_kubernetes_sets_for_a_service_of_this_name_are_ignored():
    """A pod beside a Service called tightfit, or tightfit-db, starts"""
    links = {
        "TIGHTFIT_PORT": "tcp://10.96.3.4:8080",
        "TIGHTFIT_PORT_8080_TCP": "tcp://10.96.3.4:8080",
        "TIGHTFIT_PORT_8080_TCP_ADDR": "10.96.3.4",
        "TIGHTFIT_PORT_8080_TCP_PORT": "8080",
        "TIGHTFIT_PORT_8080_TCP_PROTO": "tcp",
        "TIGHTFIT_SERVICE_HOST": "10.96.3.4",
        "TIGHTFIT_SERVICE_PORT": "8080",
        "TIGHTFIT_SERVICE_PORT_HTTPS": "443",
        "TIGHTFIT_DB_PORT": "tcp://10.96.3.5:5432",
        "TIGHTFIT_DB_SERVICE_HOST": "10.96.3.5",
    }
    assert Settings.from_environ({**links, "TIGHTFIT_QUEUE_LENGTH": "3"}) == Settings(queue_length=3)


def test_what_other_commands_of_ours_read_is_no_setting():
    """A shell with the client's address, a kernel's switch or compose's password can start a service"""
    named = set()
    for folder in ("executor", "planner_service"):
        for source in (Path(__file__).parents[1] / folder).rglob("*.py"):
            named |= set(re.findall(rf'"({PREFIX}[A-Z_]+)"', source.read_text()))
    compose = (README.parent / "docker-compose.yml").read_text()
    named |= set(re.findall(rf"\$\{{({PREFIX}[A-Z_]+)", compose))
    assert {
        "TIGHTFIT_PLANNER_URL",
        "TIGHTFIT_API_KEY",
        "TIGHTFIT_FUSED_KERNELS",
        "TIGHTFIT_DATABASE_PASSWORD",
    } <= named
    settings = {variable(name) for name in vars(Settings())}
    assert named - settings - {"TIGHTFIT_BUDGET_BYTES"} == OTHERS_VARIABLES  # which a job finds set
    assert Settings.from_environ(dict.fromkeys(OTHERS_VARIABLES, "off")) == Settings()


def test_an_override_beats_the_environment_and_none_does_not():
    environ = {"TIGHTFIT_PORT": "9", "TIGHTFIT_HOST": "::1"}
    assert Settings.from_environ(environ, port=10, host=None) == Settings(port=10, host="::1")


@pytest.mark.parametrize(
    ("name", "text", "complaint"),
    [
        ("TIGHTFIT_PORT", "eighty", "must be a whole number"),
        ("TIGHTFIT_PORT", "65536", "must lie in 0..65535"),
        ("TIGHTFIT_PORT", "-1", "must lie in 0..65535"),
        ("TIGHTFIT_PLANNING_THREADS", "0", "must be positive"),
        ("TIGHTFIT_PLANNING_TIMEOUT_SECONDS", "nan", "must be positive"),
        ("TIGHTFIT_MAX_BODY_BYTES", "-5", "must be positive"),
        ("TIGHTFIT_QUEUE_LENGTH", "-1", "must not be negative"),
        ("TIGHTFIT_LEASE_SECONDS", "inf", "must be finite"),
        ("TIGHTFIT_LOST_AFTER_SECONDS", "inf", "must be finite"),
        ("TIGHTFIT_SHUTDOWN_SECONDS", "1e400", "must be finite"),
        ("TIGHTFIT_LOG_LEVEL", "loud", "must be one of debug"),
        ("TIGHTFIT_PROT", "9", "unknown variable TIGHTFIT_PROT: did you mean TIGHTFIT_PORT?"),
        ("TIGHTFIT_PORT", "tcp:8080", "must be a whole number"),
    ],
)
def test_a_wrong_variable_is_refused_by_name(name, text, complaint):
    with pytest.raises(InvalidSetting, match=complaint) as refused:
        Settings.from_environ({name: text})
    assert name in str(refused.value)


def test_the_database_lies_in_the_data_folder_unless_a_url_is_given():
    assert Settings(data_dir=Path("/srv/d")).store_url == "sqlite:////srv/d/tightfit.sqlite3"
    assert Settings(database_url="postgresql+psycopg://h/d").store_url == "postgresql+psycopg://h/d"


def test_jobs_that_name_no_engine_wait_for_whoever_claims_them_unless_the_service_starts_workers():
    assert Settings().default_engine == "agents"
    assert Settings(local_start="process").default_engine == "local"
    assert Settings(local_start="process", engine="slurm").default_engine == "slurm"


def test_retention_of_zero_days_means_for_ever():
    assert Settings().plan_retention_seconds is None
    assert Settings(plan_retention_days=2).plan_retention_seconds == 172_800


def test_the_readme_has_the_table_of_variables():
    assert settings_table() in README.read_text()
