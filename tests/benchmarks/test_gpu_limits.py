"""The time limits of `make gpu`, and what is kept when a row fails or the device is lost."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from copy import deepcopy
from functools import partial
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from benchmarks.gpu import results  # noqa: E402
from benchmarks.gpu import rows as rows_module  # noqa: E402
from benchmarks.gpu.page import page  # noqa: E402
from benchmarks.gpu.rows import OutOfTime, Row, run, time_limit  # noqa: E402
from tests.benchmarks.gpu_records import MACHINE, faulty, put  # noqa: E402

ROOT = Path(__file__).parents[2]


def test_a_slow_row_is_stopped_and_keeps_what_it_had(monkeypatch):
    """The one after it is measured; one that fails says why; with no time left none is begun."""

    def slow(found: dict[str, Any]) -> None:
        found["first"] = 1
        while True:
            time.sleep(0.01)

    def failing(found: dict[str, Any]) -> None:
        raise ValueError("no such thing\nand more")

    kept: dict[str, Any] = {}
    rows = [Row("slow", 3.05, slow), Row("failing", 10, failing), Row("good", 10, lambda found: None)]
    assert run(rows, until=time.monotonic() + 30, keep=partial(put, kept))
    monkeypatch.setattr(rows_module, "_cleaned_up", None)  # takes seconds that are not left either
    assert run([Row("late", 10, slow)], until=time.monotonic(), keep=partial(put, kept))
    assert kept["slow"]["first"] == 1
    assert kept["slow"]["stopped"] == "stopped after 3 s"
    assert kept["failing"]["failed"] == "ValueError: no such thing"
    assert set(kept["good"]) == {"name", "wall_seconds"}
    assert kept["late"] == {"name": "late", "not_measured": "no time was left"}
    text = page({"machine": MACHINE, "sparse": list(kept.values())})
    assert "- slow: stopped after 3 s\n- failing: ValueError: no such thing\n- late: no time was left" in text


def test_no_alarm_outlives_its_row():
    with pytest.raises(OutOfTime), time_limit(0.01):
        time.sleep(5)
    with time_limit(0.05):
        pass
    time.sleep(0.1)


def test_a_row_that_takes_its_end_for_a_failure_of_its_own_is_ended(monkeypatch):
    """Whatever is tried there, and what a finalizer swallows comes again"""
    monkeypatch.setattr(rows_module, "AGAIN_SECONDS", 0.05)

    def swallowing(kind: type[BaseException]) -> None:
        with suppress(kind):
            time.sleep(5)
        time.sleep(5)

    begin = time.monotonic()
    for kind in (Exception, OutOfTime):
        with pytest.raises(OutOfTime), time_limit(0.01):
            swallowing(kind)
    assert time.monotonic() - begin < 5


WAITING = """
import time
from benchmarks.gpu import rows
from benchmarks.gpu.rows import Row, run

rows.LEAST_SECONDS = 0.0
rows.LOST_SECONDS, rows.OutOfTime = 1.5, ZeroDivisionError

def waits_for_ever(found):
    found["first"] = 1
    yield
    while True:
        try:
            time.sleep(5)
        except ZeroDivisionError:
            pass

run([Row("hangs", 0.5, waits_for_ever)], until=time.monotonic() + 30, keep=lambda row: print(row, flush=True))
"""


def test_a_row_that_cannot_be_ended_ends_its_process_and_has_said_so():
    """A device that does not answer is waited for in C, where no exception comes in"""
    done = subprocess.run([sys.executable, "-c", WAITING], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 1
    assert "waits_for_ever" in done.stderr
    *_, last = done.stdout.splitlines()
    assert last == str({"name": "hangs", "first": 1, "stopped": "its process ended while this was measured"})


def test_the_result_file_grows_row_by_row(tmp_path: Path):
    path = tmp_path / "results" / "gpu.json"
    results.start({"machine": MACHINE}, path)
    results.add("sparse", {"name": "one"}, path)
    results.add("sparse", {"name": "two", "part": 1}, path)
    results.add("sparse", {"name": "two"}, path)
    assert results.names("sparse", path) == {"one", "two"}
    assert results.names("budgets", path) == set()
    assert json.loads(path.read_text())["sparse"] == [{"name": "one"}, {"name": "two"}]
    assert results.load(path)["machine"] == MACHINE
    assert [each.name for each in path.parent.iterdir()] == ["gpu.json"]


def test_results_go_elsewhere_where_the_checkout_cannot_be_written(tmp_path: Path, monkeypatch):
    """Eight minutes of a device are not lost to a checkout that is mounted read-only; and where it is said"""
    monkeypatch.delenv("GPU_RESULTS", raising=False)
    wanted = tmp_path / "results" / "gpu.json"
    assert results.place(wanted) == wanted
    is_writable = os.access
    refused = {tmp_path}
    monkeypatch.setattr(os, "access", lambda path, mode: path not in refused and is_writable(path, mode))
    elsewhere = Path(tempfile.gettempdir(), "gpu.json")
    assert results.place(wanted) == elsewhere
    results.start({}, wanted)
    refused = {wanted}
    assert results.place(wanted) == elsewhere
    monkeypatch.setenv("GPU_RESULTS", str(tmp_path / "kept"))
    assert results.place(wanted) == tmp_path / "kept" / "gpu.json"


def test_a_row_that_is_ended_within_a_kernel_has_kept_what_it_had():
    """The record is kept each time there is more in it, in the place of what was kept before"""

    def growing(found: dict[str, Any]) -> Iterator[None]:
        for share in (1, 2):
            found.setdefault("shares", []).append(share)
            yield

    kept: list[dict[str, Any]] = []
    run(
        [Row("growing", 10, growing)],
        until=time.monotonic() + 30,
        keep=lambda row: kept.append(deepcopy(row)),
    )
    assert [row.get("shares") for row in kept] == [None, [1], [1, 2], [1, 2]]
    assert ["stopped" in row for row in kept] == [True, True, True, False]


def test_a_device_that_does_not_answer_loses_no_record(monkeypatch):
    """A fault of the device is met again when the row is cleaned up after: other rows are left to another
    process
    """
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "synchronize", faulty)
    kept: dict[str, Any] = {}
    rows = [Row("first", 10, faulty), Row("second", 10, lambda found: None)]
    assert not run(rows, until=time.monotonic() + 30, keep=partial(put, kept))
    assert list(kept) == ["first"]
    assert kept["first"]["failed"] == "RuntimeError: an illegal memory access"
