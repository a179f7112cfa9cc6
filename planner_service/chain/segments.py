"""The chain of an unrolled model whose steps are run in segments.

T steps in segments of k make a chain of nearly equal stages: the first one meets the caller's state,
the last one may be shorter (the remainder) and meets the loss.
"""

from __future__ import annotations

from planner_service.chain.chain import Chain, StageRun, merge_runs
from planner_service.chain.errors import InvalidChain
from planner_service.chain.stage import Stage


def segment_sizes(length: int, segment_steps: int) -> tuple[int, int]:
    """Number of segments and steps in the last one, for `length` steps in segments of `segment_steps`.

    Raises InvalidChain unless both are positive.
    """
    if length < 1:
        raise InvalidChain(f"length={length} must be positive", field="sequence.length")
    if segment_steps < 1:
        raise InvalidChain(f"segment_steps={segment_steps} must be positive")
    segments = -(-length // segment_steps)
    return segments, length - (segments - 1) * segment_steps


def segmented_chain(
    inner: Stage,
    segments: int,
    *,
    first: Stage | None = None,
    last: Stage | None = None,
    input_bytes: int = 0,
    static_bytes: int = 0,
    loss_gradient_bytes: int = 0,
    input_gradient_bytes: int | None = None,
) -> Chain:
    """`segments` stages equal to `inner`, except the `first` and the `last` where they are given.

    A single segment is the `last` one. Raises InvalidChain unless `segments` is positive.
    """
    if segments < 1:
        raise InvalidChain(f"segments={segments} must be positive")
    runs = [StageRun(1, last or inner)]
    if segments > 1:
        runs.insert(0, StageRun(1, first or inner))
    if segments > 2:
        runs.insert(1, StageRun(segments - 2, inner))
    return Chain(
        merge_runs(runs),
        input_bytes=input_bytes,
        static_bytes=static_bytes,
        loss_gradient_bytes=loss_gradient_bytes,
        input_gradient_bytes=input_gradient_bytes,
    )
