"""Reversible layers against stored states and full BPTT: `python -m benchmarks.reversible --help`."""

from __future__ import annotations

import sys

from benchmarks.machine import RESULTS
from benchmarks.parts import Parts, Row, Rows, recorded
from benchmarks.reversible import attention, exactness, memory, quality, repeat, speed, translation, tuning

SEEDS = 3


def _rest(rows: Rows, done: list[Row]) -> Rows:
    """All rows, or none when the result file is there: these parts are measured in one go."""
    return iter(()) if done else rows


def _quality(kind: str, done: list[Row]) -> Rows:
    settings = tuning.chosen(recorded(RESULTS / f"reversible-tuning-{kind}.json"))
    pairs = {(row["model"], row["seed"]) for row in done}
    return quality.rows(kind, quality.TRAININGS[kind], SEEDS, settings, pairs)


PARTS = Parts(
    "reversible",
    {
        "exactness": lambda done: _rest(exactness.rows(), done),
        "memory": memory.rows,
        "attention": attention.rows,
        "speed": lambda done: _rest(speed.rows(), done),
        "repeat": repeat.rows,
        "tuning-gru": lambda done: tuning.rows("gru", quality.Training(), done),
        "tuning-lstm": lambda done: tuning.rows("lstm", quality.Training(), done),
        "quality-gru": lambda done: _quality("gru", done),
        "quality-lstm": lambda done: _quality("lstm", done),
        "translation": translation.rows,
    },
)

if __name__ == "__main__":
    sys.exit(PARTS.main(__doc__))
