"""The least memory that any persistent policy needs: what a refusal names, to the byte."""

from __future__ import annotations

import numpy as np
from numba import njit

from planner_service.solvers import kernels
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
        return int(_least_of_intervals(needs, cancellation)[0, -1])
    least = np.empty((sections.families, sections.body_stages + 1), dtype=np.int64)
    fill_least_of_sections(
        sections.prefix_table,
        sections.body_needs,
        sections.suffix_table,
        _least_of_part(sections.prefix, cancellation),
        _least_of_part(sections.suffix, cancellation),
        least,
        cancellation.flag,
    )
    cancellation.check()
    return int(least[sections.suffix_table.shape[0], -1])


def _least_of_part(part: ChainNeeds | None, cancellation: Cancellation) -> Bytes:
    return np.empty((0, 0), dtype=np.int64) if part is None else _least_of_intervals(part, cancellation)


def _least_of_intervals(needs: ChainNeeds, cancellation: Cancellation) -> Bytes:
    """Least free bytes of every interval first..last, shape (L, L)."""
    least = np.empty((needs.length, needs.length), dtype=np.int64)
    fill_least_of_intervals(needs.table[needs.kind], least, cancellation.flag)
    cancellation.check()
    return least


@njit(nogil=True, cache=True)
def fill_least_of_intervals(needs, least, cancelled):
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


@njit(nogil=True, cache=True)
def fill_least_of_sections(prefix, body, suffix, prefix_least, suffix_least, least, cancelled):
    """Least free bytes of the interval (s, t, n), into least[s * (S + 1) + t, n] (sections.py).

    Adding a body stage never needs less memory, so the best place for a checkpoint inside the body is
    where the needs of its two sides cross.
    """
    prefixes, ends = len(prefix), len(suffix) + 1
    for t in range(ends):
        gradient = body[GRADIENT] if t == 0 else suffix[t - 1, GRADIENT]
        for s in range(prefixes, -1, -1):
            if cancelled[0]:
                return
            here = body if s == prefixes else prefix[s]
            row = least[s * ends + t]
            left = least[s * ends]
            right = least[prefixes * ends + t]
            row[0] = NEVER
            if s == prefixes:
                row[0] = 0 if t == 0 else suffix_least[0, t - 1]
            elif t == 0:
                row[0] = prefix_least[s, prefixes - 1]
            taping = max(gradient + here[TAPE_NEED], here[REVERSE_NEED])
            for n in range(1, len(row)):
                rest = row[n - 1] if s == prefixes else least[(s + 1) * ends + t, n]
                best = max(taping, here[TAPE_BYTES] + rest)
                need = gradient + here[FIRST_ADVANCE]
                for stored in range(s, prefixes):
                    if stored > s:
                        need = max(need, gradient + prefix[stored, NEXT_ADVANCE])
                    after = prefix[stored, STATE] + least[(stored + 1) * ends + t, n]
                    best = min(best, max(need, after, prefix_least[s, stored]))
                several = max(need, gradient + body[NEXT_ADVANCE])
                single = need if s == prefixes else several
                most = n - 1 if t == 0 else n
                if most >= 1:
                    best = min(best, max(single, body[STATE] + right[n - 1], left[1]))
                if most >= 2 and several < best:
                    low, high = 2, most
                    while low < high:
                        middle = (low + high) // 2
                        if left[middle] >= body[STATE] + right[n - middle]:
                            high = middle
                        else:
                            low = middle + 1
                    for k in range(max(2, low - 1), low + 1):
                        best = min(best, max(several, body[STATE] + right[n - k], left[k]))
                need = single if n == 1 else several
                for stored in range(t - 1):
                    need = max(need, gradient + suffix[stored, NEXT_ADVANCE])
                    after = suffix[stored, STATE] + suffix_least[stored + 1, t - 1]
                    best = min(best, max(need, after, least[s * ends + stored + 1, n]))
                row[n] = best
