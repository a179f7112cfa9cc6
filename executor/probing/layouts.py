"""Gradients that the caller hands in may lie otherwise than what they are of, and kernels copy them then.

The last state of a convolution may be channels_last, and the gradient of its mean lies row by row all the
same; so does that of a layer which flattens it. A rehearsal hands in both, and what takes more counts.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from executor.probing.action_costs import ActionBytes, RunBytes
from executor.probing.rehearsal import Rehearsal


def in_both_layouts(rehearsal: Rehearsal, run: Callable[[], RunBytes]) -> RunBytes:
    """The bytes of `run`, a run of the rehearsal, with the gradients that take more."""
    found = run()
    if not rehearsal.lies_across:
        return found
    with rehearsal.row_by_row():
        other = run()
    pieces = [_larger(*pair) for pair in zip(found.pieces, other.pieces, strict=True)]
    return found._replace(pieces=pieces, peak_bytes=max(found.peak_bytes, other.peak_bytes))


def _larger(one: ActionBytes, other: ActionBytes) -> ActionBytes:
    grown_bytes = max(each.peak_bytes - each.before_bytes for each in (one, other))
    return replace(one, peak_bytes=one.before_bytes + grown_bytes)
