"""What a dry run finds out about a step (`executor.rules.dry_run`), for all who run it again."""

from __future__ import annotations

from dataclasses import dataclass

from executor.reversal import LostBits
from executor.rules.values import ByValues


@dataclass(frozen=True)
class Needs:
    """What recomputation of a step must put back."""

    draws_random_numbers: bool
    """From a stream of torch's; all of them are put back then."""
    mutated_buffers: frozenset[str]
    lost: LostBits | None = None
    """What a step loses, of a loop whose segments can be undone; None for any other loop."""
    differentiates_a_second_run: bool = False
    """Whether a function in a step's graph may run modules again in its backward pass (`second_run`)."""
    advances_with_graphs: bool = False
    """Whether a step does something else, or nothing, where gradients are off: it differentiates, or asks."""
    by_values: ByValues = ByValues.NOTHING
    """Whether what a step does goes by what is in its tensors, so that other steps may do more or less."""
    makes_leaves: bool = False
    """Whether graphs of steps have leaves that the steps made themselves."""
    leaves_cycles: bool = False
    """Whether steps leave tensors in reference cycles (`executor.rules.cycles`)."""
    leaves_behind: bool = False
    """Whether steps leave something in attributes or dictionaries (`executor.surroundings.written`)."""
    moved_streams: frozenset[int] = frozenset()
    """Of the streams of Python and numpy that the step sees, the places of those that it draws from."""
