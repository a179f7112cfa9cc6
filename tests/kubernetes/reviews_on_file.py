"""AdmissionReviews on file, with the annotations that a test wants.

`plain-job.json` was recorded on Kubernetes 1.20; `defaulted-job.json` is the same Job with every field that
the API server fills in since 1.29 (SetDefaults_Job), podReplacementPolicy too: written, not recorded.
"""

from __future__ import annotations

import base64
import copy
import json
from pathlib import Path
from typing import Any

_REVIEWS = Path(__file__).parent / "reviews"
RECORDED = json.loads((_REVIEWS / "plain-job.json").read_text())
DEFAULTED = json.loads((_REVIEWS / "defaulted-job.json").read_text())


def review(
    annotations: dict[str, str] | None = None, *, of: dict[str, Any] = RECORDED, **spec: Any
) -> dict[str, Any]:
    """The review of a Job with these annotations beside its own; `spec` changes fields of the pod."""
    made = copy.deepcopy(of)
    job = made["request"]["object"]
    job["metadata"]["annotations"] |= annotations or {}
    job["spec"]["template"]["spec"] |= spec
    return made


def patch_of(response: dict[str, Any]) -> list[dict[str, Any]]:
    """The operations of an answer."""
    assert response["patchType"] == "JSONPatch"
    return json.loads(base64.b64decode(response["patch"]))
