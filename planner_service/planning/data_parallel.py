"""One rank of a data-parallel job: its share of the batch, and what it holds beside training alone."""

from __future__ import annotations

from planner_service.contract import ChainModel, Question
from planner_service.planning.candidates import workload_of


def share_of_rank(question: Question, devices: int) -> Question:
    """The question of one of `devices` ranks. A chain's bytes are those of one rank already."""
    sequence = question.sequence
    if devices == 1 or sequence is None:
        return question
    share = sequence.model_copy(update={"batch_size": sequence.batch_size // devices})
    return question.model_copy(update={"sequence": share})


def bucket_bytes(question: Question) -> int:
    """What DistributedDataParallel's buckets hold besides the gradients that a plan sums: one copy of the
    parameters, in bytes. Of a chain's parameters nothing is known.
    """
    if isinstance(question.model, ChainModel):
        return 0
    return workload_of(question).model.parameter_bytes
