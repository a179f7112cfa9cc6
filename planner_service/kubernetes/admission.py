"""Admission of annotated Jobs: the plan or the request in an annotation becomes resources of the pod.

Annotations that are read:
    tightfit/plan             the id of a plan that the service made
    tightfit/request          JSON: a model and a sequence, or a job, as in POST /v1/placements
    tightfit/claim-template   the name of a ResourceClaimTemplate, where devices are claimed
Annotations that are added: tightfit/plan, and tightfit/budget-bytes, …/request-bytes, …/limit-bytes.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from planner_service.contract.admission import AdmissionResponse, AdmissionStatus
from planner_service.kubernetes.objects import PLAN_ANNOTATION, PodResources
from planner_service.kubernetes.patch import annotations_patch, resources_patch, retry_patch

REQUEST_ANNOTATION = "tightfit/request"
CLAIM_ANNOTATION = "tightfit/claim-template"
BUDGET_ANNOTATION = "tightfit/budget-bytes"
REQUEST_BYTES_ANNOTATION = "tightfit/request-bytes"
LIMIT_BYTES_ANNOTATION = "tightfit/limit-bytes"
UNPROCESSABLE = 422


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What a Job's annotations ask for."""

    plan_id: str | None = None
    request: str | None = None
    claim_template: str | None = None

    @property
    def nothing(self) -> bool:
        """Whether the Job is none of ours."""
        return self.plan_id is None and self.request is None


@dataclass(frozen=True, kw_only=True)
class Found:
    """What was found out about a Job; bytes are those of one device."""

    plan_id: str
    budget_bytes: int
    request_bytes: int
    limit_bytes: int
    resources: PodResources


def asked_of(job: Mapping[str, Any] | None) -> Asked:
    """What the annotations of a Job ask for; nothing where it has none, or is no Job."""
    annotations = ((job or {}).get("metadata") or {}).get("annotations") or {}
    return Asked(
        plan_id=annotations.get(PLAN_ANNOTATION),
        request=annotations.get(REQUEST_ANNOTATION),
        claim_template=annotations.get(CLAIM_ANNOTATION),
    )


def unchanged(uid: str, warning: str | None = None) -> AdmissionResponse:
    """Admitted as it is: the webhook is a help, and stands in nobody's way."""
    return AdmissionResponse(uid=uid, allowed=True, warnings=None if warning is None else [warning])


def refused(uid: str, message: str) -> AdmissionResponse:
    """Not admitted: no device of the cluster will ever hold it."""
    return AdmissionResponse(
        uid=uid, allowed=False, status=AdmissionStatus(code=UNPROCESSABLE, message=message)
    )


def filled(uid: str, job: Mapping[str, Any], found: Found) -> AdmissionResponse:
    """Admitted, with what was found out added; what the Job says itself stays."""
    told = {
        PLAN_ANNOTATION: found.plan_id,
        BUDGET_ANNOTATION: str(found.budget_bytes),
        REQUEST_BYTES_ANNOTATION: str(found.request_bytes),
        LIMIT_BYTES_ANNOTATION: str(found.limit_bytes),
    }
    patch = [
        *annotations_patch(job, told),
        *resources_patch(job, found.resources),
        *retry_patch(job),
    ]
    encoded = base64.b64encode(json.dumps(patch).encode()).decode()
    return AdmissionResponse(uid=uid, allowed=True, patchType="JSONPatch", patch=encoded)
