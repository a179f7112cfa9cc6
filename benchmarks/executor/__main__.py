"""Time and peak inside a budget, against full BPTT and torch.utils.checkpoint."""

from __future__ import annotations

import argparse
import json
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import torch

from benchmarks.executor.cases import Case, Iteration, fused, looped, segments_against_loop
from benchmarks.executor.table import markdown
from benchmarks.machine import RESULTS, description
from executor import BudgetTooSmall, measure
from executor.plan import ExecutionPlan
from executor.predict import plan_for

STEPS = 1_000
SHARES: tuple[float | int, ...] = (0.05, 0.02, 0.01)
"""Budgets, as shares of full BPTT's measured peak."""
EQUINOX_BYTES = (7_759_462, 4_299_161)
"""What equinox's checkpointed scan compiles to with 31 and with 5 checkpoints: 7.4 and 4.1 MiB."""
TOO_SLOW_RATIO = 10
"""Plans that are predicted to take more than so many times full BPTT are shown, not run."""
CHECKPOINT_SEGMENTS = (31, 62, 125, 250)
"""Segment counts tried for torch.utils.checkpoint."""


@dataclass(frozen=True)
class Entry:
    """A case to be made when it is run, with its budgets: shares of full BPTT's peak, or bytes."""

    make: Callable[[], Case]
    budgets: tuple[float | int, ...] = SHARES


def entries() -> dict[str, Entry]:
    """Every case by name."""
    found: dict[str, Entry] = {}
    for kind in ("lstm", "gru"):
        for hidden, batch in ((256, 16), (256, 64), (512, 16), (512, 64)):
            make = partial(fused, kind, hidden=hidden, batch=batch, steps=STEPS)
            found[f"fused-{kind}-{hidden}-{batch}"] = Entry(make)
        for cells in ("torch", "own"):
            loop = partial(looped, kind, hidden=256, batch=16, steps=STEPS, cells=cells)
            found[f"cell-{kind}-256-16-{cells}"] = Entry(loop, budgets=SHARES[:1])
    scan = partial(looped, "lstm", hidden=256, batch=64, steps=STEPS)
    found["scan-lstm-256-64"] = Entry(scan, EQUINOX_BYTES)
    segments = partial(segments_against_loop, "lstm", hidden=256, batch=64, steps=STEPS)
    found["scan-segments-lstm-256-64"] = Entry(segments, EQUINOX_BYTES)
    return found


def measured(case: Case, budgets: Sequence[float | int], rounds: int) -> dict[str, Any]:
    """Peaks, and times as ratios to full BPTT, of every budget and its best checkpointed rival."""
    case.full_iteration()
    full_peak_bytes = peak_bytes(case.full_iteration)
    rows = [budget_row(case, budget, full_peak_bytes) for budget in budgets]
    peaks = {count: peak_bytes(case.checkpointed(count)) for count in CHECKPOINT_SEGMENTS}
    rival_seconds = {count: seconds(case.checkpointed(count)) for count in peaks}
    variants: dict[str, Iteration] = {"full": case.full_iteration}
    for row in rows:
        if row["measured_peak_bytes"] is None:
            continue
        variants[f"ours {row['budget_bytes']}"] = case.budgeted(row["budget_bytes"])
        rival = best_rival(peaks, rival_seconds, row["measured_peak_bytes"])
        row["checkpoint_segments"], row["checkpoint_peak_bytes"] = rival, peaks[rival]
        variants[f"checkpoint {rival}"] = case.checkpointed(rival)
    times = interleaved(variants, rounds)
    for row in rows:
        add_ratios(row, times)
    found = {"name": case.name, "machine": description("torch"), "rounds": rounds, "steps": len(case.x)}
    kind = "cpu_seconds" if torch.get_num_threads() == 1 else "seconds"
    return {**found, "full_peak_bytes": full_peak_bytes, "rows": rows, kind: times}


def best_rival(peaks: Mapping[int, int], times: Mapping[int, float], ours_bytes: int) -> int:
    """The quickest segment count whose peak is not above ours; where none is so lean, the leanest of all."""
    lean = [count for count, peak in peaks.items() if peak <= ours_bytes]
    return min(lean, key=times.__getitem__) if lean else min(peaks, key=peaks.__getitem__)


