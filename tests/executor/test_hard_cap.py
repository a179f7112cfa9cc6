"""What may be planned under a cap on what CUDA's allocator reserves."""

from __future__ import annotations

import pytest

from executor.hard_cap import SEGMENTS_BYTES, plannable_bytes


@pytest.mark.parametrize("cap_bytes", [SEGMENTS_BYTES + 2, 2**27, 2**33])
def test_segments_and_a_tenth_are_set_aside(cap_bytes: int) -> None:
    assert 0 < plannable_bytes(cap_bytes) <= 0.9 * (cap_bytes - SEGMENTS_BYTES)


def test_a_cap_below_the_allocators_segments_is_refused() -> None:
    with pytest.raises(ValueError, match="23068672"):
        plannable_bytes(2**20)
