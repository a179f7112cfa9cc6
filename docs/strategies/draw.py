"""Draws the schedule of every strategy: `python docs/strategies/draw.py` rewrites the pictures.

Above: which step runs when, as the simulator replays it. Below: what is live, against the budget.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from planner_service.chain import (
    Advance,
    Archive,
    Backward,
    Chain,
    Free,
    Policy,
    Reversal,
    Stage,
    StageRun,
    Tape,
    Undo,
    Verdict,
    expand,
)
from planner_service.chain.tiers import Tier
from planner_service.chain.tiers_actions import Discard, Fetch, Move, Store, TieredAction
from planner_service.chain.tiers_policy import expand_tiers
from planner_service.chain.tiers_simulator import TimedMoment, timed_moments
from planner_service.solvers import solve
from planner_service.solvers.offload.solve import solve_offload

PICTURES = Path(__file__).parent / "pictures"

STEP = Stage(forward_cost=1, taped_forward_cost=1, backward_cost=2, state_bytes=1, tape_bytes=4)
CHAIN = Chain((StageRun(24, STEP),), input_bytes=1, loss_gradient_bytes=1)

UNDONE = Stage(
    forward_cost=1,
    taped_forward_cost=1,
    backward_cost=2,
    state_bytes=4,
    tape_bytes=16,
    reversal=Reversal(archive_bytes=1, undo_cost=3, undo_workspace_bytes=12),
)
UNDONE_CHAIN = Chain((StageRun(24, UNDONE),), input_bytes=4, loss_gradient_bytes=4)
UNDONE_BUDGET = 44
"""The common chain with steps that can be undone, in quarters of its bytes: a step loses one quarter."""

BUDGETS = {
    "store_all": 99,
    "sqrt": 30,
    "every_k": 22,
    "chen_recursive": 14,
    "hidden": 14,
    "internal": 14,
    "mixed": 14,
    "optimal": 14,
}
"""Bytes of memory with which each strategy is drawn, on 24 steps with states of 1 and tapes of 4 bytes."""

HOST = Tier(
    name="host", budget_bytes=12, write_seconds_per_byte=1.0, read_seconds_per_byte=1.0, overlapped=True
)
OFFLOAD_BUDGET = 14
TRUNCATED_BUDGET = 28
"""Windows of six stages."""

WIDTH, STEPS_HEIGHT, BYTES_HEIGHT, GAP, LEFT, TOP = 640, 190, 90, 24, 46, 30
COLOURS = {
    "advance": "#8a8f98",
    "tape": "#1f77b4",
    "backward": "#d9622b",
    "checkpoint": "#2a9d5c",
    "archive": "#c9a227",
    "undo": "#b23a6f",
    "host": "#8e5bb5",
}


class Bar(NamedTuple):
    """Something that is live from one time to another, at one height."""

    kind: str
    begin: float
    end: float
    height: float


def singles(schedule: Iterable[TieredAction]) -> Iterator[TieredAction]:
    """The same schedule with one stage a record, so that every step shows its own bytes."""
    for action in schedule:
        if isinstance(action, Free | Store | Fetch | Discard):
            yield action
        elif isinstance(action, Advance | Archive):
            for stage in range(action.first, action.last + 1):
                yield type(action)(stage, stage)
                if stage > action.first:
                    yield Free(stage - 1)
        else:
            step = -1 if isinstance(action, Backward | Undo) else 1
            for stage in range(action.first, action.last + step, step):
                yield type(action)(stage, stage)


def replayed(
    schedule: Iterable[TieredAction],
    budget_bytes: int,
    tiers: tuple[Tier, ...] = (),
    *,
    chain: Chain = CHAIN,
) -> Iterator[TimedMoment]:
    """The schedule on the common chain."""
    return timed_moments(chain, tiers, singles(schedule), budget_bytes)


def windows(policy: Policy, budget_bytes: int) -> Iterator[TimedMoment]:
    """Truncated backpropagation: the policy's few stages again and again, each time as a chain of its own."""
    begin = 0.0
    for before in range(0, CHAIN.length, policy.length):
        piece = Chain((StageRun(policy.length, STEP),), input_bytes=1, loss_gradient_bytes=1)
        for moment in timed_moments(piece, (), singles(expand(policy)), budget_bytes):
            action = moment.action
            moved = type(action)(*(stage + before for stage in action))
            times = {"started_at": begin + moment.started_at, "ended_at": begin + moment.ended_at}
            yield moment._replace(action=moved, **times)
        begin += piece.store_all_makespan


