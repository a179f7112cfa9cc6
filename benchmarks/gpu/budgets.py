"""Loops inside a budget: cuDNN's LSTM and GRU, and loops of cells, against full BPTT and checkpointing.

Peaks are what the caching allocator says. Every budget is also tried as a hard cap, under which the allocator
itself refuses more.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import torch

from benchmarks.executor.__main__ import (
    CHECKPOINT_SEGMENTS,
    interleaved,
    median_ratio,
    peak_bytes,
    seconds,
    too_slow,
)
from benchmarks.executor.cases import Case, Iteration, fused, looped
from benchmarks.gpu.rows import Found, Row
from executor import BudgetTooSmall, measure
from executor.hard_cap import hard_cap, plannable_bytes
from executor.predict import plan_for

HOST_BYTES = 4 * 2**30
ROUNDS = 7
SHARES = (0.05, 0.02, 0.01)


def rows() -> Iterator[Row]:
    """The sizes that the issue of the executor names first, then those of the CPU's table."""
    for steps, limit_seconds, rounds in ((1_000, 40.0, ROUNDS), (10_000, 60.0, 3)):
        for kind in ("lstm", "gru"):
            make = partial(fused, kind, hidden=1_024, batch=64, steps=steps, device="cuda")
            measure_row = partial(budgets, make, SHARES[:1], rounds=rounds)
            yield Row(f"nn.{kind.upper()} H1024 B64 T{steps}", limit_seconds, measure_row)
    for hidden, batch in ((256, 16), (256, 64), (512, 16), (512, 64)):
        for kind in ("lstm", "gru"):
            make = partial(fused, kind, hidden=hidden, batch=batch, steps=1_000, device="cuda")
            yield Row(f"nn.{kind.upper()} H{hidden} B{batch} T1000", 25.0, partial(budgets, make, SHARES))
    for kind in ("lstm", "gru"):
        yield Row(
            f"{kind.upper()}Cell loop H256 B16 T1000",
            40.0,
            partial(budgets, partial(_loop, kind), SHARES[:1]),
        )


def _loop(kind: str) -> Case:
    with torch.device("cuda"):
        return looped(kind, hidden=256, batch=16, steps=1_000)


def budgets(
    make: Callable[[], Case],
    shares: tuple[float, ...],
    found: Found,
    *,
    rounds: int = ROUNDS,
    host_bytes: int = HOST_BYTES,
) -> None:
    """Fill `found` with one record per share of full BPTT's peak."""
    case = make()
    case.full_iteration()
    found["full_peak_bytes"] = peak_bytes(case.full_iteration)
    found["budgets"] = []
    for share in shares:
        record: Found = {"share": share, "budget_bytes": int(share * found["full_peak_bytes"])}
        found["budgets"].append(record)
        _one_budget(case, record, rounds, host_bytes)


def _one_budget(case: Case, record: Found, rounds: int, host_bytes: int) -> None:
    """The device alone, then with host memory; times in turn; the hard cap; the best checkpointed rival."""
    budget_bytes = record["budget_bytes"]
    try:
        plan = plan_for(case.loop(), budget_bytes)
    except BudgetTooSmall as refusal:
        record["minimum_budget_bytes"] = refusal.minimum_budget_bytes
        return
    variants: dict[str, Iteration] = {"full": case.full_iteration}
    if too_slow(plan, seconds(case.full_iteration)):
        record["predicted_seconds"] = plan.makespan_seconds
    else:
        variants["device"] = case.budgeted(budget_bytes)
        variants["device"]()
        record["measured_peak_bytes"] = peak_bytes(variants["device"])
    variants["host"] = case.budgeted(budget_bytes, host_bytes)
    variants["host"]()
    measured = measure(variants["host"])
    record["with_host"] = {
        "measured_peak_bytes": measured.peak_bytes,
        "host_peak_bytes": measured.tier_peak_bytes.get("host", 0),
        "host_budget_bytes": host_bytes,
    }
    _add_ratios(record, interleaved(variants, rounds))
    if torch.cuda.is_available():
        record["hard_cap"] = under_hard_cap(case, budget_bytes)
    _add_rival(case, record, rounds)


def _add_ratios(record: Found, times: dict[str, list[float]]) -> None:
    record["full_seconds"] = min(times["full"])
    if "device" in times:
        record["time_ratio"] = median_ratio(times["device"], times["full"])
    record["with_host"]["time_ratio"] = median_ratio(times["host"], times["full"])


def under_hard_cap(case: Case, cap_bytes: int) -> Found:
    """Whether an iteration finishes when the allocator may reserve no more than the budget, and what it did.

    The plan gets less than the cap, for the allocator's segments; where nothing fits, the answer says so.
    """
    try:
        case.budgeted(plannable_bytes(cap_bytes))()
    except (BudgetTooSmall, ValueError) as refusal:
        return {"refused": str(refusal)}
    case.module.zero_grad(set_to_none=True)
    torch.cuda.empty_cache()
    before = torch.cuda.memory_reserved()
    torch.cuda.reset_peak_memory_stats()
    try:
        with hard_cap(cap_bytes) as planned_bytes:
            case.budgeted(planned_bytes)()
    except torch.OutOfMemoryError as error:
        return {"out_of_memory": str(error).partition("\n")[0]}
    return {"reserved_peak_bytes": torch.cuda.max_memory_reserved() - before}


def _add_rival(case: Case, record: Found, rounds: int) -> None:
    """torch.utils.checkpoint at the fastest of its segment counts whose peak is not above ours."""
    ours = record.get("measured_peak_bytes")
    if ours is None:
        return
    peaks = {count: peak_bytes(case.checkpointed(count)) for count in CHECKPOINT_SEGMENTS}
    lean = {count: seconds(case.checkpointed(count)) for count, peak in peaks.items() if peak <= ours}
    record["checkpoint"] = None
    if not lean:
        return
    count = min(lean, key=lean.__getitem__)
    variants = {"ours": case.budgeted(record["budget_bytes"]), "rival": case.checkpointed(count)}
    times = interleaved(variants, rounds)
    record["checkpoint"] = {
        "segments": count,
        "peak_bytes": peaks[count],
        "time_ratio": median_ratio(times["ours"], times["rival"]),
    }
