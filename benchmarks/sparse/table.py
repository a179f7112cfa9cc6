"""The result files as Markdown tables: `python -m benchmarks.sparse.table`."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable
from statistics import mean
from typing import Any

from benchmarks.arguments import without_arguments
from benchmarks.machine import RESULTS

Row = dict[str, Any]
DENSE = "dense"


def _rows(part: str) -> list[Row]:
    path = RESULTS / f"sparse-{part}.json"
    found: list[Row] = json.loads(path.read_text(encoding="utf-8"))["rows"] if path.exists() else []
    return found


def _table(header: list[str], lines: list[list[str]]) -> str:
    rule = ["---"] * len(header)
    return "\n".join("| " + " | ".join(cells) + " |" for cells in (header, rule, *lines)) + "\n"


def _grouped(rows: Iterable[Row], *names: str) -> dict[tuple[Any, ...], list[Row]]:
    found: dict[tuple[Any, ...], list[Row]] = defaultdict(list)
    for row in rows:
        found[tuple(row[name] for name in names)].append(row)
    return found


def _nats(rows: list[Row]) -> float:
    return mean(row["nats_per_character"] for row in rows)


def _percent(ratio: float) -> str:
    return f"{100 * ratio:.1f} %"


def _against(rows: list[Row], dense: list[Row]) -> str:
    """Mean loss over that of the dense runs with the same seeds."""
    seeds = {row["seed"] for row in rows}
    return f"{100 * (_nats(rows) / _nats([row for row in dense if row['seed'] in seeds]) - 1):+.2f} %"


def claim(part: str = "claim") -> str:
    """Layers and lengths: dense and sparse loss, sparsity, redundant MACs, cosine."""
    lines = []
    for (layers, length), rows in _grouped(_rows(part), "num_layers", "length").items():
        dense = [row for row in rows if row["variant"] == DENSE]
        sparse = [row for row in rows if row["variant"] != DENSE]
        lines.append(
            [
                str(layers),
                str(length),
                str(len(sparse)),
                f"{_nats(dense):.3f}",
                f"{_nats(sparse):.3f}",
                _against(sparse, dense),
                _percent(min(row["sparsity_first"] for row in sparse)),
                _percent(mean(row["sparsity"] for row in sparse)),
                _percent(mean(row["redundant_ratio"] for row in sparse)),
                f"{mean(row['cosine'] for row in sparse):.2f}",
            ]
        )
    header = ["layers", "steps", "seeds", "dense", "sparse", "difference", "dropped at first", "dropped"]
    return _table([*header, "redundant MACs", "cosine"], lines)


def sweep() -> str:
    """Every rule: loss against dense, sparsity from the first to the last iterations, MACs, cosines."""
    groups = _grouped(_rows("sweep"), "variant")
    lines = []
    for (variant,), rows in groups.items():
        trained = [row for row in rows if "nats_per_character" in row]
        if not trained:
            lines.append([variant, str(len(rows)), "refused", *[""] * 6])
            continue
        cells = [variant, str(len(trained)), f"{_nats(trained):.3f}", _against(trained, groups[(DENSE,)])]
        lines.append(cells + (_counts(trained) if "sparsity" in trained[0] else [""] * 5))
    header = ["rule", "seeds", "nats", "difference", "dropped at first", "at last", "redundant MACs"]
    return _table([*header, "saved MACs", "cosine"], lines)


def _counts(rows: list[Row]) -> list[str]:
    names = ("sparsity_first", "sparsity_last", "redundant_ratio", "saved_ratio")
    ratios = [_percent(mean(row[name] for row in rows)) for name in names]
    return [*ratios, f"{mean(row['cosine'] for row in rows):.2f}"]


def frontier() -> str:
    """Time and loss at H = 512."""
    losses = {layers: _grouped(_rows(f"frontier-loss-{layers}"), "variant") for layers in (1, 2)}
    lines = [
        [
            str(row["num_layers"]),
            row["variant"],
            f"{1000 * row['seconds']:.0f} ms",
            f"{row['time_ratio']:.2f}",
            f"{row['ratios'][0]:.2f} to {row['ratios'][-1]:.2f}",
            *_loss_cells(losses[row["num_layers"]], row["variant"]),
        ]
        for row in _rows("frontier-time")
    ]
    header = ["layers", "variant", "time", "ratio, median", "of the rounds", "seeds", "nats", "difference"]
    return _table(header, lines)


def longer_losses() -> str:
    """One layer, trained four times as long: mean loss and every seed's difference."""
    groups = _grouped(_rows("frontier-loss-longer"), "variant")
    dense = groups[(DENSE,)]
    lines = []
    for (variant,), rows in groups.items():
        each = ", ".join(_against([row], dense) for row in rows)
        count = str(rows[0]["iterations"])
        lines.append([variant, count, str(len(rows)), f"{_nats(rows):.3f}", _against(rows, dense), each])
    return _table(["variant", "iterations", "seeds", "nats", "difference", "by seed"], lines)


def _loss_cells(groups: dict[tuple[Any, ...], list[Row]], variant: str) -> list[str]:
    rows = groups.get((variant,))
    if rows is None:
        return ["", "", ""]
    return [str(len(rows)), f"{_nats(rows):.3f}", _against(rows, groups[(DENSE,)])]


def times(rows: list[Row]) -> str:
    """Time rows alone, as `make gpu` measures them."""
    lines = [
        [
            str(row["num_layers"]),
            str(row["hidden_size"]),
            row["variant"],
            f"{1000 * row['seconds']:.1f} ms",
            f"{row['time_ratio']:.2f}",
        ]
        for row in rows
    ]
    return _table(["layers", "hidden", "variant", "time", "ratio to the fastest dense, median"], lines)


if __name__ == "__main__":
    without_arguments(__doc__)
    print(*(claim(), claim("claim-longer"), sweep(), frontier(), longer_losses()), sep="\n")
