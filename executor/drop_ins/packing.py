"""Packed sequences as padded ones and back, gradients included.

A packed batch is sorted by length, so step t is run by the first `batch_sizes[t]` sequences.
"""

from __future__ import annotations

import hashlib

import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence


def unpack(packed: PackedSequence) -> Tensor:
    """The data as [T, batch, …] in sorted order, zeros after the end of each sequence."""
    mask = _is_inside(packed.batch_sizes).to(packed.data.device)
    padded = packed.data.new_zeros(*mask.shape, *packed.data.shape[1:])
    padded[mask] = packed.data  # in place: no second batch of that size
    return padded


def pack(padded: Tensor, like: PackedSequence) -> PackedSequence:
    """The inverse of `unpack`, with the lengths and the order of `like`."""
    data = padded[_is_inside(like.batch_sizes).to(padded.device)]
    return PackedSequence(data, like.batch_sizes, like.sorted_indices, like.unsorted_indices)


def reverse_each(padded: Tensor, batch_sizes: Tensor | None) -> Tensor:
    """Every sequence of [T, batch, size] backwards in time, its padding left at the end."""
    if batch_sizes is None:
        return padded.flip(0)
    lengths = _is_inside(batch_sizes).sum(0)
    steps = torch.arange(padded.shape[0], device=lengths.device).unsqueeze(1)
    source = torch.where(steps < lengths, lengths - 1 - steps, steps).to(padded.device)
    return padded.gather(0, source.unsqueeze(-1).expand_as(padded))


def lengths_digest(batch_sizes: Tensor) -> str:
    """Equal for equal lengths: how many sequences go on decides what a step takes."""
    return hashlib.blake2b(batch_sizes.numpy().tobytes(), digest_size=16).hexdigest()


def _is_inside(batch_sizes: Tensor) -> Tensor:
    """Bool [T, batch]: whether a sequence has a step t."""
    return torch.arange(int(batch_sizes[0]), device=batch_sizes.device).unsqueeze(0) < batch_sizes.unsqueeze(
        1
    )
