"""The result files as tables of docs/reversible.md; `python -m benchmarks.reversible.table` renews them."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from itertools import groupby
from pathlib import Path
from statistics import mean
from typing import Any

from benchmarks.arguments import without_arguments
from benchmarks.machine import RESULTS

PAGE = Path(__file__).parents[2] / "docs" / "reversible.md"
Record = dict[str, Any]


def quality(text: str, kind: str) -> str:
    """Perplexity over the seeds, next to the model without reversibility, and the archive."""
    groups = _groups(f"{text}-{kind}", "model")
    plain = {row["seed"]: row["perplexity"] for row in groups.get(kind, [])}
    lines = []
    for model, rows in groups.items():
        ratios = [row["perplexity"] / plain[row["seed"]] - 1 for row in rows if row["seed"] in plain]
        settings = [rows[0]["learning_rate"], rows[0]["forget_bias"], rows[0].get("dropout", 0.0)]
        bits, memory = "", ""
        if "archived_bytes" in rows[0]:
            bits = f"{_mean(rows, 'bits_per_unit_and_step'):.2f}"
            memory = f"{_mean(rows, 'hidden_states_ratio'):.1f}x"
        lines.append(
            [
                model,
                str(len(rows)),
                f"{rows[0]['parameters']:,}",
                ", ".join(f"{setting:g}" for setting in settings),
                f"{_mean(rows, 'perplexity'):.3f}",
                f"{mean(ratios):+.1%}",
                f"{min(ratios):+.1%} to {max(ratios):+.1%}",
                bits,
                memory,
            ]
        )
    header = [
        "model",
        "seeds",
        "parameters",
        "rate, bias, dropout",
        "perplexity",
        f"against {kind}",
        "by seed",
    ]
    return _table([*header, "bits archived", "memory"], lines)


def repeat() -> str:
    """Share of symbols said rightly, by cell and length."""
    by_steps = _groups("repeat", "steps")
    cells = list(_groups("repeat", "cell"))
    lines = []
    for cell in cells:
        shares = [[row for row in rows if row["cell"] == cell] for rows in by_steps.values()]
        lines.append([cell, *(f"{_mean(rows, 'accuracy'):.0%}" if rows else "" for rows in shares)])
    return _table(["cell", *(f"{steps} steps" for steps in by_steps)], lines)


def memory() -> str:
    """Measured bytes of an iteration."""
    lines = [
        [
            row["cell"],
            str(row["forget_bits"] or "no limit"),
            row["coding"],
            f"{row['activation_bytes'] / 1e6:.2f} MB",
            f"{row['archived_bytes'] / 1e6:.2f} MB",
            f"{row['hidden_states_ratio']:.1f}x",
            f"{row['full_tape_ratio']:.0f}x",
        ]
        for row in _rows("memory")
    ]
    return _table(["cell", "n", "coding", "measured", "of it archive", "hidden states", "full tape"], lines)


def attention() -> str:
    """Measured bytes of an encoder that a decoder attends to."""
    lines = [
        [
            row["cell"],
            str(row["forget_bits"]),
            f"{row['kept_units']} of {row['hidden_size']}",
            f"{row['activation_bytes'] / 1e6:.2f} MB",
            f"{row['archived_bytes'] / 1e6:.2f} MB",
            f"{2 * row['kept_bytes'] / 1e6:.2f} MB",
            f"{row['hidden_states_ratio']:.1f}x",
            f"{row['full_tape_ratio']:.0f}x",
        ]
        for row in _rows("attention")
    ]
    header = ["cell", "n", "kept units", "measured", "of it archive", "kept states, gradient"]
    return _table([*header, "hidden states", "full tape"], lines)


def translation() -> str:
    """BLEU and perplexity of the translators."""
    lines = [
        [
            model,
            str(len(rows)),
            f"{rows[0]['parameters']:,}",
            f"{rows[0]['kept_units']} of {rows[0]['hidden_size']}",
            f"{rows[0]['learning_rate']:g}",
            f"{_mean(rows, 'perplexity'):.2f}",
            f"{_mean(rows, 'bleu'):.1f}",
            ", ".join(f"{row['bleu']:.1f}" for row in rows),
        ]
        for model, rows in _groups("translation", "model").items()
    ]
    header = ["model", "seeds", "parameters", "attended units", "rate", "perplexity", "BLEU", "by seed"]
    return _table(header, lines)


def speed() -> str:
    """Processor time against full BPTT in floats."""
    lines = [
        [
            row["cell"],
            str(row["batch_size"]),
            str(row["hidden_size"]),
            f"{row['time_ratio']:.2f}",
            f"{row['ratios'][0]:.2f} to {row['ratios'][-1]:.2f}",
        ]
        for row in _rows("speed")
    ]
    return _table(["cell", "batch", "hidden", "time ratio, median", "of nine rounds"], lines)


TABLES: dict[str, Callable[[], str]] = {
    "words-gru": lambda: quality("words", "gru"),
    "words-lstm": lambda: quality("words", "lstm"),
    "characters-gru": lambda: quality("characters", "gru"),
    "characters-lstm": lambda: quality("characters", "lstm"),
    "repeat": repeat,
    "memory": memory,
    "attention": attention,
    "translation": translation,
    "speed": speed,
}


def renewed(page: str) -> str:
    """The page with every table between `<!-- table NAME -->` and `<!-- end -->` made anew."""
    return re.sub(
        r"(<!-- table (\S+) -->\n).*?(<!-- end -->)",
        lambda found: f"{found[1]}\n{TABLES[found[2]]()}\n{found[3]}",
        page,
        flags=re.DOTALL,
    )


def _rows(part: str) -> list[Record]:
    path = RESULTS / f"reversible-{part}.json"
    found: list[Record] = json.loads(path.read_text())["rows"] if path.exists() else []
    return found


def _groups(part: str, key: str) -> dict[Any, list[Record]]:
    """The rows of a part by the value of `key`, in order of its first appearance."""
    rows = _rows(part)
    order = list(dict.fromkeys(row[key] for row in rows))
    ordered = sorted(rows, key=lambda row: order.index(row[key]))
    return {value: list(group) for value, group in groupby(ordered, key=lambda row: row[key])}


def _mean(rows: Sequence[Record], key: str) -> float:
    return mean(row[key] for row in rows)


def _table(header: list[str], lines: list[list[str]]) -> str:
    rule = ["---"] * len(header)
    return "\n".join("| " + " | ".join(cells) + " |" for cells in (header, rule, *lines)) + "\n"


if __name__ == "__main__":
    without_arguments(__doc__)
    PAGE.write_text(renewed(PAGE.read_text()))
