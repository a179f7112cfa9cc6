"""Where a state's bytes lie in its slot, and that it is put together again from there."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from executor.offload.layout import put_together, taken_apart
from executor.replay import Surroundings
from executor.stages.states import StoredState

HIDDEN = torch.ones(3)
OTHERS = {"of its own": torch.zeros(3), "shared": HIDDEN}


@pytest.mark.parametrize("other", OTHERS)
def test_random_streams_lie_first_whatever_leaves_share(other: str) -> None:
    """A slot's other bytes are copied while the device is behind, those of the streams at once: none of them
    may lie where a state before had something else
    """
    stream = torch.arange(5, dtype=torch.uint8)
    state = StoredState((HIDDEN, OTHERS[other]), Surroundings((stream,), ()))
    layout, flat = taken_apart(state, frozenset())
    assert flat[0].data_ptr() == stream.data_ptr()
    found, places = put_together(layout)
    for place, source in zip(places, flat, strict=True):
        place.copy_(source)
    assert all(isinstance(leaf, Tensor) for leaf in found.leaves)
    assert torch.equal(torch.stack(found.leaves), torch.stack(state.leaves))
    assert torch.equal(found.surroundings.streams[0], stream)
    assert (found.leaves[0].data_ptr() == found.leaves[1].data_ptr()) == (other == "shared")
