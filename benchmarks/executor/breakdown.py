"""Where the time of one iteration goes: `python -m benchmarks.executor.breakdown`.

The engine tells when each action begins, so that an iteration falls into the first pass, what runs again,
tapes, backward passes, and what happens between the actions (the caller's loss, autograd's entry).
"""

from __future__ import annotations

import json
import time
from collections import defaultdict
from statistics import median
from typing import Any

import torch

from benchmarks.arguments import without_arguments
from benchmarks.executor.__main__ import SHARES, STEPS, peak_bytes, seconds, too_slow
from benchmarks.executor.cases import Case, fused, looped
from benchmarks.machine import RESULTS, description
from executor import BudgetTooSmall
from executor.execute import execute
from executor.known import known
from executor.loop import Loop
from executor.predict import plan_for
from planner_service.chain import Advance, Backward, Tape

ROUNDS = 5
NAMES = {Advance: "advance", Tape: "tape", Backward: "backward"}


def cases() -> list[Case]:
    """Fused segments and loops of cells, H256 B16."""
    sizes = {"hidden": 256, "batch": 16, "steps": STEPS}
    own = [looped(kind, cells="own", **sizes) for kind in ("lstm", "gru")]  # type: ignore[arg-type]
    return [*(fused(kind, **sizes) for kind in ("lstm", "gru")), *own]


def rows_of(case: Case) -> list[dict[str, Any]]:
    """One row per budget that has a plan: medians over rounds, in seconds."""
    full_bytes = peak_bytes(case.full_iteration)
    full = median(seconds(case.full_iteration) for _ in range(ROUNDS))
    rows = []
    for share in SHARES:
        try:
            rows.append(
                {"case": case.name, "share": share, "full": full, **_breakdown(case, int(share * full_bytes))}
            )
        except BudgetTooSmall:
            continue
    return rows


def _breakdown(case: Case, budget_bytes: int) -> dict[str, Any]:
    loop = case.loop()
    plan = plan_for(loop, budget_bytes)
    if too_slow(plan, seconds(case.full_iteration)):
        return {"segment_steps": plan.segment_steps, "predicted": plan.makespan_seconds}
    rounds = [_one_round(loop, plan, case) for _ in range(ROUNDS)]
    parts = {name: median(each[name] for each in rounds) for name in rounds[0]}
    return {"segment_steps": plan.segment_steps, "predicted": plan.makespan_seconds, **parts}


def _one_round(loop: Loop, plan: Any, case: Case) -> dict[str, float]:
    spent: dict[str, float] = defaultdict(float)
    running, since = "between", time.thread_time()
    backwards = 0

    def observe(action: Any) -> None:
        nonlocal running, since, backwards
        now = time.thread_time()
        spent[running] += now - since
        backwards += isinstance(action, Backward)
        running, since = NAMES.get(type(action), "between"), now
        if running == "advance" and backwards:
            running = "advance again"

    case.module.zero_grad(set_to_none=True)
    begin = time.thread_time()
    loss, _ = execute(loop, plan, known(loop).needs(loop), observe)
    loss.backward()
    spent["total"] = time.thread_time() - begin
    spent["between"] = spent["total"] - sum(spent[name] for name in (*NAMES.values(), "advance again"))
    return dict(spent)


def main() -> int:
    """Measure, print and write benchmarks/results/executor-breakdown.json."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    rows = [row for case in cases() for row in rows_of(case)]
    found = {"machine": description("torch"), "rounds": ROUNDS, "steps": STEPS, "rows": rows}
    path = RESULTS / "executor-breakdown.json"
    path.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    for row in rows:
        print({name: round(value, 3) if isinstance(value, float) else value for name, value in row.items()})
    return 0


if __name__ == "__main__":
    without_arguments(__doc__)
    raise SystemExit(main())
