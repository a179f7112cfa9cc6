"""A candidate: one way to cut the steps of a model into stages, with its bytes and costs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

from planner_service.chain import Chain, InvalidChain
from planner_service.memory.ledger import Exactness, LedgerLine, total_bytes
from planner_service.memory.sparsity import GradientSparsity

CostUnit = Literal["forward", "seconds"]
"""forward: one step's forward pass is 1; seconds: measured by a probe."""


class Source(NamedTuple):
    """Where a kind of bytes comes from, and how sure it is."""

    formula: str
    exactness: Exactness


class StageSources(NamedTuple):
    """Where the sizes of a candidate's stages come from."""

    states: Source
    tapes: Source
    workspace: Source
    archive: Source | None = None
    """None where nothing can be undone."""

    @classmethod
    def all_from(cls, source: Source) -> StageSources:
        """One source for all sizes."""
        return cls(source, source, source, source)


@dataclass(frozen=True)
class Candidate:
    """The chain of a model run in segments of `segment_steps`.

    Raises InvalidChain unless the ledger explains the chain's static bytes to the byte.
    """

    segment_steps: int | None
    """k, in steps; None when the chain was given."""
    last_steps: int | None
    """Steps of the last segment; None when the chain was given."""
    chain: Chain
    ledger: tuple[LedgerLine, ...]
    """What is held from start to end besides the chain's own states, tapes and gradients."""
    cost_unit: CostUnit
    sources: StageSources
    gradient_sparsity: GradientSparsity | None = None
    """What is dropped of the gradient; None: it is that of full BPTT."""

    def __post_init__(self) -> None:
        explained = total_bytes(self.ledger)
        if explained != self.chain.static_bytes:
            raise InvalidChain(
                f"the ledger explains {explained} of static_bytes={self.chain.static_bytes}", field="model"
            )
