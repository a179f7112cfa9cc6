"""The least memory that any persistent policy needs: what a refusal names, to the byte."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from planner_service.solvers.compiled import inner_kernel, kernel
from planner_service.solvers.needs import (
    FIRST_ADVANCE,
    GRADIENT,
    NEXT_ADVANCE,
    REVERSE_NEED,
    STATE,
    TAPE_BYTES,
    TAPE_NEED,
    Bytes,
    ChainNeeds,
    Flag,
)
from planner_service.solvers.sections import Sections
from planner_service.solvers.solution import Cancellation

NEVER = 2**62
"""Stands for more bytes than any budget."""


def least_free_bytes(needs: ChainNeeds, cancellation: Cancellation) -> int:
    """Least free bytes (beyond static bytes and x_0) for which some policy reverses the chain.

    O(N log N) time for N body stages of a nearly homogeneous chain, O(L^3) otherwise.
    """
    sections = Sections(needs)
    if not sections.nearly_homogeneous:
        return int(least_of_intervals(needs, cancellation)[0, -1])
    least = np.empty((sections.families, sections.body_stages + 1), dtype=np.int64)
    chain = Sectioned(
        sections.prefix_table,
        sections.body_needs,
        sections.suffix_table,
        _least_of_part(sections.prefix, cancellation),
        _least_of_part(sections.suffix, cancellation),
    )
    fill_least_of_sections(chain, least, cancellation.flag)
    cancellation.check()
    return int(least[sections.suffix_table.shape[0], -1])


def _least_of_part(part: ChainNeeds | None, cancellation: Cancellation) -> Bytes:
    return np.empty((0, 0), dtype=np.int64) if part is None else least_of_intervals(part, cancellation)


def least_of_intervals(needs: ChainNeeds, cancellation: Cancellation) -> Bytes:
    """Least free bytes of every interval first..last, shape (L, L)."""
    least = np.empty((needs.length, needs.length), dtype=np.int64)
    fill_least_of_intervals(needs.table[needs.kind], least, cancellation.flag)
    cancellation.check()
    return least


@kernel
def fill_least_of_intervals(needs: Bytes, least: Bytes, cancelled: Flag) -> None:
    """Least free bytes of every interval, into least[first, last]; needs per stage, shape (L, 7)."""
    for last in range(len(needs)):
        if cancelled[0]:
            return
        gradient = needs[last, GRADIENT]
        for first in range(last, -1, -1):
            best = max(gradient + needs[first, TAPE_NEED], needs[first, REVERSE_NEED])
            if first < last:
                best = max(best, needs[first, TAPE_BYTES] + least[first + 1, last])
            need = gradient + needs[first, FIRST_ADVANCE]
            for stored in range(first, last):
                if stored > first:
                    need = max(need, gradient + needs[stored, NEXT_ADVANCE])
                if need >= best:
                    break
                right = needs[stored, STATE] + least[stored + 1, last]
                best = min(best, max(need, right, least[first, stored]))
            least[first, last] = best


class Sectioned(NamedTuple):
    """The chain by sections (sections.py), and the least bytes of the intervals beside the body."""

    prefix: Bytes
    """Shape (P, 7)."""
    body: Bytes
    suffix: Bytes
    prefix_least: Bytes
    """Shape (P, P), in bytes."""
    suffix_least: Bytes


@kernel
def fill_least_of_sections(chain: Sectioned, least: Bytes, cancelled: Flag) -> None:
    """Least free bytes of the interval (s, t, n), into least[s * (S + 1) + t, n]."""
    prefixes, ends = len(chain.prefix), len(chain.suffix) + 1
    for t in range(ends):
        for s in range(prefixes, -1, -1):
            row = least[s * ends + t]
            row[0] = NEVER
            if s == prefixes:
                row[0] = 0 if t == 0 else chain.suffix_least[0, t - 1]
            elif t == 0:
                row[0] = chain.prefix_least[s, prefixes - 1]
            if cancelled[0]:
                return
            for n in range(1, len(row)):
                row[n] = _least_of_section(chain, least, s, t, n)


@inner_kernel
def _least_of_section(chain: Sectioned, least: Bytes, s: int, t: int, n: int) -> int:
    """Least free bytes of one interval from those of smaller ones."""
    prefix, body, suffix = chain.prefix, chain.body, chain.suffix
    prefixes, ends = len(prefix), len(suffix) + 1
    gradient = body[GRADIENT] if t == 0 else suffix[t - 1, GRADIENT]
    here = body if s == prefixes else prefix[s]
    rest = least[s * ends + t, n - 1] if s == prefixes else least[(s + 1) * ends + t, n]
    best = max(gradient + here[TAPE_NEED], here[REVERSE_NEED], here[TAPE_BYTES] + rest)
    need = gradient + here[FIRST_ADVANCE]
    for stored in range(s, prefixes):
        if stored > s:
            need = max(need, gradient + prefix[stored, NEXT_ADVANCE])
        right = prefix[stored, STATE] + least[(stored + 1) * ends + t, n]
        best = min(best, max(need, right, chain.prefix_least[s, stored]))
    several = max(need, gradient + body[NEXT_ADVANCE])
    single = need if s == prefixes else several
    most = n - 1 if t == 0 else n
    left, right_row = least[s * ends], least[prefixes * ends + t]
    if most >= 1:
        best = min(best, max(single, body[STATE] + right_row[n - 1], left[1]))
    if most >= 2 and several < best:
        best = min(best, max(several, _crossing(left, right_row, n, most, body[STATE])))
    need = single if n == 1 else several
    for stored in range(t - 1):
        need = max(need, gradient + suffix[stored, NEXT_ADVANCE])
        right = suffix[stored, STATE] + chain.suffix_least[stored + 1, t - 1]
        best = min(best, max(need, right, least[s * ends + stored + 1, n]))
    return int(best)


@inner_kernel
def _crossing(left: Bytes, right: Bytes, n: int, most: int, state_bytes: int) -> int:
    """Least max(left[k], state + right[n - k]) for 2 <= k <= most.

    Adding a body stage never needs less memory, so the best place is where the two sides cross.
    """
    low, high = 2, most
    while low < high:
        middle = (low + high) // 2
        if left[middle] >= state_bytes + right[n - middle]:
            high = middle
        else:
            low = middle + 1
    before = max(2, low - 1)
    at_crossing = max(left[low], state_bytes + right[n - low])
    return int(min(at_crossing, max(left[before], state_bytes + right[n - before])))
