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
    seconds,
    too_slow,
)
from benchmarks.executor.cases import Case, Iteration, fused, looped
from benchmarks.gpu.peaks import measured
from benchmarks.gpu.rows import Found, Row, in_words
from executor import BudgetTooSmall
from executor.memory.cuda_memory import cuts_every_block
from executor.memory.hard_cap import hard_cap, plannable_bytes
from executor.predict import plan_for

HOST_BYTES = 4 * 2**30
HOST_BYTES_OF_LONG_ONES = 24 * 2**30
"""Room for all tapes of ten thousand steps."""
ROUNDS = 7
ROUNDS_OF_LONG_ONES = 3
LONG_STEPS = 2_000
SHARE = 0.05
OTHER_SHARES = (0.02, 0.01)
KINDS = ("lstm", "gru")
SIZES = ((256, 16), (256, 64), (512, 16), (512, 64))


def rows() -> Iterator[Row]:
    """What matters most first: the sizes that the executor's issue names, those of the CPU's table, loops of
    cells, smaller budgets.
    """
    for steps, limit_seconds in ((1_000, 25.0), (10_000, 70.0)):
        for kind in KINDS:
            yield _fused(kind, 1_024, 64, steps, limit_seconds=limit_seconds)
    for hidden, batch in SIZES:
        for kind in KINDS:
            yield _fused(kind, hidden, batch, 1_000, limit_seconds=20.0)
    for kind in KINDS:
        measure = partial(budgets, partial(_loop, kind), (SHARE,))
        yield Row(f"{kind.upper()}Cell loop H256 B16 T1000", 30.0, measure)
    for hidden, batch in SIZES:
        for kind in KINDS:
            yield _fused(kind, hidden, batch, 1_000, limit_seconds=20.0, shares=OTHER_SHARES)


def _fused(
    kind: str,
    hidden: int,
    batch: int,
    steps: int,
    *,
    limit_seconds: float,
    shares: tuple[float, ...] = (SHARE,),
) -> Row:
    is_long = steps > LONG_STEPS
    how = {"rounds": ROUNDS_OF_LONG_ONES, "host_bytes": HOST_BYTES_OF_LONG_ONES} if is_long else {}
    make = partial(fused, kind, hidden=hidden, batch=batch, steps=steps, device="cuda")
    smaller = ", smaller budgets" if shares == OTHER_SHARES else ""
    name = f"nn.{kind.upper()} H{hidden} B{batch} T{steps}{smaller}"
    return Row(name, limit_seconds, partial(budgets, make, shares, **how))


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
) -> Iterator[None]:
    """Fill `found` with one record per share of full BPTT's peak; yields when there is more in it."""
    case = make()
    try:
        case.full_iteration()
    except RuntimeError as error:
        found["not_measured"] = f"full BPTT: {in_words(error)}"
        return
    found["segments_expand"] = cuts_every_block()
    taken = measured(case.module, lambda: seconds(case.full_iteration))
    found["full_peak_bytes"] = taken.peak_bytes
    found["budgets"] = []
    for share in shares:
        record: Found = {"share": share, "budget_bytes": int(share * found["full_peak_bytes"])}
        found["budgets"].append(record)
        yield from _one_budget(case, record, taken.result, rounds, host_bytes)


def _one_budget(
    case: Case, record: Found, full_seconds: float, rounds: int, host_bytes: int
) -> Iterator[None]:
    """The device alone, then with host memory; times in turn; the hard cap; the best checkpointed rival."""
    budget_bytes = record["budget_bytes"]
    try:
        plan = plan_for(case.loop(), budget_bytes)
    except BudgetTooSmall as refusal:
        record["minimum_budget_bytes"] = refusal.minimum_budget_bytes
        return
    record["projected_peak_bytes"] = plan.projected_peak_bytes
    record["predicted_seconds"] = plan.makespan_seconds
    variants: dict[str, Iteration] = {"full": case.full_iteration}
    record["is_too_slow"] = too_slow(plan, full_seconds)
    if not record["is_too_slow"]:
        variants["device"] = case.budgeted(budget_bytes)
        _add_peak(case, record, variants["device"])
        yield
    variants |= _with_host(case, record, host_bytes)
    yield
    _add_ratios(record, interleaved(variants, rounds))
    yield
    if torch.cuda.is_available():
        record["hard_cap"] = under_hard_cap(case, budget_bytes)
        yield
    _add_rival(case, record, rounds)
    yield


def _add_peak(case: Case, record: Found, iteration: Iteration) -> None:
    iteration()
    found = measured(case.module, iteration)
    record["measured_peak_bytes"] = found.peak_bytes
    record["requested_peak_bytes"] = found.requested_peak_bytes


def _with_host(case: Case, record: Found, host_bytes: int) -> dict[str, Iteration]:
    """The variant with host memory, its peaks in the record; none where the machine does not pin so much:
    the others are measured all the same.
    """
    iteration = case.budgeted(record["budget_bytes"], host_bytes)
    try:
        _add_peak_with_host(case, record, iteration, host_bytes)
    except RuntimeError as error:
        record["with_host"] = {"failed": in_words(error)}
        return {}
    return {"host": iteration}


def _add_peak_with_host(case: Case, record: Found, iteration: Iteration, host_bytes: int) -> None:
    iteration()
    found = measured(case.module, iteration)
    record["with_host"] = {
        "strategy": plan_for(case.loop(), record["budget_bytes"], host_budget=host_bytes).strategy,
        "measured_peak_bytes": found.peak_bytes,
        "host_peak_bytes": found.tier_peak_bytes.get("host", 0),
        "host_budget_bytes": host_bytes,
    }


def _add_ratios(record: Found, times: dict[str, list[float]]) -> None:
    record["full_seconds"] = min(times["full"])
    if "device" in times:
        record["seconds"] = min(times["device"])
        record["time_ratio"] = median_ratio(times["device"], times["full"])
    if "host" in times:
        record["with_host"]["time_ratio"] = median_ratio(times["host"], times["full"])


def under_hard_cap(case: Case, cap_bytes: int) -> Found:
    """Whether an iteration finishes when the allocator may reserve no more than the budget, and what it did.

    The plan gets less than the cap, for the allocator's segments; where nothing fits, the answer says so.
    """
    try:
        case.budgeted(plannable_bytes(cap_bytes))()
        case.module.zero_grad(set_to_none=True)
        with hard_cap(cap_bytes) as planned_bytes:
            before = torch.cuda.memory_reserved()
            gaps_bytes = before - torch.cuda.memory_allocated()
            torch.cuda.reset_peak_memory_stats()
            case.budgeted(planned_bytes)()
            reserved_bytes = torch.cuda.max_memory_reserved() - before
            return {"reserved_peak_bytes": reserved_bytes, "gaps_before_bytes": gaps_bytes}
    except (BudgetTooSmall, ValueError) as refusal:
        return {"refused": str(refusal)}
    except torch.OutOfMemoryError as error:
        return {"out_of_memory": in_words(error)}
    except Exception as error:
        return {"failed": in_words(error)}


def _add_rival(case: Case, record: Found, rounds: int) -> None:
    """torch.utils.checkpoint at the fastest of its segment counts whose peak is not above ours."""
    ours = record.get("measured_peak_bytes")
    if ours is None:
        return
    peaks = {
        count: measured(case.module, case.checkpointed(count)).peak_bytes for count in CHECKPOINT_SEGMENTS
    }
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
