"""The request for places, and the places: jobs against the holes of a cluster."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from planner_service.contract.base import Answer, Message, invalid
from planner_service.contract.holes import HoleRecord, Name
from planner_service.contract.jobs import JobRequest
from planner_service.contract.models import Model, Sequence, Training
from planner_service.contract.profile import ProfileRecord
from planner_service.contract.quantities import Count, SizeBytes
from planner_service.contract.question import Question

MOST_JOBS, MOST_HOLES = 10_000, 100_000
MOST_OFFERS = 100_000
"""In one answer, over all jobs."""
OFFERS_BY_DEFAULT = 10_000
"""In one answer, shared among the jobs."""
MOST_PLANNED_OFFERS = 20


class JobFile(JobRequest):
    """A job, or a worker's job file as it stands."""

    report: Any = Field(default=None, exclude=True)
    """What a job file wants reported; it says nothing about where the job fits."""


class PlacementJob(Message):
    """What is to be placed: a job as submitted, or a model and a sequence."""

    name: Name | None = None
    """Null: the job's name, or `job-1`, `job-2`, … by place in the request."""
    job: JobFile | None = None
    """Its budget and engine are not used: how much it may hold is what is asked here."""
    model: Model | None = None
    sequence: Sequence | None = None
    training: Training | None = None
    profile: ProfileRecord | None = None
    device: Literal["cpu", "cuda"] = "cuda"
    """On which kind of device it is to run."""
    devices: Count = 1
    """Processes of a data-parallel job, each with a device of its own in one node and its share of the batch,
    which must be a multiple of them. A chain is what one of them runs."""
    iterations: Count | None = None
    """For seconds and cost. Null: those of `job`, or 1."""
    forward_seconds: Annotated[float, Field(strict=True, gt=0, le=1e9, allow_inf_nan=False)] | None = None
    """Seconds of one forward pass of one step (one unit of cost of a chain) on a device of relative speed
    1. Null: seconds are known of a profile that was timed, else not."""
    maximum_slowdown_ratio: Annotated[float, Field(strict=True, ge=1, le=1e6, allow_inf_nan=False)] | None = (
        None
    )
    """Most time as a multiple of full BPTT's on the same device. Null: that of `job`, or any."""

    @model_validator(mode="after")
    def _is_one_thing(self) -> Self:
        if (self.job is None) == (self.model is None):
            raise invalid("model", "give either a job, or a model with its sequence")
        if self.job is not None:
            for name in ("sequence", "training", "profile"):
                if getattr(self, name) is not None:
                    raise invalid(name, f"a job brings its own: leave {name} out")
        else:
            self.question()
        self._check_ranks()
        return self

    def _check_ranks(self) -> None:
        """Every rank gets as much of the batch, and none drops gradients: workers refuse the rest."""
        given = self.job or self
        batch_size = self.devices if given.sequence is None else given.sequence.batch_size
        if batch_size % self.devices:
            raise invalid("devices", f"{batch_size} sequences cannot be shared equally by {self.devices}")
        if self.devices > 1 and given.training is not None and given.training.gradient_sparsity is not None:
            raise invalid("devices", "gradients are sparsified in one process only: leave devices out")

    def question(self) -> Question:
        """The model and what it is trained on, where it was given as such."""
        given: dict[str, Any] = {"model": self.model, "sequence": self.sequence}
        return Question(**given, training=self.training, device=self.device, profile=self.profile)


