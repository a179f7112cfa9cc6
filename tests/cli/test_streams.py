"""Commands whose standard streams are closed, full, left by their reader or of a narrow encoding."""

import json
import subprocess
import sys

import pytest

COMMAND = "import sys; from planner_service.cli import main; sys.exit(main())"


def run(redirected, *arguments, encoding="utf-8", unbuffered=""):
    """`tightfit` under a shell that redirects its streams; what it printed and its status."""
    return subprocess.run(
        ["/bin/sh", "-c", f'"$@" {redirected}', "sh", sys.executable, "-c", COMMAND, *arguments],
        capture_output=True,
        env={"PYTHONIOENCODING": encoding, "PYTHONUNBUFFERED": unbuffered},
    )


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_an_answer_that_finds_no_room_is_one_line_and_status_1(unbuffered):
    done = run(">/dev/full", "--version", unbuffered=unbuffered)
    assert (done.returncode, done.stderr) == (1, b"tightfit: [Errno 28] No space left on device\n")


def test_closed_streams_are_empty_or_lead_nowhere():
    """Nothing but the document: neither a traceback, nor a refusal on standard output"""
    done = run("<&-", "plan", "-")
    assert json.loads(done.stderr)["source"] == "standard input"
    done = run("2>&-", "plan", "/dev/null")
    assert (done.returncode, done.stdout) == (2, b"")
    assert run(">&-", "--version").stderr == b""


def test_what_an_encoding_lacks_is_escaped_as_json_escapes_it():
    done = run("", "plan", "--help", encoding="latin-1")
    assert done.returncode == 0
    assert b"512MiB, 2GB, \\u2026" in done.stdout
    done = run("", "plan", "\N{SNOWMAN}\N{GRINNING FACE}", encoding="ascii")
    assert json.loads(done.stderr)["source"] == "\N{SNOWMAN}\N{GRINNING FACE}"
