"""Reversible layers against stored states and full BPTT: `python -m benchmarks.reversible --help`."""

from __future__ import annotations

import sys
from functools import partial

from benchmarks.machine import RESULTS
from benchmarks.parts import Part, Parts, Row, Rows, recorded
from benchmarks.reversible import attention, exactness, memory, quality, repeat, speed, translation, tuning

SEEDS = 3


def _rest(rows: Rows, done: list[Row]) -> Rows:
    """All rows, or none when the result file is there: these parts are measured in one go."""
    return iter(()) if done else rows


def _quality(text: str, kind: str, done: list[Row]) -> Rows:
    found = tuning.chosen(recorded(RESULTS / f"reversible-{text}-{kind}-tuning.json"))
    pairs = {(row["model"], row["seed"]) for row in done}
    return quality.rows(kind, quality.TRAININGS[text, kind], SEEDS, tuning.for_all(kind, found), pairs)


QUALITY: dict[str, Part] = {}
for _text, _kind in quality.TRAININGS:
    QUALITY[f"{_text}-{_kind}-tuning"] = partial(tuning.rows, _text, _kind)
    QUALITY[f"{_text}-{_kind}"] = partial(_quality, _text, _kind)

PARTS = Parts(
    "reversible",
    {
        "exactness": lambda done: _rest(exactness.rows(), done),
        "memory": memory.rows,
        "attention": attention.rows,
        "speed": lambda done: _rest(speed.rows(), done),
        "repeat": repeat.rows,
        **QUALITY,
        "translation": translation.rows,
    },
)

if __name__ == "__main__":
    sys.exit(PARTS.main(__doc__))
