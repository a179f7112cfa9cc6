"""The tests marked `gpu` as `make gpu` runs them: side by side or in turn, and what is kept of them."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import time
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from benchmarks.gpu import running, said, suites
from benchmarks.gpu.compute_mode import takes_one_process

ROOT = Path(__file__).parents[2]
ROOTED = f"--rootdir={ROOT}"
"""Tests elsewhere are called by one name, as those of this folder are."""

SLOW_TESTS = """
import time
import pytest

gpu = getattr(pytest.mark, "gpu")

@gpu
@pytest.mark.parametrize("rule", [{"a": 1}], ids=str)
def test_that_fails(rule):
    import warnings
    warnings.warn("an image's own")
    assert rule == 2, "not two"

@gpu
def test_that_passes():
    pass

@gpu
def test_that_hangs():
    time.sleep(600)
"""


@pytest.fixture
def slow_tests(tmp_path: Path) -> str:
    """A file with a test that fails, one that passes, and one that never ends."""
    (tmp_path / "pytest.ini").write_text("[pytest]\nfilterwarnings = error\nmarkers = gpu", encoding="utf-8")
    (tmp_path / "test_slow.py").write_text(SLOW_TESTS, encoding="utf-8")
    return str(tmp_path / "test_slow.py")


def test_tests_that_are_ended_still_tell_what_failed(
    slow_tests: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By name, with what was wrong, from a background job, too; warnings of an image are no errors. Another
    process, of tests that there are not, is waited for beside it, and neither hides what the other found.
    """
    monkeypatch.setattr(
        running, "GRACE_SECONDS", 30.0
    )  # they end at once, but not where others keep the cores
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    kept: list[dict[str, Any]] = []
    slow = suites.Suite("slow", [ROOTED, slow_tests], os.environ)
    chosen = [slow, suites.Suite("none", ["absent.py"], os.environ)]
    try:
        done = suites.run_suites(chosen, time.monotonic() + 6.0, keep=kept.append)
    finally:
        signal.signal(signal.SIGINT, before)
    assert done["exit_status"] is None
    assert re.fullmatch(
        r"slow: stopped after \d+ s; none: .*(not found: absent.py|no tests ran).*", done["summary"]
    )
    (failure,) = done["failures"]
    assert "test_that_fails[{'a': 1}]" in failure
    assert "not two" in failure
    *_, before_its_end, _ = kept
    assert "slow: 1 failed, 1 passed by now, at " in before_its_end["summary"]
    assert "test_that_hangs" in before_its_end["summary"]
    assert before_its_end["exit_status"] is None
    assert before_its_end["failures"] == [failure]


