"""What is added to a Job, as a JSONPatch (RFC 6902). What the Job says already stays as it is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from planner_service.kubernetes.objects import CLAIM, PodResources

Operation = dict[str, Any]


def resources_patch(job: Mapping[str, Any], needs: PodResources) -> list[Operation]:
    """The operations that give the first container of `job` what it needs, and its pod the right nodes."""
    adding = _Adding(job)
    if needs.claim_template is not None:
        template = {"name": CLAIM, "resourceClaimTemplateName": needs.claim_template}
        if adding.appended((*_POD, "resourceClaims"), template):
            adding.appended((*_CONTAINER, "resources", "claims"), {"name": CLAIM})
    for name, amount in needs.limits.items():
        adding.added((*_CONTAINER, "resources", "limits", name), amount)
    if needs.node_affinity is not None:
        required = "requiredDuringSchedulingIgnoredDuringExecution"
        adding.added((*_POD, "affinity", "nodeAffinity", required), dict(needs.node_affinity))
    return adding.operations


def retry_patch(job: Mapping[str, Any]) -> list[Operation]:
    """Pods that nodes lose are replaced for free, and only once they have ended; where pods may not restart
    in place, which a failure policy needs.
    """
    adding = _Adding(job)
    if _at(job, (*_POD, "restartPolicy")) == "Never":
        conditions = [{"type": "DisruptionTarget", "status": "True"}]
        rule = {"action": "Ignore", "onPodConditions": conditions}
        adding.added(("spec", "podFailurePolicy"), {"rules": [rule]})
        adding.added(("spec", "podReplacementPolicy"), "Failed")
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
    """Operations on one Job that never replace anything; missing parents are added once."""

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
