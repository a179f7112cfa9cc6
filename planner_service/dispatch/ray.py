"""The engine `ray`: Ray Jobs by their REST interface; the service imports no ray and needs no version of it.

Nobody in Ray retries a job: a launch that Ray lost is handed over again by the service, under its next
number.
"""

from __future__ import annotations

import math
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import httpx

from planner_service.dispatch.engine import (
    EngineBusy,
    EngineRefused,
    EngineState,
    EngineStatus,
    EngineUnreachable,
    Launch,
    Resources,
    understanding,
)
from planner_service.loopback import names_this_machine

LOCAL_DASHBOARD = "http://127.0.0.1:8265"
"""Where `ray start --head` on this machine listens unless it is told otherwise."""
REQUEST_SECONDS = 15.0
MIB = 2**20
DEVICE_MEMORY = "gpu_mem_mib"
"""The custom resource of nodes that tell the memory of their one device, in MiB."""
ACCELERATOR = "accelerator_type:"
A_LITTLE = 0.001
"""Of an accelerator type's resource: enough to be placed where the type is. Of a GPU: enough to be shown it,
and too much for a job beside it that wants it whole."""
FOR_GOOD = {400, 413, 422}
"""Statuses of a submission that will never be taken; others may pass, such as 500 for want of an agent."""

_STATES: dict[str, EngineState] = {
    "PENDING": "waiting",
    "RUNNING": "running",
    "SUCCEEDED": "succeeded",
    "STOPPED": "cancelled",
    "FAILED": "failed",
}


@dataclass(frozen=True)
class Entrypoint:
    """What Ray sets aside for a job's process, in its own words."""

    cpus: float = 1
    gpus: float = 0
    memory_bytes: int | None = None
    custom: Mapping[str, float] = field(default_factory=dict)

    @property
    def wire(self) -> dict[str, Any]:
        """The fields of a job's submission."""
        memory = {} if self.memory_bytes is None else {"entrypoint_memory": self.memory_bytes}
        return {
            "entrypoint_num_cpus": self.cpus,
            "entrypoint_num_gpus": self.gpus,
            "entrypoint_resources": dict(self.custom),
            **memory,
        }

    def fits(self, node: Mapping[str, float]) -> bool:
        """Whether a node with these total resources could ever run it."""
        asked = {"CPU": self.cpus, "GPU": self.gpus, "memory": self.memory_bytes or 0, **self.custom}
        return all(node.get(name, 0) >= amount for name, amount in asked.items() if amount)


class RayEngine:
    """Talks to the dashboard of a Ray head. References are submission ids."""

    name = "ray"
    most_unfinished = None

    def __init__(
        self, url: str, *, token: str = "", setup: str = "", transport: httpx.BaseTransport | None = None
    ) -> None:
        """`url` is the dashboard's, such as LOCAL_DASHBOARD; `token` the cluster's, when it wants one;
        `setup` is a line of shell before the worker, such as the activation of an environment.
        """
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        if transport is None and names_this_machine(url):
            transport = httpx.HTTPTransport()
        self._http = httpx.Client(base_url=url, headers=headers, timeout=REQUEST_SECONDS, transport=transport)
        self._setup = setup

    def submit(self, launch: Launch) -> str:
        """Submit the launch, unless Ray has it already. Raises EngineRefused when no node could ever run it,
        where Ray itself would keep it pending for ever (ray-project/ray issue 45909), and EngineBusy where it
        takes none now.
        """
        # A second submission under one id is an internal error of Ray's: ask first.
        if self._send("GET", f"/api/jobs/{launch.name}").status_code == httpx.codes.OK:
            return launch.name
        entrypoint = place(launch.resources, self._nodes(), ran_before=launch.ran_before)
        body = {
            "submission_id": launch.name,
            "entrypoint": _shell(launch.command, self._setup),
            "runtime_env": {"env_vars": launch.environment},
            "metadata": {"tightfit_job": launch.job_id},
            **entrypoint.wire,
        }
        answer = self._send("POST", "/api/jobs/", json=body)
        if answer.is_success:
            return launch.name
        said = f"status {answer.status_code}: {answer.text[:500]}"
        raise (
            EngineRefused(self.name, said) if answer.status_code in FOR_GOOD else EngineBusy(self.name, said)
        )

    def statuses(self, references: Sequence[str]) -> dict[str, EngineStatus]:
        """See `status`."""
        return {reference: self.status(reference) for reference in references}

    def status(self, reference: str) -> EngineStatus:
        """What Ray says of the job."""
        answer = self._send("GET", f"/api/jobs/{reference}")
        if answer.status_code == httpx.codes.NOT_FOUND:
            return EngineStatus("missing", f"Ray knows no job {reference}")
        if not answer.is_success:
            raise EngineUnreachable(self.name, f"status {answer.status_code}")
        with understanding(self.name):
            job = answer.json()
            return EngineStatus(_STATES.get(job["status"], "failed"), job.get("message") or "")

    def cancel(self, reference: str) -> None:
        """SIGTERM to the worker, SIGKILL after Ray's own wait."""
        answer = self._send("POST", f"/api/jobs/{reference}/stop")
        if not answer.is_success and answer.status_code != httpx.codes.NOT_FOUND:
            raise EngineUnreachable(self.name, f"stop: status {answer.status_code}: {answer.text[:500]}")

    def withdraw(self, name: str) -> None:
        """References are names."""
        self.cancel(name)

    def _nodes(self) -> list[dict[str, float]]:
        answer = self._send("GET", "/nodes", params={"view": "summary"})
        if not answer.is_success:
            raise EngineUnreachable(self.name, f"its nodes: status {answer.status_code}")
        with understanding(self.name):
            summary = answer.json()["data"]["summary"]
            return [_resources(node["raylet"]) for node in summary if node["raylet"].get("state") == "ALIVE"]

    def _send(self, method: str, path: str, **content: Any) -> httpx.Response:
        try:
            answer = self._http.request(method, path, **content)
        except httpx.HTTPError as error:
            raise EngineUnreachable(self.name, str(error) or type(error).__name__) from error
        if answer.status_code in (httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN):
            raise EngineUnreachable(self.name, "the cluster wants another token")
        return answer


