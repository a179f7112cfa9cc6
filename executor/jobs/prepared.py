"""A job made ready: its text, its model, its budget in bytes, and what a probe measured of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch

from executor.jobs.data import CharacterStreams, character_streams
from executor.jobs.job import Job
from executor.jobs.models import CharacterModel, Window
from executor.jobs.training import PlannedLoss, held_bytes
from executor.measure import default_device
from executor.memory.activations import activation_bytes
from executor.memory.hard_cap import free_for_plans
from executor.offload.host import HostMemory
from executor.plan import ExecutionPlan
from executor.planner import RemotePlanner, best_plan, in_process
from executor.probe import probe_loop
from executor.probe_report import ProbeReport
from executor.probe_tapes import beside_host_memory
from executor.probing.static_lines import StaticLine
from executor.reversible import Reversible
from executor.sparse import SparseAudit, SparsitySpec
from executor.sparse.modules import SparseRecurrence
from planner_service.chain.quantities import format_bytes

Progress = Callable[[str], None]
"""Receives one line at a time about what is being done."""


@dataclass(frozen=True)
class PreparedJob:
    """A job with everything that its iterations need."""

    job: Job
    streams: CharacterStreams
    model: CharacterModel
    loss: PlannedLoss
    budget_bytes: int
    probe: ProbeReport
    audit: SparseAudit | None
    """The books of sparsified gradients; None where the gradient is exact."""

    @classmethod
    def of(
        cls,
        job: Job,
        progress: Progress,
        device: torch.device | None = None,
        *,
        device_bytes: int | None = None,
        streams: CharacterStreams | None = None,
    ) -> PreparedJob:
        """Load the text, make the model, find the budget in bytes and probe the model.

        The budget "free" is what the device has free now; with `device_bytes`, it is what of them is not
        held throughout training. `streams` are this process's share where several train together.
        Raises InvalidJob when the text is missing or too short.
        """
        device = device or default_device()
        streams = (streams or character_streams(job.data, job.sequence)).to(device)
        torch.manual_seed(job.training.seed)
        model = CharacterModel(
            job.model,
            vocabulary_size=streams.vocabulary.size,
            sparsity=job.training.gradient_sparsity,
            seed=job.training.seed,
        ).to(device)
        loss = PlannedLoss(model, length=job.sequence.length, batch_size=job.sequence.batch_size)
        window = Window.of(streams.window(0))
        budget_bytes = _budget_bytes(job, model, window, device, device_bytes)
        meaning = "" if job.budget.given_bytes is not None else f" = {format_bytes(budget_bytes)}"
        progress(f"budget: {job.budget}{meaning}")
        progress("measuring segments of several lengths on this machine")
        probe = probe_loop(loss.loop(window), budget_bytes=budget_bytes)
        if job.host_budget_bytes is not None:
            probe = beside_host_memory(loss.loop(window), probe, budget_bytes, job.host_budget_bytes)
        audit = _audit_of(model, job.training.gradient_sparsity)
        if audit is not None:
            probe = replace(probe, static=(*probe.static, audit_line(audit)))
        return cls(job, streams, model, loss, budget_bytes, probe, audit)

    @property
    def window(self) -> Window:
        """The first window for training."""
        return Window.of(self.streams.window(0))

    def profile(self) -> dict[str, Any]:
        """The probe's findings as the planning service takes them."""
        return self.probe.record(
            {
                "cell": self.job.model.kind,
                "implementation": "fused",
                "dtype": self.job.model.dtype,
                **self._cell_options({}),
                **self._sparsity_options(),
                "input_size": self.job.model.embedding_size,
                "hidden_size": self.job.model.hidden_size,
                "num_layers": self.job.model.num_layers,
                "batch_size": self.job.sequence.batch_size,
                "embedding_size": self.streams.vocabulary.size,
                "head_output_size": self.streams.vocabulary.size,
            }
        )

    def request(self) -> dict[str, Any]:
        """What to ask a planning service, the budget apart."""
        vocabulary_size = self.streams.vocabulary.size
        return {
            "model": {
                "kind": self.job.model.kind,
                "input_size": self.job.model.embedding_size,
                "hidden_size": self.job.model.hidden_size,
                "num_layers": self.job.model.num_layers,
                "dtype": self.job.model.dtype,
                "embedding": {"vocabulary_size": vocabulary_size},
                "head": {"output_size": vocabulary_size},
                **self._cell_options({"implementation": "fused"}),
            },
            "sequence": {
                "length": self.job.sequence.length,
                "batch_size": self.job.sequence.batch_size,
            },
            "training": {
                "optimizer": self.job.training.optimizer,
                "loss": "inside",
                **self._sparsity_options(),
            },
            "device": self.probe.device.partition(":")[0],
            "profile": self.profile(),
        }

    def _cell_options(self, of_torch: dict[str, Any]) -> dict[str, Any]:
        """What a request says of a reversible cell; `of_torch` for a cell of torch's."""
        module = self.model.recurrent
        if not isinstance(module, Reversible):
            return of_torch
        limit = {} if module.cell.forget_bits is None else {"forget_bits": self.job.model.forget_bits}
        return {**limit, "coding": module.coding}

    def _sparsity_options(self) -> dict[str, Any]:
        sparsity = self.job.training.gradient_sparsity
        return {} if sparsity is None else {"gradient_sparsity": sparsity.planned()}

    def host(self) -> HostMemory | None:
        """Host memory beside the device, its two directions measured; None where the job names none."""
        if self.job.host_budget_bytes is None:
            return None
        return HostMemory.beside(self.loss.loop(self.window), self.probe.needs, self.job.host_budget_bytes)

    def plan(self, planner: RemotePlanner | None) -> tuple[ExecutionPlan, str | None]:
        """The plan, and its id where a service made it.

        Raises BudgetTooSmall with the least budget; PlannerUnreachable when the service does not answer.
        """
        host = self.host()
        if planner is None:
            return best_plan(self.probe, self.budget_bytes, in_process, host), None
        held = held_bytes(self.model, self.window, self.job.training)
        return planner.plan(self.probe, self.budget_bytes, request=self.request(), held_bytes=held, host=host)


def _budget_bytes(
    job: Job, model: CharacterModel, window: Window, device: torch.device, device_bytes: int | None
) -> int:
    """The job's budget; `device_bytes` are all that it may hold on the device, where that is limited."""

    def free_bytes() -> int:
        if device_bytes is None:
            return free_for_plans(device)
        return max(1, device_bytes - held_bytes(model, window, job.training))

    return job.budget.bytes(
        activation_bytes=lambda: full_activation_bytes(model, window), free_bytes=free_bytes
    )


def _audit_of(model: CharacterModel, sparsity: SparsitySpec | None) -> SparseAudit | None:
    if sparsity is None or not isinstance(model.recurrent, SparseRecurrence):
        return None
    return SparseAudit(model.recurrent, cosine_every=sparsity.cosine_every)


def audit_line(audit: SparseAudit) -> StaticLine:
    """What keeping the books takes out of the budget: the probe does not see it."""
    formula = "copies of the layers' gradients, for comparison (or of random streams) and error feedback"
    return StaticLine("sparse gradients' books", audit.held_bytes, formula, "bound")


def full_activation_bytes(model: CharacterModel, window: Window) -> int:
    """What plain full BPTT keeps between its passes over `window`, in bytes."""
    return activation_bytes(
        lambda steps: model.full_loss(Window(*(indices[:steps] for indices in window))),
        window.characters.shape[0],
        held=[*window, *model.parameters()],
    )
