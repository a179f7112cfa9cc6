"""Placement: 1,000 different jobs against 10,000 different holes, in process and over HTTP.

Seconds of one answer, the kernels warm, the request parsed and the reply written in them; processor
seconds beside, which a crowded machine changes less. How far the curves are above the plans is measured on
some of the jobs: the slowdown that was said over that of the plan of the same bytes.
"""

from __future__ import annotations

import json
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import httpx

from benchmarks.arguments import without_arguments
from benchmarks.machine import RESULTS, description
from benchmarks.placement.clusters import holes, jobs
from planner_service.api.jobs.collector import settle_collector
from planner_service.contract import PlacementRequest, PlanRequest
from planner_service.planning import Planner
from planner_service.solvers import warm_up
from tests.serving import start_service

JOBS, HOLES = 1_000, 10_000
REPEATS = 5
TARGET_SECONDS = 2.0
COMPARED_JOBS = 24


def in_process(body: str) -> Callable[[], int]:
    """Parse, place, write; returns the reply's size in bytes."""
    planner = Planner()

    def answer() -> int:
        request = PlacementRequest.model_validate_json(body)
        return len(planner.place(request).model_dump_json())

    return answer


def timed(answer: Callable[[], int]) -> dict[str, object]:
    """Seconds of every repeat, on the clock and on the processor."""
    clock, processor, size = [], [], 0
    for _ in range(REPEATS):
        started, used = time.perf_counter(), time.process_time()
        size = answer()
        processor.append(time.process_time() - used)
        clock.append(time.perf_counter() - started)
    return {
        "reply_bytes": size,
        "seconds": [round(each, 3) for each in clock],
        "processor_seconds": [round(each, 3) for each in processor],
        "best_seconds": round(min(clock), 3),
        "median_seconds": round(statistics.median(clock), 3),
    }


def over_http() -> dict[str, object]:
    """The same over a real socket: a body that was not asked before every time, so that nothing is cached."""
    clock = []
    with tempfile.TemporaryDirectory() as folder:
        server = start_service(Path(folder), TIGHTFIT_MAX_BODY_BYTES=str(2**26))
        try:
            for seed in range(REPEATS):
                body = json.dumps({"jobs": jobs(JOBS, seed), "holes": holes(HOLES, seed)})
                headers = {"content-type": "application/json"}
                started = time.perf_counter()
                answer = httpx.post(f"{server.url}/v1/placements", content=body, headers=headers, timeout=60)
                answer.raise_for_status()
                clock.append(time.perf_counter() - started)
        finally:
            server.terminate()
    return {"seconds": [round(each, 3) for each in clock], "best_seconds": round(min(clock), 3)}


def closeness() -> dict[str, object]:
    """The slowdown that was said over that of the plan of the same bytes, at random offers."""
    planner, draw = Planner(), random.Random(0)
    ratios = []
    queue, cluster = jobs(COMPARED_JOBS), holes(200)
    request = PlacementRequest.model_validate({"jobs": queue, "holes": cluster, "planned_offers": 0})
    for asked, job in zip(queue, planner.place(request).jobs, strict=True):
        offer = draw.choice([each for each in job.offers if each.fits])
        question = {name: asked[name] for name in ("model", "sequence")} | {"device": "cuda"}
        memory = {"device_budget_bytes": offer.available_bytes}
        plan = planner.plan(PlanRequest.model_validate({**question, "memory": memory}))
        ratios.append(offer.slowdown_ratio / (1 + plan.cost.overhead_ratio))
    return {
        "offers": len(ratios),
        "least_ratio": round(min(ratios), 4),
        "median_ratio": round(statistics.median(ratios), 4),
        "largest_ratio": round(max(ratios), 4),
    }


def main() -> int:
    """Measure, print, keep; exit status 1 where an answer takes longer than the target."""
    warm_up()
    settle_collector()  # as the service does when it is warm
    body = json.dumps({"jobs": jobs(JOBS), "holes": holes(HOLES)})
    found = {
        "machine": description("numpy", "numba", "pydantic"),
        "jobs": JOBS,
        "holes": HOLES,
        "request_bytes": len(body),
        "in_process": timed(in_process(body)),
        "over_http": over_http(),
        "said_over_planned_slowdown": closeness(),
    }
    found["one_job"] = timed(
        in_process(json.dumps({"jobs": jobs(1), "holes": holes(HOLES), "planned_offers": 0}))
    )
    print(json.dumps(found, indent=2))
    (RESULTS / "placement.json").write_text(json.dumps(found, indent=2) + "\n")
    return int(min(found["in_process"]["seconds"]) > TARGET_SECONDS)


if __name__ == "__main__":
    without_arguments(__doc__)
    sys.exit(main())
