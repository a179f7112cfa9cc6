"""A benchmark in parts goes on where it stopped."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

pytest.importorskip("torch")

from benchmarks.parts import Parts, recorded

FOLDER = Path(__file__).parents[2] / "benchmarks"


class Interrupted(Exception):
    """What stops a part."""


def squares(done):
    """Three rows, less those that are done; begun from none, it stops before the third."""
    first = len(done)
    for number in range(first, 3):
        if number == 2 and not first:
            raise Interrupted
        yield {"square": number**2}


@pytest.fixture
def parts(tmp_path):
    return Parts("numbers", {"squares": squares, "cubes": lambda done: iter([{"cube": 1}])}, tmp_path)


def test_every_row_is_saved_at_once_and_only_the_rest_is_measured_the_next_time(parts, capsys):
    with pytest.raises(Interrupted):
        parts.main("", ["squares"])
    assert recorded(parts.path("squares")) == [{"square": 0}, {"square": 1}]
    capsys.readouterr()
    assert parts.main("", ["squares"]) == 0
    assert json.loads(capsys.readouterr().out) == {"square": 4}
    record = json.loads(parts.path("squares").read_text())
    assert record["rows"] == [{"square": 0}, {"square": 1}, {"square": 4}]
    assert record["command"] == "python -m benchmarks.numbers squares"


def test_fresh_measures_again_and_without_a_name_every_part_is_measured(parts):
    parts.path("cubes").write_text(json.dumps({"rows": [{"cube": 1}, {"cube": 8}]}))
    parts.main("", ["--fresh", "cubes"])
    assert recorded(parts.path("cubes")) == [{"cube": 1}]
    with pytest.raises(Interrupted):
        parts.main("", [])
    assert recorded(parts.path("squares"))


def test_an_unknown_part_is_refused_with_those_there_are(parts, capsys):
    with pytest.raises(SystemExit):
        parts.main("", ["cube"])
    assert "unknown part cube: choose from squares, cubes" in capsys.readouterr().err


def test_a_part_without_a_result_file_has_no_rows(parts):
    assert recorded(parts.path("squares")) == []


def test_no_benchmark_measures_when_it_is_asked_for_help():
    """Every one that is started by hand looks at its command line first; ours start peers' processes"""
    looks = ("parse_args(", "PARTS.main(__doc__", "without_arguments(__doc__)")
    texts = {path: path.read_text() for path in FOLDER.rglob("*.py") if not path.stem.endswith("_process")}
    started = [path for path, text in texts.items() if '== "__main__"' in text]
    assert [path.name for path in started if not any(look in texts[path] for look in looks)] == []