class Picture:
    """One strategy's schedule as SVG elements."""

    def __init__(
        self, moments: Iterable[TimedMoment], budget_bytes: int, title: str, *, tiers: tuple[Tier, ...] = ()
    ) -> None:
        self.budget_bytes = budget_bytes
        self.tiers = tiers
        self.moments = list(moments)
        self.ends_at = self.moments[-1].ended_at
        self.most_bytes = max(budget_bytes, *(moment.peak_bytes for moment in self.moments))
        self.title = title

    def x(self, when: float) -> str:
        """Horizontal position of a time."""
        return f"{LEFT + when / self.ends_at * (WIDTH - LEFT - 8):.1f}"

    def step_y(self, step: float) -> str:
        """Vertical position of a step in the upper part."""
        return f"{TOP + STEPS_HEIGHT * (1 - step / CHAIN.length):.1f}"

    def bytes_y(self, size: float) -> str:
        """Vertical position of a byte count in the lower part."""
        return f"{TOP + STEPS_HEIGHT + GAP + BYTES_HEIGHT * (1 - size / self.most_bytes):.1f}"

    def svg(self) -> str:
        """The whole picture."""
        height = TOP + STEPS_HEIGHT + GAP + BYTES_HEIGHT + 22
        parts = [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" '
            'font-family="sans-serif" font-size="11">',
            f'<rect width="{WIDTH}" height="{height}" fill="white"/>',
            f'<text x="{LEFT}" y="13" font-size="12">{self.title}</text>',
            *self.legend(),
            *self.axes(),
            *self.lives(),
            *self.runs(),
            *self.memory(),
            "</svg>",
        ]
        return "\n".join(parts) + "\n"

    def legend(self) -> Iterator[str]:
        """Names of the colours, in one line under the title."""
        words = {"advance": "advance", "tape": "tape", "backward": "backward", "checkpoint": "stored state"}
        if self.tiers:
            words["host"] = "copy in host"
        if any(isinstance(moment.action, Undo) for moment in self.moments):
            words = {"advance": "advance", "archive": "archive", "undo": "undo", "checkpoint": "stored state"}
        for place, (kind, word) in enumerate(words.items()):
            x = LEFT + 95 * place
            yield f'<rect x="{x}" y="19" width="12" height="3" fill="{COLOURS[kind]}"/>'
            yield f'<text x="{x + 16}" y="24" font-size="10">{word}</text>'
        yield f'<rect x="{LEFT + 475}" y="17" width="12" height="7" fill="{COLOURS["tape"]}" opacity="0.15"/>'
        yield f'<text x="{LEFT + 491}" y="24" font-size="10">live tape</text>'

    def axes(self) -> Iterator[str]:
        """Frames, scales and the budget line."""
        right = WIDTH - 8
        for y, size in ((TOP, STEPS_HEIGHT), (TOP + STEPS_HEIGHT + GAP, BYTES_HEIGHT)):
            yield (
                f'<rect x="{LEFT}" y="{y}" width="{right - LEFT}" height="{size}" fill="none" stroke="#ccc"/>'
            )
        for step in (1, CHAIN.length):
            yield f'<text x="{LEFT - 6}" y="{self.step_y(step - 0.8)}" text-anchor="end">{step}</text>'
        yield f'<text x="4" y="{self.step_y(CHAIN.length / 2)}">step</text>'
        budget = self.bytes_y(self.budget_bytes)
        yield (
            f'<line x1="{LEFT}" x2="{right}" y1="{budget}" y2="{budget}" '
            'stroke="#c22" stroke-dasharray="5 3"/>'
        )
        yield f'<text x="{LEFT - 6}" y="{float(budget) + 4:.1f}" text-anchor="end">{self.budget_bytes}</text>'
        yield f'<text x="4" y="{self.bytes_y(self.most_bytes / 2)}">bytes</text>'
        bottom = TOP + STEPS_HEIGHT + GAP + BYTES_HEIGHT + 16
        yield f'<text x="{right}" y="{bottom}" text-anchor="end">time {self.ends_at:g}</text>'

    def bars(self) -> Iterator[Bar]:
        """How long every checkpoint, every tape and every copy in a tier lives."""
        born: dict[tuple[str, int], float] = {}
        for moment in self.moments:
            action, begin, end = moment.action, moment.started_at, moment.ended_at
            if isinstance(action, Advance | Move | Archive):
                born["checkpoint", action.last] = end
            elif isinstance(action, Undo):
                since = born.pop(("checkpoint", action.first))
                if begin - since > STEP.forward_cost:
                    yield Bar("checkpoint", since, end, action.first)
                born.setdefault(("checkpoint", action.last - 1), end)
            elif isinstance(action, Tape):
                born["tape", action.last] = begin
            elif isinstance(action, Backward):
                yield Bar("tape", born.pop(("tape", action.first)), end, action.first)
            elif isinstance(action, Store):
                born["host", action.state] = moment.transfer_ended_at
            elif isinstance(action, Fetch):
                born["checkpoint", action.state] = moment.transfer_started_at
            elif isinstance(action, Discard):
                yield Bar("host", born.pop(("host", action.state)), end, action.state)
            elif begin - (since := born.pop(("checkpoint", action.state))) > STEP.forward_cost:
                yield Bar("checkpoint", since, end, action.state)  # others are only passed through

    def lives(self) -> Iterator[str]:
        """Bars of what is kept: tapes as shades, checkpoints as lines."""
        step_height = STEPS_HEIGHT / CHAIN.length
        for bar in self.bars():
            x, width = self.x(bar.begin), float(self.x(bar.end)) - float(self.x(bar.begin))
            colour = COLOURS[bar.kind]
            if bar.kind == "tape":
                place = f'y="{self.step_y(bar.height)}" height="{step_height:.1f}" opacity="0.15"'
            else:
                above = 0.7 if bar.kind == "checkpoint" else -0.9  # both are seen when both are there
                place = f'y="{float(self.step_y(bar.height)) - above:.1f}" height="1.4"'
            yield f'<rect x="{x}" width="{width:.1f}" {place} fill="{colour}"/>'

    def runs(self) -> Iterator[str]:
        """One path per kind of action: forward runs rise, backward runs fall."""
        kinds = ("advance", "tape", "backward", "archive", "undo")
        paths: dict[str, list[str]] = {kind: [] for kind in kinds}
        for moment in self.moments:
            action = moment.action
            if not isinstance(action, Advance | Move | Tape | Backward | Archive | Undo):
                continue
            begin, end = moment.ended_at - moment.cost, moment.ended_at
            low, high = min(action.first, action.last) - 1, max(action.first, action.last)
            start, stop = (high, low) if isinstance(action, Backward | Undo) else (low, high)
            path = f"M{self.x(begin)} {self.step_y(start)}L{self.x(end)} {self.step_y(stop)}"
            kind = "advance" if isinstance(action, Move) else type(action).__name__.lower()
            paths[kind].append(path)
        for kind, pieces in ((kind, pieces) for kind, pieces in paths.items() if pieces):
            yield f'<path d="{"".join(pieces)}" stroke="{COLOURS[kind]}" stroke-width="2" fill="none"/>'

    def memory(self) -> Iterator[str]:
        """The live bytes as an area; each action is drawn at its own peak."""
        floor = self.bytes_y(0)
        points = [f"{self.x(0)},{floor}"]
        for moment in self.moments:
            if moment.ended_at > moment.started_at:
                height = self.bytes_y(moment.peak_bytes)
                points += [f"{self.x(when)},{height}" for when in (moment.started_at, moment.ended_at)]
        points.append(f"{self.x(self.ends_at)},{floor}")
        yield f'<polygon points="{" ".join(points)}" fill="#5b6f95" opacity="0.55"/>'


