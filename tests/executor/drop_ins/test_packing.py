"""Packed sequences survive the way to padded ones and back."""

import pytest
import torch
from torch.nn.utils.rnn import pack_sequence, pad_packed_sequence

from executor.drop_ins.packing import pack, reverse_each, unpack

LENGTHS = [(5, 3, 3, 1), (4,), (2, 2)]


def packed_of(lengths):
    return pack_sequence([torch.randn(length, 2, dtype=torch.float64) for length in lengths])


@pytest.mark.parametrize("lengths", LENGTHS)
def test_unpacking_pads_like_torch(lengths):
    """Zeros follow the end of each sequence"""
    packed = packed_of(lengths)
    assert torch.equal(unpack(packed), pad_packed_sequence(packed)[0])


@pytest.mark.parametrize("lengths", LENGTHS)
def test_packing_undoes_unpacking(lengths):
    """There and back is the same data in the same order"""
    packed = packed_of(lengths)
    again = pack(unpack(packed), packed)
    assert torch.equal(again.data, packed.data)
    assert torch.equal(again.batch_sizes, packed.batch_sizes)


@pytest.mark.parametrize("lengths", LENGTHS)
def test_each_sequence_is_turned_within_its_own_length(lengths):
    """Reversal leaves the padding at the end, and twice reversed is as before"""
    packed = packed_of(lengths)
    padded = unpack(packed)
    turned = reverse_each(padded, packed.batch_sizes)
    for column, length in enumerate(lengths):
        assert torch.equal(turned[:length, column], padded[:length, column].flip(0))
    assert torch.equal(reverse_each(turned, packed.batch_sizes), padded)


def test_gradients_flow_through_both_ways():
    """The gradient of the packed data is one where the data is used once"""
    packed = packed_of((3, 2))
    data = packed.data.requires_grad_()
    pack(unpack(packed), packed).data.sum().backward()
    assert torch.equal(data.grad, torch.ones_like(data))
