"""Runs inside a peer's own interpreter: measures one call and prints one JSON line.

Uses nothing but the standard library and the peer. The interpreter has no tightfit installed.

    python peer_process.py PEER ROUNDS ARGUMENT …
"""

from __future__ import annotations

import json
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any


def mixed(steps: str, snapshots: str) -> tuple[Callable[[], Any], Callable[[Any], int]]:
    """checkpoint_schedules' mixed schedule: plan, that is: construct it and ask for the first action.

    Without numba it remembers across calls: measure one call a process.
    """
    from checkpoint_schedules import MixedCheckpointSchedule, StorageType
    from checkpoint_schedules import mixed as internals

    length, units = int(steps), int(snapshots)

    def plan() -> Any:
        schedule = MixedCheckpointSchedule(length, units, storage=StorageType.RAM)
        return next(iter(schedule))

    def cost(_: Any) -> int:
        if internals.numba is None:
            return int(internals.mixed_step_memoization(length, units)[2])
        return int(internals.mixed_steps_tabulation(length, units)[length, units][2])

    return plan, cost


def multistage(steps: str, snapshots: str) -> tuple[Callable[[], Any], Callable[[Any], int]]:
    """checkpoint_schedules' binomial schedule in one tier, every action enumerated; counts actions."""
    from checkpoint_schedules import MultistageCheckpointSchedule

    def plan() -> int:
        return sum(1 for _ in MultistageCheckpointSchedule(int(steps), int(snapshots), 0))

    return plan, int


def pyrevolve(steps: str, snapshots: str) -> tuple[Callable[[], Any], Callable[[Any], int]]:
    """Pyrevolve's C++ Revolve, stepped until it terminates: counts forward steps."""
    from pyrevolve import crevolve

    def plan() -> int:
        revolve = crevolve.CRevolve(int(snapshots), int(steps), None)
        forward = 0
        while (action := revolve.revolve()) is not crevolve.Action.terminate:
            if action is crevolve.Action.advance:
                forward += revolve.capo - revolve.oldcapo
            elif action in (crevolve.Action.firstrun, crevolve.Action.youturn):
                forward += 1
        return forward

    return plan, int


def rotor(sources: str, chain_file: str, length: str) -> tuple[Callable[[], Any], Callable[[Any], float]]:
    """Rotor's C solver on a recorded chain, in 500 memory units, and its sequence of operations."""
    sys.path[:0] = [sources, str(Path(sources) / "algorithms")]
    from algorithms import Chain, persistent
    from algorithms.persistent import c_version_present

    if not c_version_present:
        raise ImportError("rotor's C extension is not built")
    sys.setrecursionlimit(100_000)
    given = json.loads(Path(chain_file).read_text())["chains"][length]
    unit = given["budget"] // given["slots"]

    def units(sizes: list[int]) -> list[int]:
        return [-(-size // unit) for size in sizes]

    chain = Chain(
        given["ftime"], given["btime"], units(given["x"]), units(given["xbar"]),
        units(given["ftmp"]), units(given["btmp"]),
    )  # fmt: skip
    return lambda: persistent(chain, given["slots"]), lambda sequence: float(sequence.get_makespan(chain))


PEERS = {"mixed": mixed, "multistage": multistage, "pyrevolve": pyrevolve, "rotor": rotor}


def main() -> None:
    """Time ROUNDS calls after one small call of the same kind that compiles what is compiled."""
    name, rounds, *arguments = sys.argv[1:]
    if name == "mixed":
        mixed("20", "3")[0]()
    plan, cost = PEERS[name](*arguments)
    seconds, found = [], None
    for _ in range(int(rounds)):
        started = time.perf_counter(), time.process_time()
        found = plan()
        seconds.append((time.perf_counter() - started[0], time.process_time() - started[1]))
    record = {
        "wall_seconds": [wall for wall, _ in seconds],
        "cpu_seconds": [cpu for _, cpu in seconds],
        "peak_rss_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        "cost": cost(found),
    }
    print(json.dumps(record))


if __name__ == "__main__":
    main()
