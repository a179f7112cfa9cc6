"""No stream touches memory that another is not done with: seen by torch's sanitizer, which needs no luck."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.gpu


def found(*options: str) -> list[dict[str, Any]]:
    """What training in a process of its own shows, for states and for tapes that move."""
    command = [sys.executable, "-m", "tests.executor.offload.stream_races", *options]
    root = Path(__file__).parents[3]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_copies_and_the_computation_wait_for_each_other() -> None:
    """On torch's first stream and on a stream of the user's, dropped results included"""
    records = found()
    assert [record["moved"] for record in records] == ["states", "tapes"]
    for record in records:
        assert record["copies"] > 100
        assert record["faults"] == []


def test_a_wait_that_is_left_out_is_seen() -> None:
    """What the other test would say if there were something to say"""
    assert all(len(record["faults"]) > 10 for record in found("--without-waiting"))
