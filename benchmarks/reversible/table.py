"""The result files as Markdown tables: `python -m benchmarks.reversible.table`."""

from __future__ import annotations

import json
from collections import defaultdict
from statistics import mean
from typing import Any

from benchmarks.machine import RESULTS

Record = dict[str, Any]


def _rows(part: str) -> list[Record]:
    path = RESULTS / f"reversible-{part}.json"
    found: list[Record] = json.loads(path.read_text())["rows"] if path.exists() else []
    return found


def _table(header: list[str], lines: list[list[str]]) -> str:
    rule = ["---"] * len(header)
    return "\n".join("| " + " | ".join(cells) + " |" for cells in (header, rule, *lines)) + "\n"


def quality(kind: str) -> str:
    """Mean perplexity over the seeds there are, next to the model without reversibility."""
    seeds: dict[str, list[Record]] = defaultdict(list)
    for row in _rows(f"quality-{kind}"):
        seeds[row["model"]].append(row)
    if kind not in seeds:
        return ""
    plain = {row["seed"]: row["perplexity"] for row in seeds[kind]}
    lines = []
    for model, rows in seeds.items():
        paired = [row for row in rows if row["seed"] in plain]
        ratio = mean(row["perplexity"] / plain[row["seed"]] for row in paired) - 1
        memory = [row["hidden_states_ratio"] for row in rows if "hidden_states_ratio" in row]
        bits = [row["bits_per_unit_and_step"] for row in rows if "bits_per_unit_and_step" in row]
        perplexity = f"{mean(row['perplexity'] for row in rows):.3f}"
        rest = [f"{mean(bits):.2f}", f"{mean(memory):.1f}x"] if bits else ["", ""]
        count = f"{rows[0]['parameters']:,}"
        lines.append([model, str(len(rows)), count, perplexity, f"{ratio:+.1%}", *rest])
    header = ["model", "seeds", "parameters", "perplexity", f"against {kind}", "bits archived", "memory"]
    return _table(header, lines)


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
    header = ["cell", "n", "coding", "measured", "of it archive", "hidden states", "full tape"]
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


if __name__ == "__main__":
    print(*(quality("gru"), quality("lstm"), memory(), speed()), sep="\n")
