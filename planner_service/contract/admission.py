"""AdmissionReview v1, as far as an admission webhook of Jobs needs it; names are Kubernetes' own."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

API_VERSION: Literal["admission.k8s.io/v1"] = "admission.k8s.io/v1"


class AdmissionRequest(BaseModel):
    """What is to be admitted. Further fields are ignored."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    uid: Annotated[str, Field(min_length=1, max_length=200)]
    operation: str = "CREATE"
    object: dict[str, Any] | None = None
    """The Job as it was sent; null for a deletion."""


class AdmissionReview(BaseModel):
    """POST /v1/kubernetes/admission: what the API server asks."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    apiVersion: Literal["admission.k8s.io/v1"]  # noqa: N815
    kind: Literal["AdmissionReview"]
    request: AdmissionRequest


class AdmissionStatus(BaseModel):
    """Why a Job is not admitted."""

    code: int
    message: str


class AdmissionResponse(BaseModel):
    """Whether the Job is admitted, and what is added to it."""

    uid: str
    allowed: bool
    status: AdmissionStatus | None = None
    warnings: list[str] | None = None
    """Shown by kubectl."""
    patchType: Literal["JSONPatch"] | None = None  # noqa: N815
    patch: str | None = None
    """A JSONPatch (RFC 6902) in base64."""


class AdmissionReviewReply(BaseModel):
    """The answer."""

    apiVersion: Literal["admission.k8s.io/v1"] = API_VERSION  # noqa: N815
    kind: Literal["AdmissionReview"] = "AdmissionReview"
    response: AdmissionResponse