def budget_row(case: Case, budget: float | int, full_peak_bytes: int) -> dict[str, Any]:
    """Plan for a budget (the first call probes) and measure the peak; None where nothing fits."""
    budget_bytes = int(budget * full_peak_bytes) if isinstance(budget, float) else budget
    share = budget_bytes / full_peak_bytes
    row: dict[str, Any] = {"share": share, "budget_bytes": budget_bytes, "measured_peak_bytes": None}
    try:
        plan = plan_for(case.loop(), budget_bytes)
    except BudgetTooSmall as refusal:
        return {**row, "minimum_budget_bytes": refusal.minimum_budget_bytes}
    if too_slow(plan, seconds(case.full_iteration)):
        return {**row, "predicted_seconds": plan.makespan_seconds}
    case.budgeted(budget_bytes)()
    return {**row, "measured_peak_bytes": peak_bytes(case.budgeted(budget_bytes))}


def too_slow(plan: ExecutionPlan, full_seconds: float) -> bool:
    """Whether a plan is not worth the time that measuring it takes: hardly a checkpoint fits."""
    return plan.makespan_seconds is not None and plan.makespan_seconds > TOO_SLOW_RATIO * full_seconds


def add_ratios(row: dict[str, Any], times: Mapping[str, list[float]]) -> None:
    """Time over that of full BPTT, and over that of the checkpointed rival: medians of rounds."""
    ours = times.get(f"ours {row['budget_bytes']}")
    if ours is None:
        return
    row["time_ratio"] = median_ratio(ours, times["full"])
    row["checkpoint_time_ratio"] = median_ratio(ours, times[f"checkpoint {row['checkpoint_segments']}"])


def median_ratio(ours: list[float], theirs: list[float]) -> float:
    """Median over the rounds of the ratio within a round."""
    return median(mine / other for mine, other in zip(ours, theirs, strict=True))


def interleaved(variants: Mapping[str, Iteration], rounds: int) -> dict[str, list[float]]:
    """Seconds of every variant in every round, the variants taking turns."""
    times: dict[str, list[float]] = {name: [] for name in variants}
    for _ in range(rounds):
        for name, iteration in variants.items():
            times[name].append(seconds(iteration))
    return times


def seconds(iteration: Iteration) -> float:
    """CPU seconds of one iteration: on a busy machine the clock on the wall tells about the others. With
    several threads, whose waiting takes CPU seconds, those of the clock; with a CUDA device, those until it
    has finished.
    """
    if torch.cuda.is_available():
        torch.cuda.synchronize()
        begin = time.perf_counter()
        iteration()
        torch.cuda.synchronize()
        return time.perf_counter() - begin
    clock = time.process_time if torch.get_num_threads() == 1 else time.perf_counter
    begin = clock()
    iteration()
    return clock() - begin


def peak_bytes(iteration: Iteration) -> int:
    """The measured peak of an iteration on the CPU, parameter gradients included."""
    return measure(iteration, device="cpu").peak_bytes


def save(case: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """Write the case in the place of an older measurement of it; the others stay. Returns all of them."""
    found = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {"cases": []}
    names = [each["name"] for each in found["cases"]]
    if case["name"] in names:
        found["cases"][names.index(case["name"])] = case
    else:
        found["cases"].append(case)
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    return found


def result_file(threads: int) -> str:
    """Where the results with so many threads are kept."""
    return "executor.json" if threads == 1 else f"executor-{threads}-threads.json"


def main() -> int:
    """Run the chosen cases, print their tables, put them into benchmarks/results/executor.json."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.executor", description=__doc__)
    parser.add_argument(
        "--only", default="", metavar="PATTERN", help="cases whose name matches: fused-lstm-256"
    )
    parser.add_argument("--rounds", type=int, default=7, help="interleaved rounds (7)")
    parser.add_argument("--threads", type=int, default=1, help="of torch (1)")
    parser.add_argument(
        "--output", help="file under benchmarks/results (executor.json, executor-2-threads.json)"
    )
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    chosen = {name: entry for name, entry in entries().items() if re.search(options.only, name)}
    if not chosen:
        parser.error(f"no case matches {options.only!r}: {', '.join(entries())}")
    path = RESULTS / (options.output or result_file(options.threads))
    for name, entry in chosen.items():
        print(f"{name} …", flush=True)
        case = measured(entry.make(), entry.budgets, options.rounds)
        save(case, path)
        print(markdown({"cases": [case]}), flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