class PlacementRequest(Message):
    """POST /v1/placements: where do these jobs fit?"""

    jobs: list[PlacementJob] = Field(min_length=1, max_length=MOST_JOBS, fail_fast=True)
    holes: list[HoleRecord] = Field(min_length=1, max_length=MOST_HOLES, fail_fast=True)
    rank_by: Literal["duration", "cost"] = "duration"
    """The other one decides among equals, then the tightest fit."""
    most_offers: Annotated[int, Field(strict=True, ge=1, le=MOST_OFFERS)] | None = None
    """Holes answered per job, the best first. Null: all of them where that makes 10,000 offers or fewer,
    else so many shared among the jobs."""
    planned_offers: Annotated[int, Field(strict=True, ge=0, le=MOST_PLANNED_OFFERS)] | None = None
    """The plans of each job's best so many offers are made: their slowdown is then the plan's own, and
    GET /v1/plans/{plan_id} finds them. Null: 1 for a single job, 0 for several."""
    context_bytes: SizeBytes = 512 * 2**20
    """What a process costs on its device beside PyTorch's allocator (a CUDA context), unless the hole
    says otherwise."""
    driver_reserve_ratio: Annotated[float, Field(strict=True, ge=0, le=0.5)] = 0.04
    """Share of a GPU's nominal memory that the driver keeps."""

    @model_validator(mode="after")
    def _answer_is_bounded(self) -> Self:
        if self.most_offers is not None:
            offers = len(self.jobs) * min(self.most_offers, len(self.holes))
            if offers > MOST_OFFERS:
                raise invalid("most_offers", f"{offers} offers are too many for an answer: {MOST_OFFERS}")
        return self

    @property
    def offers_per_job(self) -> int:
        """Holes answered per job."""
        shared = max(1, OFFERS_BY_DEFAULT // len(self.jobs))
        return min(len(self.holes), shared if self.most_offers is None else self.most_offers)

    @property
    def plans_per_job(self) -> int:
        """Offers whose plans are made."""
        return int(len(self.jobs) == 1) if self.planned_offers is None else self.planned_offers


class PlacementOffer(Answer):
    """What one hole means for one job; bytes are those of one device."""

    hole: str
    node: str
    fits: bool
    reason: Literal["memory", "slowdown", "device", "count"] | None
    """Why it does not fit. memory: no plan does; slowdown: what fits is slower than asked for; device: it
    is of another kind; count: the node has too few."""
    missing_bytes: int
    """Free bytes that the hole lacks; 0 where memory is not what it lacks."""
    plan_id: str | None
    """The id of the plan for `budget_bytes`."""
    budget_bytes: int | None
    """What training may hold: `memory.device_budget_bytes` of the plan."""
    request_bytes: int | None
    """To set aside on the device: the budget and the process's context."""
    limit_bytes: int | None
    """The least nominal limit under which nobody kills it, the driver's share of it included."""
    context_bytes: int
    """What the process costs there beside PyTorch's allocator."""
    reserve_bytes: int
    """The driver's share of the nominal memory."""
    available_bytes: int
    """What training may hold in this hole; negative where not even the context fits."""
    slowdown_ratio: float | None
    """Time as a multiple of full BPTT's on the same device: at most this, or exactly where `planned`."""
    seconds: float | None
    """Of all iterations; null where the time of a forward pass is not known."""
    cost: float | None
    """Of all devices for all iterations; null where seconds or the hole's cost are not known."""
    planned: bool
    """The plan was made: slowdown, seconds and cost are its own, and not only bounds."""


class AcceptableDevice(Answer):
    """A type of device whose every device holds the job; bytes are those of one device."""

    device: str
    mig_slice: str | None
    fraction: float | None
    total_bytes: int
    """Nominal memory of the smallest device of this type."""
    device_count: int
    """Devices of this type, busy or not, in nodes that have enough of them."""
    plan_id: str
    budget_bytes: int
    """What training may hold on it: `memory.device_budget_bytes` of the plan."""
    request_bytes: int
    """The budget and the process's context: what must be free."""
    limit_bytes: int
    """The least nominal memory of which that much is left when the driver has taken its share."""
    slowdown_ratio: float
    """Time as a multiple of full BPTT's on the same device, at most."""


class SlurmRecord(Answer):
    """Arguments of sbatch; each alternative is complete in itself, the quickest first."""

    alternatives: list[list[str]]
    notes: list[str]


class PodNeedsRecord(Answer):
    """What goes into a pod."""

    limits: dict[str, str]
    node_affinity: dict[str, Any] | None
    """requiredDuringSchedulingIgnoredDuringExecution; null: any node."""


class KubernetesRecord(Answer):
    """Extended resources with node affinity, or the claim that replaces them."""

    alternatives: list[PodNeedsRecord]
    device_class: str | None
    """deviceClassName of a request in a ResourceClaimTemplate; null on CPUs."""
    device_selector: str | None
    """Its CEL expression: the only words here that look at the memory of each device."""
    gpu_memory_annotation: str | None
    """MiB for the annotation gpu-memory of schedulers that share devices, where a fraction will do."""
    notes: list[str]


class RayRecord(Answer):
    """Resources of a Ray job's entry point; each alternative is complete in itself."""

    alternatives: list[dict[str, float]]
    memory_mib: int | None
    """For a custom resource gpu_mem_mib; null where nodes have several devices: it is a sum over a node."""
    notes: list[str]


class SchedulerWordsRecord(Answer):
    """The job's needs in the words of each scheduler: a plan that runs on every acceptable type."""

    plan_id: str
    budget_bytes: int
    """What training may hold: `memory.device_budget_bytes` of the plan."""
    request_bytes: int
    """The budget and the process's context: what must be free on the device."""
    limit_bytes: int
    """Nominal memory from which any device of these types will do."""
    slurm: SlurmRecord
    kubernetes: KubernetesRecord
    ray: RayRecord


class JobPlacement(Answer):
    """Where one job fits."""

    name: str
    unit: Literal["forward", "seconds"]
    exact_gradient: bool = True
    """False when `training.gradient_sparsity` drops a part of the gradient, in all plans here."""
    minimum_budget_bytes: int
    """The leanest plan: with one byte less nothing fits."""
    held_bytes: int
    """What of every budget is held throughout (weights, their gradients, optimizer state): a job file's
    budget is what comes on top."""
    store_all_peak_bytes: int
    """What full BPTT holds: from here on nothing is slower."""
    store_all_makespan: float
    fitting_count: int
    """Holes that hold it, of all that were asked about."""
    offers: list[PlacementOffer]
    """The best first; after those that fit, the others by what they lack."""
    acceptable: list[AcceptableDevice]
    """Types of devices, the quickest first; a type counts only if its smallest device holds the job."""
    words: SchedulerWordsRecord | None
    """Null where no type is acceptable."""

    @property
    def shortage(self) -> str:
        """Why no type is acceptable, in a sentence with the numbers."""
        nearest = self.offers[0]
        needs = f"its leanest plan needs {self.minimum_budget_bytes} bytes"
        if nearest.fits:
            return f"{needs}; hole {nearest.hole} has them, but not every device of its type"
        if nearest.reason in {"count", "device"}:
            return f"{needs} on each device, and no node has so many of the kind and type that it runs on"
        if nearest.reason == "slowdown":
            return (
                f"{needs}, and {nearest.missing_bytes} more than hole {nearest.hole} has to be quick enough"
            )
        return f"{needs}, and the nearest hole lacks {nearest.missing_bytes}"


class PlacementReply(Answer):
    """Every job against every hole, each as if it were alone: nothing is assigned here."""

    planner_version: str
    hole_count: int
    """Holes that were asked about."""
    jobs: list[JobPlacement]
    """In the order of the request."""
