"""What is added to a Job, as a JSONPatch (RFC 6902). What the Job says already stays as it is.

The API server has filled in its own defaults by then: one of them gives way, which a failure policy forbids.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from planner_service.kubernetes.objects import CLAIM, MEMORY, PodResources

Operation = dict[str, Any]

_DEVICE = re.compile(r"/(gpu|mig|vgpu|gaudi|i915|xe)", re.IGNORECASE)
"""Extended resources of accelerators: nvidia.com/gpu and its shares, nvidia.com/mig-…, amd.com/gpu, …"""
DEFAULT_REPLACEMENT = "TerminatingOrFailed"
"""podReplacementPolicy of a Job that names none and has no failure policy, since Kubernetes 1.29."""


def resources_patch(job: Mapping[str, Any], needs: PodResources) -> list[Operation]:
    """The operations that give the first container of `job` what it needs, and its pod the right nodes.

    A Job that asks for devices itself, by a claim or by a resource of whatever name, gets no others.
    """
    adding = _Adding(job)
    counted = _counted_devices(job)
    claimed = any(_of_resources(job, "claims"))
    if needs.claim_template is not None and not counted:
        template = {"name": CLAIM, "resourceClaimTemplateName": needs.claim_template}
        if adding.appended((*_POD, "resourceClaims"), template):
            adding.appended((*_CONTAINER, "resources", "claims"), {"name": CLAIM})
    for name, amount in needs.limits.items():
        if not (_asks_for_memory(job) if name == MEMORY else counted or claimed):
            adding.added((*_CONTAINER, "resources", "limits", name), amount)
    if needs.node_affinity is not None and not claimed and counted <= set(needs.limits):
        required = "requiredDuringSchedulingIgnoredDuringExecution"
        adding.added((*_POD, "affinity", "nodeAffinity", required), dict(needs.node_affinity))
    return adding.operations


def _counted_devices(job: Mapping[str, Any]) -> set[str]:
    """The extended resources of accelerators that the pod asks for."""
    named = {name for kind in ("limits", "requests") for each in _of_resources(job, kind) for name in each}
    return {name for name in named if _DEVICE.search(name)}


def _asks_for_memory(job: Mapping[str, Any]) -> bool:
    """Whether the first container says how much main memory it wants: a limit below that would be invalid."""
    return _at(job, (*_CONTAINER, "resources", "requests", MEMORY)) is not None


def _of_resources(job: Mapping[str, Any], kind: str) -> list[Any]:
    """`kind` of the resources of every container: limits, requests or claims."""
    containers = _at(job, (*_POD, "containers")) or []
    return [(container.get("resources") or {}).get(kind) or {} for container in containers]


def retry_patch(job: Mapping[str, Any]) -> list[Operation]:
    """Pods that nodes lose are replaced for free, and only once they have ended; where pods may not restart
    in place, which a failure policy needs, and the Job has no such policy of its own.
    """
    adding = _Adding(job)
    if _at(job, (*_POD, "restartPolicy")) == "Never":
        conditions = [{"type": "DisruptionTarget", "status": "True"}]
        rule = {"action": "Ignore", "onPodConditions": conditions}
        if adding.added(("spec", "podFailurePolicy"), {"rules": [rule]}):
            adding.put(("spec", "podReplacementPolicy"), "Failed", instead_of=DEFAULT_REPLACEMENT)
    return adding.operations


def annotations_patch(job: Mapping[str, Any], annotations: Mapping[str, str]) -> list[Operation]:
    """What was found out about the Job, for people and for its own command."""
    adding = _Adding(job)
    for name, text in annotations.items():
        adding.added(("metadata", "annotations", name), text)
    return adding.operations


Path = tuple[str | int, ...]
_POD: Path = ("spec", "template", "spec")
_CONTAINER: Path = (*_POD, "containers", 0)


class _Adding:
    """Operations on one Job that replace nothing but a default; missing parents are added once."""

    def __init__(self, job: Mapping[str, Any]) -> None:
        self._job = job
        self._made: set[Path] = set()
        self.operations: list[Operation] = []

    def added(self, path: Path, value: object) -> bool:
        """Add `value` at `path` unless there is something; whether it was added."""
        if _at(self._job, path) is not None:
            return False
        self._make_parents(path)
        self._add(path, value)
        return True

    def put(self, path: Path, value: object, *, instead_of: object) -> None:
        """Put `value` at `path`, where there is nothing or the API server's default."""
        if _at(self._job, path) == instead_of:
            self.operations.append({"op": "replace", "path": pointer(path), "value": value})
        else:
            self.added(path, value)

    def appended(self, path: Path, value: Mapping[str, object]) -> bool:
        """Append `value` to the list at `path` unless it has one of that name; whether it was appended."""
        known = _at(self._job, path) or []
        if any(each.get("name") == value["name"] for each in known):
            return False
        if known:
            self._add((*path, "-"), value)
        else:
            self._make_parents(path)
            self._add(path, [value])
        return True

    def _make_parents(self, path: Path) -> None:
        for length in range(1, len(path)):
            parent = path[:length]
            if _at(self._job, parent) is None and parent not in self._made:
                self._add(parent, {})
                self._made.add(parent)

    def _add(self, path: Path, value: object) -> None:
        self.operations.append({"op": "add", "path": pointer(path), "value": value})


def pointer(path: Path) -> str:
    """A path as a JSON pointer (RFC 6901)."""
    return "".join("/" + str(part).replace("~", "~0").replace("/", "~1") for part in path)


def _at(found: Any, path: Path) -> Any:
    """What is at `path`; None where there is nothing."""
    for part in path:
        if isinstance(part, int):
            found = found[part] if isinstance(found, list) and len(found) > part else None
        else:
            found = found.get(part) if isinstance(found, Mapping) else None
        if found is None:
            return None
    return found
