"""The engine `kubernetes`: batch/v1 Jobs by the API server's REST interface and a bearer token.

Kubernetes replaces pods that it loses; a worker that fails ends its Job, and the service decides. The
name of a Job holds the number of its launch, so that a second submission collides (409) and makes none.
"""

from __future__ import annotations

import ssl
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any

import httpx

from planner_service.dispatch.engine import (
    EngineBusy,
    EngineRefused,
    EngineStatus,
    EngineUnreachable,
    Launch,
    Resources,
    understanding,
)
from planner_service.kubernetes.objects import (
    JOB_LABEL,
    JobSpec,
    Manifest,
    PodResources,
    claim_template,
    job_manifest,
    product_affinity,
)
from planner_service.placement.holes import is_mig_slice
from planner_service.placement.kubernetes import DRIVER, GPU, device_selector, resource_of
from planner_service.placement.wanted import mebibytes
from planner_service.settings import Settings

IN_CLUSTER_URL = "https://kubernetes.default.svc"
TIMEOUT_SECONDS = 20.0
DRA = "dra"
_LATER = {408, 425, 429, 500, 502, 503, 504}
_REFUSED_BY_RIGHTS = {401, 403}
_QUOTA = "exceeded quota"
"""In the message of a 403 that is about what is in use now, and not about rights."""


@dataclass(frozen=True, kw_only=True)
class Site:
    """Where Jobs are made, and of what."""

    namespace: str = "default"
    image: str = "tightfit-worker:latest"
    queue: str = ""
    claim: str = ""
    """`dra` for a claim by memory, else extended resources."""
    volume_claim: str = ""


@dataclass(frozen=True, kw_only=True)
class Server:
    """An API server, and how it is spoken to."""

    url: str = IN_CLUSTER_URL
    ca_file: Path | None = None
    """Certificates that it is trusted by; None or missing: those of this machine."""
    token_file: Path | None = None
    """Its bearer token, read for every call, for it turns; None: it asks for none."""

    def client(self) -> httpx.Client:
        """An HTTP client of the server."""
        authority = self.ca_file if self.ca_file is not None and self.ca_file.exists() else None
        trusted = ssl.create_default_context(cafile=authority)
        return httpx.Client(base_url=self.url, verify=trusted, timeout=TIMEOUT_SECONDS)

    def headers(self) -> dict[str, str]:
        """What every call carries. Raises OSError when the token cannot be read."""
        if self.token_file is None:
            return {}
        return {"authorization": f"Bearer {self.token_file.read_text().strip()}"}


