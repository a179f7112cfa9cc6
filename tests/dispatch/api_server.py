"""A Kubernetes API server in memory: Jobs and claim templates of one namespace, nothing runs."""

from __future__ import annotations

import json

import httpx


def status_body(code: int, reason: str, message: str) -> httpx.Response:
    """A Status object, as the API server answers what it refuses."""
    return httpx.Response(code, json={"kind": "Status", "reason": reason, "message": message})


class ApiServer:
    """Answers httpx requests; `objects` by path, `fault` instead of any answer."""

    def __init__(self) -> None:
        self.token = "secret"
        self.objects: dict[str, dict] = {}
        self.fault: httpx.Response | Exception | None = None
        self.unknown: str | Exception | None = None
        """A collection that this cluster does not have; or the fault of whatever is no Job."""

    def __call__(self, request: httpx.Request) -> httpx.Response:
        if isinstance(self.fault, Exception):
            raise self.fault
        if self.fault is not None:
            return self.fault
        if request.headers.get("authorization") != f"Bearer {self.token}":
            return status_body(401, "Unauthorized", "Unauthorized")
        return getattr(self, f"_{request.method.lower()}")(request)

    def _post(self, request: httpx.Request) -> httpx.Response:
        if isinstance(self.unknown, Exception) and not request.url.path.endswith("/jobs"):
            raise self.unknown
        if request.url.path == self.unknown:
            return httpx.Response(404, text="404 page not found")
        made = json.loads(request.content)
        name = made["metadata"]["name"]
        path = f"{request.url.path}/{name}"
        if path in self.objects:
            return status_body(409, "AlreadyExists", f'"{name}" already exists')
        made["metadata"]["uid"] = f"uid-{len(self.objects)}"
        self.objects[path] = made
        return httpx.Response(201, json=made)

    def _get(self, request: httpx.Request) -> httpx.Response:
        found = self.objects.get(request.url.path)
        return status_body(404, "NotFound", "not found") if found is None else httpx.Response(200, json=found)

    def _delete(self, request: httpx.Request) -> httpx.Response:
        if self.objects.pop(request.url.path, None) is None:
            return status_body(404, "NotFound", "not found")
        return httpx.Response(200, json={"kind": "Status", "status": "Success"})
