"""Jobs on the wire: training runs that the service keeps until a worker has done them (v1).

The sections are those of a worker's job file, so a job file is a job.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from planner_service.contract.base import Answer, Message, invalid
from planner_service.contract.budget import JobBudget
from planner_service.contract.models import Dtype
from planner_service.contract.quantities import BudgetBytes, Count
from planner_service.contract.reversible import (
    REVERSIBLE_KINDS,
    ForgetBits,
    ReversibleKind,
    check_halves,
)
from planner_service.contract.sparsity import GradientSparsity
from planner_service.contract.texts import Name, StorableText

JobState = Literal["queued", "assigned", "running", "succeeded", "failed", "cancelled"]
"""The last three are final."""
JobReason = Literal["oom", "node_lost", "preempted", "error", "cancelled"]
"""Why a job ended, or why it is waiting again."""
Engine = Literal["local", "agents", "slurm", "ray", "kubernetes"]
"""What runs a job: the worker beside the service, any agent that claims it, or a cluster's scheduler."""

Priority = Annotated[int, Field(strict=True, ge=-100, le=100)]

DEFAULT_MAXIMUM_FAILURES = 2


class JobModel(Message):
    """A character model: embedding, recurrent layers, linear head, cross-entropy."""

    kind: Literal["lstm", "gru", "rnn", ReversibleKind]
    hidden_size: Count
    embedding_size: Count = 64
    num_layers: Count = 1
    dtype: Dtype = "float32"
    forget_bits: ForgetBits | None = Field(default=3, exclude_if=lambda bits: bits == 3)
    """Of a reversible cell that forgets: most bits a unit and step; null sets no limit."""

    @model_validator(mode="after")
    def _reversible_cells_have_needs_of_their_own(self) -> Self:
        if self.kind in REVERSIBLE_KINDS:
            check_halves(self.hidden_size)
            if self.dtype not in ("float32", "float64"):
                raise invalid("dtype", f"{self.kind} takes float32 or float64 parameters, not {self.dtype}")
        return self


class JobData(Message):
    """The text to learn."""

    text: Annotated[StorableText, Field(min_length=1, max_length=500)] = "python"
    """`python` (the language reference that comes with CPython) or the path of a UTF-8 file as the
    worker sees it, inside the folders that the worker was given."""
    characters: Count | None = None
    """Use only that many, from the beginning; null means all."""


class JobSequence(Message):
    """The shape of one batch."""

    length: Count
    """T, the number of steps that the gradient flows through."""
    batch_size: Count


class JobSparsity(GradientSparsity):
    """A rule by which a job's gate gradients are dropped, and how often that is checked."""

    cosine_every: Annotated[int, Field(strict=True, ge=0, le=10**9)] = 10
    """Every n-th iteration the gradient is compared with the dense one, by a pass of its own; 0: never."""


class JobTraining(Message):
    """How the weights are changed, and how often."""

    iterations: Count
    optimizer: Literal["sgd", "momentum", "adam"] = "adam"
    learning_rate: Annotated[float, Field(strict=True, gt=0, le=1e6, allow_inf_nan=False)] = 0.002
    seed: Annotated[int, Field(strict=True, ge=0, lt=2**63)] = 0
    gradient_sparsity: JobSparsity | None = Field(default=None, exclude_if=lambda given: given is None)
    """Drop small gate gradients of an LSTM or GRU. Null: the gradient is that of full BPTT."""


class JobRequest(Message):
    """POST /v1/jobs: what to train, in how many bytes, and how urgent it is."""

    name: Name | None = None
    """For people; null takes the job's id."""
    model: JobModel
    data: JobData = JobData()
    sequence: JobSequence
    training: JobTraining
    budget: JobBudget
    host_budget: BudgetBytes | None = Field(default=None, exclude_if=lambda given: given is None)
    """Host memory that stored states may move to: bytes, or text with a unit; null keeps them on the
    device."""
    strategy: Annotated[StorableText, Field(min_length=1, max_length=64)] = "auto"
    maximum_slowdown_ratio: Annotated[float, Field(strict=True, ge=1, le=1e6, allow_inf_nan=False)] | None = (
        None
    )
    """Most time that the plan may take, as a multiple of full BPTT's without a budget; null: any."""
    priority: Priority = 0
    """-100..100; higher first, then the older job."""
    maximum_failures: Annotated[int, Field(strict=True, ge=0, le=100)] = DEFAULT_MAXIMUM_FAILURES
    """Failed attempts (error or out of memory) that are followed by another one. Lost nodes and
    preemptions do not count."""
    engine: Engine | None = None
    """Null: what the operator set as default."""


class NeededBytes(Answer):
    """Free bytes that a node needs to be given a job, by the kind of its device."""

    cpu: int
    cuda: int


class Job(Answer):
    """A job as it stands."""

    id: str
    name: str
    request: JobRequest
    """What was submitted."""
    state: JobState
    reason: JobReason | None = None
    """Why it ended other than by success, or why it is queued again."""
    detail: str | None = None
    """The same in a sentence."""
    cancel_requested: bool = False
    """True for a running job whose worker is to stop at its next heartbeat."""
    budget: JobBudget
    """What the next attempt may use: the request's budget, tightened after an attempt ran out of memory."""
    needed_bytes: NeededBytes
    """What must be free on a node for it, by formulas, before anything is measured."""
    attempt: int = 0
    """Number of the current attempt; 0 before the first."""
    failures: int = 0
    """Attempts that ended in an error or out of memory."""
    node: str | None = None
    """Where it is assigned to or runs; afterwards, where it last was."""
    engine: Engine
    engine_reference: str | None = None
    """What the engine calls it: a Slurm job's number, the name of a Kubernetes Job."""
    iteration: int = 0
    """Iterations done, as the worker last said."""
    loss: float | None = None
    created_at: datetime
    updated_at: datetime
    measurement_id: str | None = None
    """What its last attempt measured: GET /v1/measurements/{measurement_id}."""


class JobPage(Answer):
    """Some jobs, the latest first."""

    jobs: list[Job]
    next_cursor: str | None = None
    """Pass it as `cursor` for the jobs before these."""