def place(
    resources: Resources, nodes: Sequence[Mapping[str, float]], *, ran_before: bool = False
) -> Entrypoint:
    """What to ask of a cluster whose living nodes have these total resources.

    A job that `ran_before` may wait for the node that it was lost with, or for its replacement. Raises
    EngineRefused when no node could ever run it, and EngineBusy while there is no node.
    """
    if not nodes and not ran_before:
        raise EngineBusy("ray", "no node is alive")
    acceptable = _acceptable(resources, nodes)
    for entrypoint in acceptable:
        if any(entrypoint.fits(node) for node in nodes):
            return entrypoint
    if ran_before and acceptable:
        return acceptable[0]
    raise EngineRefused("ray", f"none of {len(nodes)} nodes could ever run it: {_wanted(resources)}")


def _acceptable(resources: Resources, nodes: Sequence[Mapping[str, float]]) -> list[Entrypoint]:
    """What would do, the best first."""
    if resources.device == "cpu":
        asked = resources.request_bytes
        return [Entrypoint(memory_bytes=None if asked is None else asked * resources.processes)]
    whole = float(resources.processes)
    types = resources.types_for("ray")
    if types:
        kinds = [f"{ACCELERATOR}{kind}" for kind in types]
        return [Entrypoint(gpus=whole, custom={kind: A_LITTLE}) for kind in kinds]
    if resources.limit_bytes is None:
        return [Entrypoint(gpus=whole)]
    # A node's memory resource is the sum over its devices: it tells what fits on nodes of one device only.
    if any(node.get("GPU", 0) > 1 for node in nodes if DEVICE_MEMORY in node) or resources.processes > 1:
        return []
    mebibytes = math.ceil(resources.limit_bytes / MIB)
    # To a job that asks for no GPU at all Ray shows none: CUDA_VISIBLE_DEVICES is empty.
    return [Entrypoint(gpus=A_LITTLE, custom={DEVICE_MEMORY: mebibytes})]


def _wanted(resources: Resources) -> str:
    if resources.device == "cpu":
        return f"{resources.request_bytes} bytes of memory"
    kinds = " or ".join(resources.device_types) or "any type"
    return (
        f"{resources.processes} GPUs of {kinds}, {resources.limit_bytes} bytes each; nodes tell the memory "
        f"of their one device by the resource {DEVICE_MEMORY}, and its type by {ACCELERATOR}TYPE"
    )


def _resources(raylet: Mapping[str, Any]) -> dict[str, float]:
    """A node's total resources, under the names they were given."""
    total: Mapping[str, float] = raylet.get("resourcesTotal", {})
    # The dashboard writes every name in camel case: gpu_mem_mib comes back as gpuMemMib.
    return {DEVICE_MEMORY if name == "gpuMemMib" else name: amount for name, amount in total.items()}


def _shell(command: Sequence[str], setup: str) -> str:
    worker = f"exec {shlex.join(command)}"
    return f"{setup} && {worker}" if setup else worker