def title_of(strategy: str, verdict: Verdict) -> str:
    """One line with the numbers of the replay."""
    slower = verdict.makespan / CHAIN.store_all_makespan - 1
    return (
        f"{strategy}: peak {verdict.peak_bytes} bytes, {verdict.advance_count} advances, {slower:.0%} slower"
    )


def drawings() -> Iterator[tuple[str, str]]:
    """Every strategy with its picture as SVG."""
    for strategy, budget_bytes in BUDGETS.items():
        solution = solve(CHAIN, budget_bytes, strategy)
        moments = replayed(expand(solution.policy), budget_bytes)
        yield strategy, Picture(moments, budget_bytes, title_of(strategy, solution.verdict)).svg()
    offloaded = solve_offload(CHAIN, OFFLOAD_BUDGET, [HOST])
    title = title_of("offload", offloaded.verdict)
    moments = replayed(expand_tiers(offloaded.policy), OFFLOAD_BUDGET, (HOST,))
    yield "offload", Picture(moments, OFFLOAD_BUDGET, title, tiers=(HOST,)).svg()
    undone = solve(UNDONE_CHAIN, UNDONE_BUDGET, "reversible")
    moments = replayed(expand(undone.policy), UNDONE_BUDGET, chain=UNDONE_CHAIN)
    title = f"{title_of('reversible', undone.verdict)}".replace("bytes", "quarters of a byte")
    yield "reversible", Picture(moments, UNDONE_BUDGET, title).svg()
    cut = solve(CHAIN, TRUNCATED_BUDGET, "truncated")
    title = f"{title_of('truncated', cut.verdict)}, NOT the gradient of the whole"
    yield "truncated", Picture(windows(cut.policy, TRUNCATED_BUDGET), TRUNCATED_BUDGET, title).svg()


def main() -> None:
    """Write one SVG per strategy."""
    PICTURES.mkdir(exist_ok=True)
    for strategy, svg in drawings():
        (PICTURES / f"{strategy}.svg").write_text(svg)


if __name__ == "__main__":
    main()
