"""Schemathesis against a real service: all checks over the whole contract, with few examples."""

from __future__ import annotations

from tests.api.fuzzing import fuzz


def test_schemathesis_finds_no_failure(tmp_path):
    done = fuzz(tmp_path, "--phases", "examples,fuzzing", "--max-examples", "5", "--seed", "1")
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr
