"""AdmissionReview v1, as far as an admission webhook of Jobs needs it; names are Kubernetes' own."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

API_VERSION: Literal["admission.k8s.io/v1"] = "admission.k8s.io/v1"


class _Part(BaseModel):
    """Of a Job what is read here, of the form that Kubernetes gives it; further fields are kept."""

    model_config = ConfigDict(extra="allow", frozen=True)


class ContainerResources(_Part):
    """What a container asks for."""

    limits: dict[str, Any] | None = None
    requests: dict[str, Any] | None = None
    claims: list[dict[str, Any]] | None = Field(default=None, fail_fast=True)


class JobContainer(_Part):
    """A container of the Job's pods."""

    resources: ContainerResources | None = None


class JobPodSpec(_Part):
    """What the Job's pods are made of."""

    containers: list[JobContainer] | None = Field(default=None, fail_fast=True)
    resourceClaims: list[dict[str, Any]] | None = Field(default=None, fail_fast=True)  # noqa: N815


class JobPodTemplate(_Part):
    """The Job's pods."""

    spec: JobPodSpec | None = None


class AdmittedJobSpec(_Part):
    """The Job's specification."""

    template: JobPodTemplate | None = None


class JobMetadata(_Part):
    """The Job's name, labels and annotations."""

    annotations: dict[str, str] | None = None


class AdmittedJob(_Part):
    """A batch/v1 Job."""

    metadata: JobMetadata | None = None
    spec: AdmittedJobSpec | None = None


class AdmissionRequest(BaseModel):
    """What is to be admitted. Further fields are ignored."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    uid: Annotated[str, Field(min_length=1, max_length=200)]
    operation: str = "CREATE"
    object: AdmittedJob | None = None
    """The Job as it was sent; null for a deletion."""

    @property
    def job(self) -> dict[str, Any] | None:
        """The Job as it was sent, as plain values."""
        return None if self.object is None else self.object.model_dump(exclude_unset=True)


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
