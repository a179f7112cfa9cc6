"""The memory of a tier: as many slots as fit, counted as they are allocated."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from executor import PlanMismatch
from executor.errors import HostMemoryRefused
from executor.offload import slots as slots_module
from executor.offload.slots import Slots, most_slots, piece_sizes, recorded_peaks

CPU = torch.device("cpu")


@given(count=st.integers(1, 10_000), slot_bytes=st.integers(1, 2**30))
def test_pinned_pieces_hold_the_slots_in_powers_of_two(count: int, slot_bytes: int) -> None:
    """Never more than the next power of two, which one piece would take."""
    pieces = piece_sizes(count, slot_bytes, rounded=True)
    assert sum(piece // slot_bytes for piece in pieces) >= count
    assert all(piece & (piece - 1) == 0 for piece in pieces)
    assert sum(pieces) <= 1 << (count * slot_bytes - 1).bit_length()


@given(budget=st.integers(0, 2**40), slot_bytes=st.integers(1, 2**30), rounded=st.booleans())
def test_the_most_slots_fit_and_one_more_does_not(budget: int, slot_bytes: int, rounded: bool) -> None:
    count = most_slots(budget, slot_bytes, rounded=rounded)
    assert sum(piece_sizes(count, slot_bytes, rounded=rounded)) <= budget
    if not rounded:
        assert (count + 1) * slot_bytes > budget


def test_little_is_lost_to_powers_of_two() -> None:
    """States of 33 MiB in 8 GiB: a hundred more than one would get from the budget's half."""
    assert most_slots(8 * 2**30, 33 * 2**20, rounded=True) == 248
    assert most_slots(6 * 2**30, 33 * 2**20, rounded=True) >= 184


@pytest.mark.parametrize("tier", ["host", "disk"])
def test_slots_keep_what_is_written_and_are_counted_while_they_live(tier: str) -> None:
    with recorded_peaks() as peaks:
        slots = Slots(tier, count=3, slot_bytes=10, device=CPU)
        taken = [slots.take(10) for _ in range(3)]
        for value, (_, slot) in enumerate(taken):
            slot.fill_(value)
        assert [int(slot.sum()) for _, slot in taken] == [0, 10, 20]
        with pytest.raises(PlanMismatch, match="no room"):
            slots.take(10)
        slots.put(taken.pop())
        slots.take(5)
    assert peaks == {tier: 30}


def test_a_state_larger_than_a_slot_is_refused() -> None:
    with pytest.raises(PlanMismatch, match="11 bytes"):
        Slots("host", count=1, slot_bytes=10, device=CPU).take(11)


def test_an_unknown_tier_is_refused_by_name() -> None:
    with pytest.raises(PlanMismatch, match=r"'tape'.*host and disk"):
        Slots("tape", count=1, slot_bytes=10, device=CPU).take(1)


@pytest.mark.parametrize(
    ("captures", "expected"), [(False, ["pinned", "waited", "pinned"]), (True, ["pinned", "pinned"])]
)
def test_what_was_given_back_is_waited_for_before_more_is_pinned(
    captures: bool, expected: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Torch takes it again only where the copies in it are over, and pins as many bytes more elsewhere. A
    graph that is captured waits for nothing
    """
    done, empty = [], torch.empty
    monkeypatch.setattr(slots_module, "_in_doubt", set())
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: captures)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda _device: done.append("waited"))
    monkeypatch.setattr(torch, "empty", lambda *size, **_pinned: done.append("pinned") or empty(*size))
    for _ in range(2):
        slots = Slots("host", count=3, slot_bytes=10, device=torch.device("cuda", 0))
        slots.take(10)
        del slots
    assert done == expected


def test_memory_that_is_not_pinned_is_told_as_the_hosts(monkeypatch: pytest.MonkeyPatch) -> None:
    """CUDA says that it is out of memory, which the device is not"""

    def refuse(*_size: int, **_pinned: object) -> None:
        raise RuntimeError("CUDA error: out of memory\nand what else might help")

    monkeypatch.setattr(torch, "empty", refuse)
    slots = Slots("host", count=1, slot_bytes=10, device=torch.device("cuda", 0))
    with pytest.raises(
        HostMemoryRefused, match=r"^16 bytes of host.*\(CUDA error: out of memory\): give a smaller"
    ):
        slots.take(10)