def test_a_device_that_takes_one_process_runs_one_suite_after_the_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And none is begun where no time is left for it"""
    running_now: list[str] = []
    monkeypatch.setattr(suites, "Running", partial(RunningAlone, running_now))
    chosen = [suites.Suite(name, [name], os.environ) for name in ("one", "two", "three")]
    monkeypatch.setattr(suites.time, "monotonic", lambda: 3.0 * RunningAlone.ended_ones)
    done = suites.run_suites(chosen, 5.0, keep=lambda _: None, at_once=False)
    assert done["summary"] == "one: 1 passed; two: 1 passed; three: not begun"
    assert done["exit_status"] is None


class RunningAlone:
    """A process of tests that refuses another one beside it."""

    goes_on = False
    ended_ones = 0

    def __init__(self, running_now: list[str], command: list[str], _environment: object) -> None:
        assert running_now == []
        self._running_now = running_now
        running_now.append(command[-1])

    def ended(self, _until: float) -> dict[str, Any]:
        self._running_now.pop()
        RunningAlone.ended_ones += 1
        return {"exit_status": 0, "output": "", "summary": "1 passed"}


DRIVER = """
int cuInit(unsigned flags) {{ return flags; }}
int cuDeviceGet(int *device, int index) {{ *device = index + 7; return 0; }}
int cuDeviceGetAttribute(int *value, int attribute, int device) {{
    *value = attribute == 20 && device == 7 ? {mode} : -1;
    return {status};
}}
"""


@pytest.mark.skipif(shutil.which("cc") is None, reason="needs a C compiler")
@pytest.mark.parametrize(("mode", "status", "is_exclusive"), [(3, 0, True), (0, 0, False), (3, 999, False)])
def test_the_driver_tells_whether_a_device_takes_one_process(
    mode: int, status: int, is_exclusive: bool, tmp_path: Path
) -> None:
    """Which nvidia-smi would tell, too, where there is one; a driver that fails is asked no more"""
    source, library = tmp_path / "driver.c", tmp_path / "libcuda.so.1"
    source.write_text(DRIVER.format(mode=mode, status=status), encoding="utf-8")
    subprocess.run(["cc", "-shared", "-fPIC", "-o", str(library), str(source)], check=True)
    assert takes_one_process(str(library)) == is_exclusive


def test_without_a_driver_no_device_takes_one_process(tmp_path: Path) -> None:
    assert not takes_one_process(str(tmp_path / "libcuda.so.1"))


def test_without_triton_its_tests_are_no_suite(monkeypatch: pytest.MonkeyPatch) -> None:
    """A run in which no test was found would count as one that failed"""
    monkeypatch.setattr(suites, "find_spec", lambda _name: None)
    assert [suite.name for suite in suites.suites()] == ["usual", "expandable segments"]


LOST_TESTS = """
import os
import pytest

gpu = getattr(pytest.mark, "gpu")

@gpu
def test_that_fails():
    assert 3 == 2, "not two"

@pytest.fixture
def device():
    raise OSError("no device\\nand more")

@gpu
def test_that_finds_nothing(device):
    pass

@gpu
def test_that_takes_the_process_along():
    os.kill(os.getpid(), 9)
"""


def test_a_run_that_is_lost_has_told_why_its_tests_failed(tmp_path: Path) -> None:
    """It has no summary: a device that does not answer is waited for in C, and the process is killed"""
    (tmp_path / "test_lost.py").write_text(LOST_TESTS, encoding="utf-8")
    lost = suites.Suite("lost", [ROOTED, str(tmp_path)], os.environ)
    done = suites.run_suites([lost], time.monotonic() + 60, keep=lambda _: None)
    assert done["exit_status"] == -signal.SIGKILL
    assert done["summary"].startswith("lost: its process ended with -9 at ")
    failed, without_device = done["failures"]
    assert failed.startswith("FAILED ")
    assert failed.endswith("::test_that_fails - AssertionError: not two")
    assert without_device.startswith("ERROR ")
    assert without_device.endswith("::test_that_finds_nothing - OSError: no device")


def test_failures_are_read_from_a_run_that_was_cut_off() -> None:
    """Without a summary the lines of the tests themselves tell them; with one, each is told once"""
    passing = [
        "tests/a.py::test_one[{'x': 1}] FAILED                                [ 50%]",
        "tests/a.py::test_two PASSED                                          [ 75%]",
        "tests/a.py::test_three ERROR                                         [100%]",
        "an ERROR that a test printed",
    ]
    assert said.failures_among(passing) == [
        "FAILED tests/a.py::test_one[{'x': 1}]",
        "ERROR tests/a.py::test_three",
    ]
    summary = ["FAILED tests/a.py::test_one[{'x': 1}] - assert 1 == 2", "ERROR tests/a.py::test_three"]
    assert said.failures_among(passing + summary) == summary


def test_what_a_run_that_goes_on_has_found_is_counted() -> None:
    """Skipped tests tell why within their line"""
    lines = [
        "tests/a.py::test_one PASSED                                          [ 25%]",
        "tests/a.py::test_two SKIPPED (needs a process with settings)         [ 50%]",
        "tests/a.py::test_three[x y] PASSED                                   [ 75%]",
        "tests/a.py::test_four ",
        "",
    ]
    assert said.so_far(lines) == "2 passed, 1 skipped by now, at tests/a.py::test_four"
    assert said.so_far([]) == "no test by now, at its beginning"
