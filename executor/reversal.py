"""Between the engine and layers that can be undone: how the segment that is running is being run.

A segment function (state, x) -> (state, y) around a reversible layer runs in three ways beside the ordinary
one. The function itself notices nothing: the layer asks `passage()`.

    Watching    notes whether the whole state of the loop is that of one reversible layer
    Archiving   an advance whose lost bits are kept
    Undoing     the state that is given is the one *after* the segment: the layer goes back from it, leaves
                the state before in `before`, and returns the state after and y with the segment's graph
"""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

WORD_BYTES = 2


@dataclass(frozen=True)
class LostBits:
    """What steps of a loop lose, at most."""

    bits: float
    """Per unit and step, what the coder adds included."""
    units: int
    """Units of the state that lose bits, over all layers and the batch."""
    block_bytes: int
    """What the archives allocate at a time, over all layers."""

    def archive_bytes(self, steps: int) -> int:
        """The most that `steps` steps archive, beyond `slack_bytes`."""
        return math.ceil(self.units * steps * self.bits / 8)

    @property
    def slack_bytes(self) -> int:
        """What a stretch may archive beyond the bound of its steps, and allocate beyond its words: a word of
        every unit, whose buffers may have been nearly full when the stretch began, and the last blocks.
        """
        return WORD_BYTES * self.units + self.block_bytes if self.bits else 0


@dataclass
class Watching:
    """Notes every call of a reversible layer."""

    calls: list[tuple[Sequence[Any], Sequence[Any], LostBits]] = field(default_factory=list)
    """State given, state returned, and what a step loses."""

    found: LostBits | None = None
    """What a step loses, if one layer made the whole state and nothing else did."""

    def conclude(self, given: Sequence[Any], returned: Sequence[Any]) -> None:
        """Look for the one layer that made the state `returned` from `given`."""
        if len(self.calls) == 1:
            seen_given, seen_returned, lost = self.calls[0]
            self.found = lost if _same(seen_given, given) and _same(seen_returned, returned) else None
        self.calls.clear()


@dataclass
class Archiving:
    """Keeps the lost bits of a stretch in `archives`, one per layer, which the layer makes."""

    archives: list[Any]
    in_small_blocks: bool = False
    """Archives that are made take little more than their words: many of them live at once."""


@dataclass
class Undoing:
    """Goes back with the bits in `archives`."""

    archives: list[Any]
    before: Sequence[Any] = ()
    """Receives the state before the segment, its tensors as leaves of the segment's graph."""


Passage = Watching | Archiving | Undoing

_running = threading.local()


def passage() -> Passage | None:
    """How the running segment is being run; None in the ordinary way."""
    found: Passage | None = getattr(_running, "passage", None)
    return found


@contextmanager
def passing(how: Passage | None) -> Iterator[None]:
    """Within the context segments are run in this way; a loop inside of a segment begins with None."""
    before = passage()
    _running.passage = how
    try:
        yield
    finally:
        _running.passage = before


@dataclass
class ArchivedPeak:
    """What archives held at most, of all that a function ran; exact."""

    bytes: int | None = None
    """Of lost bits, once any layer archived some, were it none of them."""


_watching: list[ArchivedPeak] = []


@contextmanager
def recorded_archives() -> Iterator[ArchivedPeak]:
    """Yields what the archives of reversible layers held at most within the context, so far."""
    peak = ArchivedPeak()
    _watching.append(peak)
    try:
        yield peak
    finally:
        _watching.remove(peak)


@contextmanager
def unnoted_archives() -> Iterator[None]:
    """Within the context archives are those of a rehearsal, of which nobody is told."""
    before = getattr(_running, "unnoted", False)
    _running.unnoted = True
    try:
        yield
    finally:
        _running.unnoted = before


def note_archived(stored_bytes: int) -> None:
    """The archives of one pass hold so many bytes now."""
    for peak in [] if getattr(_running, "unnoted", False) else _watching:
        peak.bytes = max(stored_bytes, peak.bytes or 0)


def _same(left: Sequence[Any], right: Sequence[Any]) -> bool:
    return len(left) == len(right) and all(a is b for a, b in zip(left, right, strict=True))
