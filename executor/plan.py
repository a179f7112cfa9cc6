"""What the engine needs of a plan: the segment length, the policy and what was promised."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

from executor.errors import PlanMismatch
from executor.made_for import MadeFor
from executor.offload.host_tapes import HostTapes
from planner_service.chain import (
    EMPTY,
    Archive,
    ArchiveNode,
    Chain,
    CheckpointNode,
    Discard,
    Policy,
    PolicyNode,
    Store,
    TapeNode,
    Tier,
    TieredAction,
    TieredPolicy,
    Undo,
    Verdict,
    expand,
    expand_tiers,
    segment_sizes,
    simulate,
    simulate_tiers,
)


@dataclass(frozen=True)
class ExecutionPlan:
    """A policy for `length` steps run in segments of `segment_steps`.

    Raises PlanMismatch when the policy reverses another number of segments.
    """

    length: int
    """Steps, T."""
    segment_steps: int
    policy: Policy | TieredPolicy
    projected_peak_bytes: int | None = None
    """Upper bound of the bytes that the call adds; None when nobody projected it."""
    makespan_seconds: float | None = None
    """Modelled seconds of one forward and backward."""
    strategy: str = "given"
    made_for: MadeFor | None = None
    """What its peak depends on besides the step; None where nobody said."""
    tiers: tuple[Tier, ...] = ()
    """Where a tiered policy moves states to, from fast to slow; seconds on the planner's clock."""
    host_tapes: HostTapes | None = None
    """Room for the tapes of the stages that the policy archives; None where layers archive what they lose."""
    graph_bytes: int | None = None
    """The largest graph of a segment that it counts with, where steps go by what is in tensors."""

    def __post_init__(self) -> None:
        segments, _ = segment_sizes(self.length, self.segment_steps)
        if self.policy.length != segments:
            raise PlanMismatch(
                f"the policy reverses {self.policy.length} segments, but {self.length} steps in segments of "
                f"{self.segment_steps} are {segments}"
            )

    def schedule(self) -> Iterator[TieredAction]:
        """The actions to execute."""
        if isinstance(self.policy, TieredPolicy):
            return expand_tiers(self.policy)
        return expand(self.policy)

    def replayed(self, chain: Chain, budget_bytes: int | None = None) -> Verdict:
        """What the simulator says of the plan on `chain`; a TieredVerdict where it has tiers."""
        if isinstance(self.policy, TieredPolicy):
            return simulate_tiers(chain, self.tiers, self.schedule(), budget_bytes)
        return simulate(chain, expand(self.policy), budget_bytes)

    @cached_property
    def undoes(self) -> bool:
        """Whether any stage is undone."""
        return any(isinstance(node, ArchiveNode) for node in self.policy.nodes)

    @cached_property
    def most_archived(self) -> int:
        """How many stages are archived at once, at most."""
        held = most = 0
        for action in self.schedule() if self.undoes else ():
            if isinstance(action, Archive):
                held += action.last - action.first + 1
                most = max(most, held)
            elif isinstance(action, Undo):
                held -= action.first - action.last + 1
        return most

    @cached_property
    def most_stretches(self) -> int:
        """How many stretches are archived at once, at most: each has archives of its own."""
        begun: list[int] = []
        most = 0
        for action in self.schedule() if self.undoes else ():
            if isinstance(action, Archive):
                begun.append(action.first)
                most = max(most, len(begun))
            elif isinstance(action, Undo):
                begun = [first for first in begun if first < action.last]
        return most

    @cached_property
    def most_states(self) -> Mapping[str, int]:
        """How many states each tier holds at once, at most."""
        held: Counter[str] = Counter()
        most: Counter[str] = Counter()
        for action in self.schedule() if self.tiers else ():
            if isinstance(action, Store):
                held[action.tier] += 1
                most[action.tier] = max(most[action.tier], held[action.tier])
            elif isinstance(action, Discard):
                held[action.tier] -= 1
        return most


def tape_everything(length: int, segment_steps: int) -> ExecutionPlan:
    """Full BPTT: every segment is taped once, nothing is run twice."""
    segments, _ = segment_sizes(length, segment_steps)
    policy = Policy((TapeNode(segments, EMPTY),), 0)
    return ExecutionPlan(length, segment_steps, policy, strategy="store_all")


def undo_every(length: int, segment_steps: int, spacing: int) -> ExecutionPlan:
    """A checkpoint after every `spacing` segments, each group archived and undone when its turn comes."""
    segments, _ = segment_sizes(length, segment_steps)
    tail = segments % spacing or spacing
    nodes: list[PolicyNode] = [ArchiveNode(tail, EMPTY), ArchiveNode(spacing, EMPTY)]
    root = 0
    for _ in range((segments - tail) // spacing):
        nodes.append(CheckpointNode(spacing, root, 1))
        root = len(nodes) - 1
    return ExecutionPlan(length, segment_steps, Policy(tuple(nodes), root), strategy="reversible")


def checkpoint_every(length: int, segment_steps: int, spacing: int) -> ExecutionPlan:
    """A checkpoint after every `spacing` segments, each group taped when it is reversed."""
    segments, _ = segment_sizes(length, segment_steps)
    tail = segments % spacing or spacing
    nodes: list[PolicyNode] = [TapeNode(tail, EMPTY)]
    if segments > tail:
        nodes.append(TapeNode(spacing, EMPTY))
    root = 0
    for _ in range((segments - tail) // spacing):
        nodes.append(CheckpointNode(spacing, root, 1))
        root = len(nodes) - 1
    return ExecutionPlan(length, segment_steps, Policy(tuple(nodes), root), strategy="every_k")
