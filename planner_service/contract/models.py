"""Recurrent models as they are written in a request."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from planner_service.contract.base import Message
from planner_service.contract.layers import Embedding, Head
from planner_service.contract.quantities import BudgetBytes, Count, SizeBytes
from planner_service.contract.reversible import ReversibleModel
from planner_service.contract.sparsity import GradientSparsity
from planner_service.contract.stages import ChainModel
from planner_service.contract.tiers import WithTiers

Dtype = Literal["float16", "bfloat16", "float32", "float64"]


class RecurrentModel(Message):
    """A recurrent network as torch.nn.LSTM, GRU or RNN (tanh) define it, with both biases."""

    kind: Literal["lstm", "gru", "rnn"]
    input_size: Count
    hidden_size: Count
    num_layers: Count = 1
    dtype: Dtype = "float32"
    head: Head | None = None
    embedding: Embedding | None = None
    implementation: Literal["steps", "fused"] | None = None
    """steps: the cell applied step by step; fused: one kernel call per segment (needs a profile).
    Null means what the profile says, steps without one."""


Model = Annotated[ChainModel | RecurrentModel | ReversibleModel, Field(discriminator="kind")]


class Sequence(Message):
    """What one training iteration runs over."""

    length: Count
    """T, in steps."""
    batch_size: Count = 1


class Training(Message):
    """What training adds to the model."""

    optimizer: Literal["sgd", "momentum", "adam"] = "adam"
    loss: Literal["inside", "outside"] | None = None
    """inside: each segment ends in its share of the loss, so that no outputs pile up; outside: all
    outputs and their gradient are held. Null means inside when there is a head, else outside."""
    gradient_sparsity: GradientSparsity | None = Field(default=None, exclude_if=lambda given: given is None)
    """Drop small gate gradients of an LSTM or GRU: a cheaper backward pass, and no exact gradient. Null:
    the gradient is that of full BPTT."""


class Memory(WithTiers):
    """The bytes that may be used."""

    device_budget_bytes: BudgetBytes
    """Everything that training may hold on the device at once."""
    reserved_bytes: SizeBytes = 0
    """What the process costs before the first tensor (a CUDA context, say), out of the budget."""
