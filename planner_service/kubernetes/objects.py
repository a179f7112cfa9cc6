"""What Kubernetes is told of one job: a batch/v1 Job, and a claim where devices are claimed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

Manifest = dict[str, Any]

JOB_LABEL = "tightfit/job"
PLAN_ANNOTATION = "tightfit/plan"
QUEUE_LABEL = "kueue.x-k8s.io/queue-name"
PRODUCT_LABEL = "nvidia.com/gpu.product"
MEMORY = "memory"
"""The resource of main memory."""
CONTAINER = "worker"
CLAIM = "gpu"
WORK_VOLUME = "work"
JOB_VOLUME = "job"
WORKER_GROUP = 10001
"""Of the user in deploy/Dockerfile.worker: volumes are made writable for it."""
BACKOFF_LIMIT = 0
"""The service repeats a job that fails, with a tighter budget after an OOM; Kubernetes repeats what its
nodes lose, which does not count."""
GRACE_SECONDS = 90
"""For the worker's step and its last report, after SIGTERM."""
KEPT_SECONDS = 86_400
"""An ended Job is deleted after a day; its results are at the service."""


@dataclass(frozen=True, kw_only=True)
class PodResources:
    """What the worker's container needs."""

    limits: Mapping[str, str] = field(default_factory=dict)
    """Extended resources, or memory."""
    node_affinity: Mapping[str, Any] | None = None
    """`requiredDuringSchedulingIgnoredDuringExecution`."""
    claim_template: str | None = None
    """Name of a ResourceClaimTemplate; then `limits` counts no devices."""


@dataclass(frozen=True, kw_only=True)
class JobSpec:
    """A Job to be made."""

    name: str
    namespace: str
    image: str
    command: Sequence[str]
    environment: Mapping[str, str]
    resources: PodResources
    queue: str = ""
    """Kueue's local queue; the Job is then made suspended, and Kueue starts it."""
    volume_claim: str = ""
    """PersistentVolumeClaim under the work folder; without one the folder goes with the pod."""
    work_dir: str = ""
    """Where the work folder is mounted; empty: the container has one of its own, or needs none."""
    config_map: str = ""
    """ConfigMap that is mounted at `config_folder`."""
    config_folder: str = "/job"
    labels: Mapping[str, str] = field(default_factory=dict)
    annotations: Mapping[str, str] = field(default_factory=dict)


def job_manifest(spec: JobSpec) -> Manifest:
    """The batch/v1 Job.

    A pod that a node lost or a drain ended (DisruptionTarget) is replaced for free, and only once it has
    ended (podReplacementPolicy: Failed): two pods of one job would both train until the fence stops one.
    """
    labels = {**spec.labels, **({QUEUE_LABEL: spec.queue} if spec.queue else {})}
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {
            "name": spec.name,
            "namespace": spec.namespace,
            "labels": labels,
            "annotations": dict(spec.annotations),
        },
        "spec": {
            "suspend": bool(spec.queue),
            "parallelism": 1,
            "completions": 1,
            "backoffLimit": BACKOFF_LIMIT,
            "podReplacementPolicy": "Failed",
            "ttlSecondsAfterFinished": KEPT_SECONDS,
            "podFailurePolicy": {
                "rules": [
                    {
                        "action": "Ignore",
                        "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}],
                    },
                ]
            },
            "template": {"metadata": {"labels": dict(spec.labels)}, "spec": _pod(spec)},
        },
    }


def _pod(spec: JobSpec) -> Manifest:
    resources = spec.resources
    pod: Manifest = {
        "restartPolicy": "Never",
        "terminationGracePeriodSeconds": GRACE_SECONDS,
        "automountServiceAccountToken": False,
        "containers": [_container(spec)],
    }
    if resources.node_affinity is not None:
        required = {"requiredDuringSchedulingIgnoredDuringExecution": dict(resources.node_affinity)}
        pod["affinity"] = {"nodeAffinity": required}
    if resources.claim_template is not None:
        pod["resourceClaims"] = [{"name": CLAIM, "resourceClaimTemplateName": resources.claim_template}]
    volumes = [volume for _, volume in _volumes(spec)]
    if volumes:
        pod["volumes"] = volumes
        pod["securityContext"] = {"fsGroup": WORKER_GROUP}
    return pod


def _volumes(spec: JobSpec) -> list[tuple[str, Manifest]]:
    """Where each volume is mounted, and what it is."""
    found: list[tuple[str, Manifest]] = []
    if spec.work_dir:
        claim = {"persistentVolumeClaim": {"claimName": spec.volume_claim}}
        source: Manifest = claim if spec.volume_claim else {"emptyDir": {}}
        found.append((spec.work_dir, {"name": WORK_VOLUME, **source}))
    if spec.config_map:
        found.append((spec.config_folder, {"name": JOB_VOLUME, "configMap": {"name": spec.config_map}}))
    return found


def _container(spec: JobSpec) -> Manifest:
    resources: Manifest = {"limits": dict(spec.resources.limits)} if spec.resources.limits else {}
    if spec.resources.claim_template is not None:
        resources["claims"] = [{"name": CLAIM}]
    container: Manifest = {
        "name": CONTAINER,
        "image": spec.image,
        "command": list(spec.command),
        "env": [{"name": name, "value": value} for name, value in sorted(spec.environment.items())],
        "resources": resources,
    }
    mounts = [{"name": volume["name"], "mountPath": folder} for folder, volume in _volumes(spec)]
    if mounts:
        container["volumeMounts"] = mounts
    return container


def config_map(name: str, namespace: str, files: Mapping[str, str]) -> Manifest:
    """A ConfigMap of small files."""
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": name, "namespace": namespace},
        "data": dict(files),
    }


def claim_template(name: str, namespace: str, *, device_class: str, selector: str, count: int) -> Manifest:
    """A resource.k8s.io/v1 ResourceClaimTemplate for `count` devices that a CEL expression selects."""
    request = {
        "deviceClassName": device_class,
        "allocationMode": "ExactCount",
        "count": count,
        "selectors": [{"cel": {"expression": selector}}],
    }
    return {
        "apiVersion": "resource.k8s.io/v1",
        "kind": "ResourceClaimTemplate",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"spec": {"devices": {"requests": [{"name": CLAIM, "exactly": request}]}}},
    }


def product_affinity(products: Sequence[str]) -> Manifest | None:
    """Only nodes with one of these products; None for any node."""
    if not products:
        return None
    wanted = {"key": PRODUCT_LABEL, "operator": "In", "values": sorted(set(products))}
    return {"nodeSelectorTerms": [{"matchExpressions": [wanted]}]}
