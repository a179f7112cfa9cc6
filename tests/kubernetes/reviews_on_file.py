"""The recorded AdmissionReview, with the annotations that a test wants."""

from __future__ import annotations

import base64
import copy
import json
from pathlib import Path
from typing import Any

RECORDED = json.loads((Path(__file__).parent / "reviews" / "plain-job.json").read_text())


def review(annotations: dict[str, str] | None = None, **spec: Any) -> dict[str, Any]:
    """The review of a Job with these annotations beside its own; `spec` changes fields of the pod."""
    made = copy.deepcopy(RECORDED)
    job = made["request"]["object"]
    job["metadata"]["annotations"] |= annotations or {}
    job["spec"]["template"]["spec"] |= spec
    return made


def patch_of(response: dict[str, Any]) -> list[dict[str, Any]]:
    """The operations of an answer."""
    assert response["patchType"] == "JSONPatch"
    return json.loads(base64.b64decode(response["patch"]))