class KubernetesEngine:
    """One namespace of one cluster. References are names of Jobs."""

    name = "kubernetes"
    most_unfinished = None

    def __init__(self, server: Server, site: Site) -> None:
        self._server = server
        self._site = site

    @cached_property
    def _http(self) -> httpx.Client:
        return self._server.client()

    def submit(self, launch: Launch) -> str:
        """Make the Job, and what its pod claims, which goes with it: both or none. Raises EngineRefused and
        EngineBusy.
        """
        resources = pod_resources(launch, self._site.claim)
        self._create(self._jobs_path, job_manifest(_job_spec(launch, resources, self._site)))
        if resources.claim_template is not None:
            try:
                self._claim(launch)
            except (EngineRefused, EngineBusy):
                self.cancel(launch.name)  # its pod would wait for the claim for ever
                raise
        return launch.name

    def _claim(self, launch: Launch) -> None:
        """Make the template of the claim, which goes with the Job."""
        job = self._expect(self._call("GET", f"{self._jobs_path}/{launch.name}"))
        with understanding(self.name):
            owner = {
                "apiVersion": "batch/v1",
                "kind": "Job",
                "name": launch.name,
                "uid": job["metadata"]["uid"],
            }
        template = _template(launch, self._site.namespace)
        template["metadata"]["ownerReferences"] = [owner]
        self._create(_claims_path(self._site.namespace), template)

    def statuses(self, references: Sequence[str]) -> dict[str, EngineStatus]:
        """See `status`."""
        return {reference: self.status(reference) for reference in references}

    def status(self, reference: str) -> EngineStatus:
        """By the Job's conditions and its count of active pods."""
        answer = self._call("GET", f"{self._jobs_path}/{reference}")
        if answer.status_code == 404:
            return EngineStatus("missing", f"there is no Job {reference}")
        job = self._expect(answer)
        with understanding(self.name):
            return job_status(job)

    def cancel(self, reference: str) -> None:
        """Delete the Job, and with it its pods, which get their grace period."""
        body = {"kind": "DeleteOptions", "apiVersion": "v1", "propagationPolicy": "Background"}
        answer = self._call("DELETE", f"{self._jobs_path}/{reference}", body)
        if answer.status_code != 404:
            self._expect(answer)

    def withdraw(self, name: str) -> None:
        """References are names. A Job that is over stays: people may want to see how it ended."""
        if self.status(name).state in {"waiting", "running"}:
            self.cancel(name)

    @property
    def _jobs_path(self) -> str:
        return f"/apis/batch/v1/namespaces/{self._site.namespace}/jobs"

    def _create(self, path: str, manifest: Manifest) -> None:
        answer = self._call("POST", path, manifest)
        if answer.status_code == 409 and _reason(answer) == "AlreadyExists":
            return  # submitted before
        if answer.status_code == 409 or _QUOTA in _message(answer):
            raise EngineBusy(self.name, f"{answer.status_code} {_message(answer)}")
        self._expect(answer)

    def _call(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> httpx.Response:
        try:
            return self._http.request(method, path, json=body, headers=self._server.headers())
        except OSError as error:
            raise EngineUnreachable(self.name, f"token or certificates: {error}") from error
        except httpx.HTTPError as error:
            raise EngineUnreachable(self.name, str(error) or type(error).__name__) from error

    def _expect(self, answer: httpx.Response) -> Any:
        """The body of a success. Raises EngineUnreachable where later may be better, else EngineRefused."""
        if answer.is_success:
            with understanding(self.name):
                return answer.json()
        said = f"{answer.status_code} {_message(answer)}"
        if answer.status_code in _LATER | _REFUSED_BY_RIGHTS:  # rights are given while the service runs
            raise EngineUnreachable(self.name, said)
        raise EngineRefused(self.name, said)


def kubernetes_engine(settings: Settings) -> KubernetesEngine:
    """The engine that the settings describe."""
    token_file = settings.kubernetes_token_file
    server = Server(
        url=settings.kubernetes_url or IN_CLUSTER_URL,
        ca_file=Path(settings.kubernetes_ca_file),
        token_file=Path(token_file) if token_file else None,
    )
    site = Site(
        namespace=settings.kubernetes_namespace,
        image=settings.kubernetes_image,
        queue=settings.kubernetes_queue,
        claim=settings.kubernetes_claim,
        volume_claim=settings.kubernetes_volume_claim,
    )
    return KubernetesEngine(server, site)


def job_status(job: Mapping[str, Any]) -> EngineStatus:
    """What a Job's `status` says."""
    status: Mapping[str, Any] = job.get("status") or {}
    for condition in status.get("conditions") or []:
        detail = f"{condition.get('reason', '')} {condition.get('message', '')}".strip()
        if condition.get("status") == "True" and condition["type"] == "Complete":
            return EngineStatus("succeeded", detail)
        if condition.get("status") == "True" and condition["type"] == "Failed":
            return EngineStatus("failed", detail)
    if status.get("active"):
        return EngineStatus("running", f"{status['active']} pods, {status.get('ready', 0)} ready")
    suspended = (job.get("spec") or {}).get("suspend")
    return EngineStatus("waiting", "suspended" if suspended else "no pod yet")


def pod_resources(launch: Launch, claim: str) -> PodResources:
    """What the container asks for: memory on CPUs; else a claim, or devices of the types that hold it, whole
    GPUs before slices. Raises EngineRefused where those types have no name.
    """
    needs = launch.resources
    if needs.device == "cpu":
        return PodResources(limits=_main_memory(needs))
    if claim == DRA and needs.limit_bytes is not None:
        return PodResources(claim_template=launch.name)
    types = needs.types_for("kubernetes")
    products = [kind for kind in types if not is_mig_slice(kind)]
    if types and not products:
        return PodResources(limits={resource_of(types[0]): str(needs.processes)})
    return PodResources(limits={GPU: str(needs.processes)}, node_affinity=product_affinity(products))


def _main_memory(needs: Resources) -> dict[str, str]:
    return {} if needs.request_bytes is None else {"memory": f"{mebibytes(needs.request_bytes)}Mi"}


def _job_spec(launch: Launch, resources: PodResources, site: Site) -> JobSpec:
    return JobSpec(
        name=launch.name,
        namespace=site.namespace,
        image=site.image,
        command=launch.command,
        environment=launch.environment,
        resources=resources,
        queue=site.queue,
        volume_claim=site.volume_claim,
        work_dir=str(PurePosixPath(launch.work_dir).parent),  # jobs' folders are side by side in it
        labels={JOB_LABEL: launch.job_id},
    )


def _template(launch: Launch, namespace: str) -> Manifest:
    nominal_bytes = launch.resources.limit_bytes or 0
    return claim_template(
        launch.name,
        namespace,
        device_class=DRIVER,
        selector=device_selector(nominal_bytes),
        count=launch.resources.processes,
    )


def _claims_path(namespace: str) -> str:
    return f"/apis/resource.k8s.io/v1/namespaces/{namespace}/resourceclaimtemplates"


def _reason(answer: httpx.Response) -> str:
    return str(_status_of(answer).get("reason", ""))


def _message(answer: httpx.Response) -> str:
    return str(_status_of(answer).get("message") or answer.text[:200])


def _status_of(answer: httpx.Response) -> Mapping[str, Any]:
    try:
        found = answer.json()
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
