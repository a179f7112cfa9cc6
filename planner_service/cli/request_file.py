"""Reading a request from a file or standard input: strict JSON, or YAML of the same, of a bounded size."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from datetime import date
from pathlib import Path
from typing import Any, NoReturn

from planner_service.chain import PlanningError

STANDARD_INPUT = "-"
MAXIMUM_REQUEST_BYTES = 512 * 2**20
"""More than the longest chain that is accepted: a million stages, each with all its fields."""


class UnreadableRequest(PlanningError):
    """The request is not there, too large, or neither JSON nor YAML; `source` says where it was sought."""

    def __init__(self, source: str, reason: str) -> None:
        self.source = source
        super().__init__(f"{source}: {reason}")


def read_request(source: str) -> dict[str, Any]:
    """The object in the file `source`, or on standard input for "-"; see `read_document`.

    Raises UnreadableRequest.
    """
    request = read_document(source)
    if not isinstance(request, dict):
        raise UnreadableRequest(_name(source), 'a request is an object: {"model": …, "memory": …}')
    if "budget" in request:
        use = "`tightfit place` says where it fits, `tightfit-worker run` trains it"
        raise UnreadableRequest(_name(source), f"a job file is no request for a plan: {use}")
    return request


def read_document(source: str) -> object:
    """What is written in the file `source`, as JSON has it: YAML where it is called so, else JSON.

    Raises UnreadableRequest.
    """
    if Path(source).suffix not in {".yaml", ".yml"}:
        return _parsed(source)
    import yaml

    try:
        written = yaml.safe_load(read_text(source))
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # the 30th of February, too many digits
        raise UnreadableRequest(source, f"not YAML: {' '.join(str(error).split())}") from None
    try:
        return json.loads(json.dumps(written, default=_text_of_date, allow_nan=False))
    except (TypeError, ValueError) as error:
        raise UnreadableRequest(source, f"YAML of what JSON has not: {error}") from None


def _text_of_date(value: object) -> str:
    """A date, which a name may look like, is the text that it was written as."""
    if isinstance(value, date):
        return str(value)
    raise TypeError(f"a value of type {type(value).__name__}")


def require_for_worker(source: str, job: Mapping[str, Any]) -> None:
    """Raise UnreadableRequest for a job file that `tightfit-worker run` would refuse where it is to run."""
    strategy = job.get("strategy", "auto")
    if strategy != "auto":
        reason = f"strategy={strategy!r} takes a service: use `tightfit jobs submit`, or leave it out"
        raise UnreadableRequest(source, reason)


def without(request: dict[str, Any], *paths: str) -> dict[str, Any]:
    """A copy of `request` that lacks the fields at `paths`, such as "memory.device_budget_bytes"."""
    copy = dict(request)
    for path in paths:
        outer, _, inner = path.rpartition(".")
        if not outer:
            copy.pop(inner, None)
        elif isinstance(copy.get(outer), dict):
            copy[outer] = {name: value for name, value in copy[outer].items() if name != inner}
    return copy


def read_text(source: str) -> str:
    """The text in the file `source`, or on standard input for "-". Raises UnreadableRequest."""
    name = _name(source)
    try:
        if source == STANDARD_INPUT:
            content = sys.stdin.buffer.read(MAXIMUM_REQUEST_BYTES + 1)
        else:
            with Path(source).open("rb") as file:
                content = file.read(MAXIMUM_REQUEST_BYTES + 1)
    except OSError as error:
        raise UnreadableRequest(name, f"cannot be read: {error.strerror}") from None
    if len(content) > MAXIMUM_REQUEST_BYTES:
        raise UnreadableRequest(name, f"larger than the limit of {MAXIMUM_REQUEST_BYTES} bytes")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise UnreadableRequest(name, "not UTF-8 text") from None


def _parsed(source: str) -> object:
    try:
        parsed: object = json.loads(read_text(source), parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise UnreadableRequest(_name(source), f"not JSON: {error}") from None
    return parsed


def _name(source: str) -> str:
    return "standard input" if source == STANDARD_INPUT else source


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON number")
