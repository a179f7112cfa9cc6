"""Measures one call of our planner in a process of its own and prints one JSON line.

python -m benchmarks.planner.our_process homogeneous ROUNDS STEPS UNITS TAPE
python -m benchmarks.planner.our_process rotor ROUNDS LENGTH
python -m benchmarks.planner.our_process expand ROUNDS STEPS UNITS TAPE
python -m benchmarks.planner.our_process cold STEPS UNITS TAPE
"""

from __future__ import annotations

import json
import resource
import sys
import time
from collections.abc import Callable
from typing import Any

from planner_service.chain import Chain, Stage, StageRun, expand
from planner_service.solvers import Solution, solve, warm_up
from tests.oracles.rotor import chain_on_the_grid


def unit_chain(steps: int, tape: int) -> Chain:
    """Unit forwards, states of one unit, tapes of `tape` units, no gradients; the start state counts.

    With `tape` 1 this is the model of checkpoint_schedules' mixed schedule, except that a tape also
    serves as a restart point, as it does in autograd.
    """
    step = Stage(
        forward_cost=1,
        taped_forward_cost=1,
        backward_cost=0,
        state_bytes=1,
        tape_bytes=tape,
        gradient_bytes=0,
    )
    return Chain((StageRun(steps, step),), input_bytes=1, input_gradient_bytes=0)


def homogeneous(steps: str, units: str, tape: str) -> Callable[[], Solution]:
    """A plan in `units` units for what is stored, the start state among them.

    On top comes what the running step needs, which the peers leave uncounted and our model charges:
    its tape, and the state in flight beside it.
    """
    chain = unit_chain(int(steps), int(tape))
    return lambda: solve(chain, int(units) + int(tape) + 1, "optimal")


def rotor(length: str) -> Callable[[], Solution]:
    """A plan of a recorded heterogeneous chain on rotor's grid of 500 units."""
    chain, slots = chain_on_the_grid(length)
    return lambda: solve(chain, slots, "optimal")


def expansion(steps: str, units: str, tape: str) -> Callable[[], int]:
    """Enumerating every action of one plan; the plan itself is made before the clock starts."""
    policy = homogeneous(steps, units, tape)().policy
    return lambda: sum(1 for _ in expand(policy))


def timed(call: Callable[[], Any], rounds: int) -> tuple[list[tuple[float, float]], Any]:
    """Wall and CPU seconds of each of `rounds` calls, and the last result."""
    seconds, found = [], None
    for _ in range(rounds):
        started = time.perf_counter(), time.process_time()
        found = call()
        seconds.append((time.perf_counter() - started[0], time.process_time() - started[1]))
    return seconds, found


def record(seconds: list[tuple[float, float]], **more: object) -> dict[str, object]:
    """One JSON line's content."""
    return {
        "wall_seconds": [wall for wall, _ in seconds],
        "cpu_seconds": [cpu for _, cpu in seconds],
        "peak_rss_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        **more,
    }


def solution_record(seconds: list[tuple[float, float]], solution: Solution) -> dict[str, object]:
    """A plan's times with its cost and how good it is proven to be."""
    return record(
        seconds,
        cost=solution.verdict.makespan,
        lower_bound=solution.lower_bound,
        optimality=solution.optimality,
        policy_nodes=len(solution.policy.nodes),
    )


def main() -> None:
    """Run what the command line names."""
    name, *arguments = sys.argv[1:]
    if name == "cold":
        solution = homogeneous(*arguments)()
        spent = time.process_time()  # since the process began: interpreter, imports, kernels, plan
        print(json.dumps(solution_record([(spent, spent)], solution)))
        return
    rounds, *arguments = arguments
    warm_up()
    if name == "expand":
        call = expansion(*arguments)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        seconds, actions = timed(call, int(rounds))
        print(json.dumps(record(seconds, actions=actions, peak_rss_before_bytes=before)))
        return
    call = {"homogeneous": homogeneous, "rotor": rotor}[name](*arguments)
    print(json.dumps(solution_record(*timed(call, int(rounds)))))


if __name__ == "__main__":
    main()
