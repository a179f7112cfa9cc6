"""Chains planned in groups of stages, where stage by stage there would be too many subproblems.

A group is advanced as a whole and taped as a whole; a checkpoint is stored between groups only. A
grouped chain is a chain again, so every solver takes it, and each of its policies is a policy of the
stages. What it costs is generality: its optimum is an upper bound, and the least budget is larger.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate

import numpy as np
from numpy.typing import NDArray

from planner_service.solvers.needs import (
    FIRST_ADVANCE,
    GRADIENT,
    NEXT_ADVANCE,
    REVERSE_NEED,
    STATE,
    TAPE_BYTES,
    TAPE_NEED,
    ChainNeeds,
    NeedsRun,
    StageNeeds,
)


@dataclass(frozen=True)
class Grouping:
    """A grouped chain, and how many stages each run of its groups has per group."""

    needs: ChainNeeds
    widths: tuple[int, ...]

    @cached_property
    def _runs_before(self) -> list[tuple[int, int]]:
        """Groups and stages before each run."""
        groups = [0, *accumulate(run.count for run in self.needs.runs)]
        pairs = zip(self.needs.runs, self.widths, strict=True)
        stages = [0, *accumulate(run.count * width for run, width in pairs)]
        return list(zip(groups, stages, strict=True))

    def stages_before(self, group: int) -> int:
        """Number of stages in the groups before `group`, counted from 0."""
        run = bisect_right(self._runs_before, (group, np.inf)) - 1
        groups, stages = self._runs_before[run]
        width = self.widths[run] if run < len(self.widths) else 0
        return stages + (group - groups) * width


def ungrouped(needs: ChainNeeds) -> Grouping:
    """Every stage a group of its own."""
    return Grouping(needs, (1,) * len(needs.runs))


def group_body(needs: ChainNeeds, width: int) -> Grouping:
    """`width` body stages to a group, the remainder in one group before them; the rest as it is."""
    runs: list[NeedsRun] = []
    widths: list[int] = []
    for index, run in enumerate(needs.runs):
        if index != needs.body_run:
            runs.append(run)
            widths.append(1)
            continue
        groups, remainder = divmod(run.count, width)
        if remainder:
            runs.append(NeedsRun(1, _equal_stages(run.needs, remainder)))
            widths.append(remainder)
        body = len(runs)
        runs.append(NeedsRun(groups, _equal_stages(run.needs, width)))
        widths.append(width)
    return Grouping(ChainNeeds(tuple(runs), body), tuple(widths))


def group_evenly(needs: ChainNeeds, groups: int) -> Grouping:
    """The whole chain in at most `groups` groups of nearly equally many stages."""
    starts = np.unique(np.linspace(0, needs.length, groups + 1).astype(np.int64)[:-1])
    table, kind = needs.table, needs.kind
    tapes = np.cumsum(table[kind, TAPE_BYTES]) - table[kind, TAPE_BYTES]
    before = tapes - np.repeat(tapes[starts], np.diff([*starts, needs.length]))
    ends = np.append(starts[1:], needs.length) - 1
    advancing = table[kind, NEXT_ADVANCE].copy()
    advancing[starts] = table[kind[starts], FIRST_ADVANCE]
    columns: dict[int, NDArray[np.int64]] = {
        STATE: table[kind[ends], STATE],
        TAPE_BYTES: np.add.reduceat(table[kind, TAPE_BYTES], starts),
        GRADIENT: table[kind[ends], GRADIENT],
        TAPE_NEED: np.maximum.reduceat(before + table[kind, TAPE_NEED], starts),
        REVERSE_NEED: np.maximum.reduceat(before + table[kind, REVERSE_NEED], starts),
        FIRST_ADVANCE: np.maximum.reduceat(advancing, starts),
        NEXT_ADVANCE: np.maximum.reduceat(table[kind, NEXT_ADVANCE], starts),
    }
    costs = np.add.reduceat(needs.advance_cost[kind], starts).tolist()
    rows = np.stack([columns[column] for column in range(len(columns))], axis=1).tolist()
    runs = [NeedsRun(1, StageNeeds(cost, *row)) for cost, row in zip(costs, rows, strict=True)]
    return Grouping(ChainNeeds(tuple(runs), len(runs) - 1), tuple((ends - starts + 1).tolist()))


def _equal_stages(stage: StageNeeds, width: int) -> StageNeeds:
    """`width` interchangeable stages as one."""
    taped_before = (width - 1) * stage.tape_bytes
    several = max(stage.first_advance_bytes, stage.next_advance_bytes)
    return stage._replace(
        advance_cost=width * stage.advance_cost,
        tape_bytes=width * stage.tape_bytes,
        tape_need_bytes=taped_before + stage.tape_need_bytes,
        reverse_need_bytes=taped_before + stage.reverse_need_bytes,
        first_advance_bytes=several if width > 1 else stage.first_advance_bytes,
    )
