"""What may stand below and above recurrent layers, as it is written in a request."""

from __future__ import annotations

from planner_service.contract.base import Message
from planner_service.contract.quantities import Count


class Head(Message):
    """A linear layer with bias on every step's output of the last layer."""

    output_size: Count


class Embedding(Message):
    """A table of `vocabulary_size` rows of `input_size`; inputs are then 64-bit integers."""

    vocabulary_size: Count
