"""One planning service over HTTP: what is sent, what comes back, and what can go wrong in between. No torch,
no server code.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import suppress
from types import TracebackType
from typing import Any, Self, TypeVar

import httpx
from pydantic import BaseModel, ValidationError

from planner_service.contract import PROBLEM_MEDIA_TYPE
from planner_service.contract.problem import PROBLEM_TYPES
from planner_service.loopback import names_this_machine

DEFAULT_TIMEOUT_SECONDS = 120.0
"""Longer than the service's own planning limit, so that its refusal arrives."""
CONNECT_TIMEOUT_SECONDS = 5.0

Reply = TypeVar("Reply", bound=BaseModel)


class PlannerError(Exception):
    """Base of what can go wrong between a client and the planner."""


class PlannerUnreachable(PlannerError):
    """Nothing that speaks the planner's language answers at this URL; `reason` says what happened."""

    def __init__(self, url: str, reason: str) -> None:
        self.url = url
        self.reason = reason
        super().__init__(
            f"no planner answers at {url}: {reason}; start one with `tightfit serve` or correct the URL"
        )


class PlannerRefused(PlannerError):
    """The planner refused; `problem` is its document (RFC 9457) with the numbers as fields."""

    def __init__(self, status: int, problem: Mapping[str, Any]) -> None:
        self.status = status
        self.problem = dict(problem)
        super().__init__(str(problem.get("detail") or problem.get("title") or f"status {status}"))

    @property
    def slug(self) -> str:
        """The last part of the problem's type: `budget-too-small`."""
        return str(self.problem.get("type", "")).rpartition("/")[2]


class Connection:
    """Sends to one planning service and reads its answers. Raises PlannerUnreachable and PlannerRefused."""

    def __init__(
        self,
        url: str,
        *,
        timeout_seconds: float = DEFAULT_TIMEOUT_SECONDS,
        transport: httpx.BaseTransport | None = None,
        api_key: str | None = None,
    ) -> None:
        """`api_key` goes with every call, to services that ask for one: none where it is empty, and without
        blanks or a line end around it. Raises PlannerUnreachable for a key that is none, and for a proxy
        in the environment that cannot be used; a service on this machine is asked past it.
        """
        self.url = url.rstrip("/")
        timeout = httpx.Timeout(timeout_seconds, connect=min(CONNECT_TIMEOUT_SECONDS, timeout_seconds))
        key = (api_key or "").strip()
        if not (key.isascii() and key.isprintable()):  # said here: httpx would quote it
            raise PlannerUnreachable(self.url, "the key has characters that no key has")
        headers = {"authorization": f"Bearer {key}"} if key else {}
        if transport is None and names_this_machine(url):
            transport = httpx.HTTPTransport()
        try:
            self._http = httpx.Client(timeout=timeout, transport=transport, headers=headers)
        except (ImportError, ValueError) as error:  # SOCKS needs another package; a scheme that is none
            raise PlannerUnreachable(self.url, f"the environment's proxy: {error}") from error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def _get(self, path: str, kind: type[Reply], query: Mapping[str, Any] | None = None) -> Reply:
        return self._parsed(self._request("GET", path, params=query), kind)

    def _post(
        self,
        path: str,
        message: BaseModel | Mapping[str, Any],
        kind: type[Reply],
        *,
        headers: Mapping[str, str] | None = None,
    ) -> Reply:
        content = message.model_dump_json() if isinstance(message, BaseModel) else json.dumps(dict(message))
        sent = {"content-type": "application/json", **(headers or {})}
        return self._parsed(self._request("POST", path, content=content, headers=sent), kind)

    def _request(self, method: str, path: str, **content: Any) -> httpx.Request:
        try:
            return self._http.build_request(method, self.url + path, **content)
        except httpx.InvalidURL as error:
            raise PlannerUnreachable(self.url, str(error)) from error

    def _parsed(self, request: httpx.Request, kind: type[Reply]) -> Reply:
        return self._read(self._send(request).content, kind)

    def _read(self, content: str | bytes, kind: type[Reply], name: str | None = None) -> Reply:
        """Raises PlannerUnreachable for what no planner says. What a newer one adds is ignored; what a report
        may add is kept.
        """
        with suppress(ValidationError):
            return kind.model_validate_json(content)
        try:
            return kind.model_validate_json(content, extra="ignore")
        except ValidationError as error:
            reason = f"its answer is no {name or kind.__name__} ({error.error_count()} fields differ)"
            raise PlannerUnreachable(self.url, reason) from error

    def _object(self, response: httpx.Response) -> dict[str, Any]:
        try:
            return dict(response.json())
        except (TypeError, ValueError) as error:
            raise PlannerUnreachable(self.url, "its answer is not a JSON object") from error

    def _lines(self, response: httpx.Response) -> Iterator[bytes]:
        """The lines of a stream, without their ends, which are newlines alone.

        `iter_lines` of httpx would also cut at the line separators of Unicode, which texts may hold.
        """
        rest = b""
        try:
            for part in response.iter_bytes():
                *lines, rest = (rest + part).split(b"\n")
                yield from lines
        except httpx.HTTPError as error:
            raise PlannerUnreachable(self.url, _reason(error)) from error
        finally:
            response.close()
        if rest:
            yield rest

    def _send(self, request: httpx.Request, *, stream: bool = False) -> httpx.Response:
        try:
            response = self._http.send(request, stream=stream)
            if not response.is_success:
                response.read()
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise PlannerUnreachable(self.url, _reason(error)) from error
        if response.is_success:
            return response
        raise self._refusal(response)

    def _refusal(self, response: httpx.Response) -> PlannerError:
        media_type = response.headers.get("content-type", "")
        problem = self._object(response) if media_type.startswith(PROBLEM_MEDIA_TYPE) else {}
        # Gateways have problem documents, too: a 404 of theirs would end the attempts of this service.
        if not str(problem.get("type")).startswith(PROBLEM_TYPES):
            return PlannerUnreachable(
                self.url,
                f"it answers {response.status_code} in {media_type or 'no type'}, as no planner does",
            )
        return PlannerRefused(response.status_code, problem)


def _reason(error: Exception) -> str:
    if isinstance(error, httpx.TimeoutException):
        return f"no answer in time ({type(error).__name__})"
    return str(error) or type(error).__name__
