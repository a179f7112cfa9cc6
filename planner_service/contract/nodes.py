"""Nodes and claims on the wire: who offers memory, and who is given which job (v1)."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Annotated, Literal

from pydantic import AfterValidator, ConfigDict, Field, JsonValue
from pydantic_core import PydanticCustomError

from planner_service.contract.attempts import LEASE_SECONDS
from planner_service.contract.base import Answer, Message
from planner_service.contract.further import FurtherValue
from planner_service.contract.jobs import Job
from planner_service.contract.quantities import SizeBytes
from planner_service.contract.texts import Name, StorableText

NodeState = Literal["ready", "unreachable", "lost"]
"""Heard of within 60 seconds; within 180; not since then."""

ClaimingEngine = Literal["agents", "local"]

MOST_EXCEPTED = 200
MOST_FACTS_BYTES = 2**16
"""All nodes that were heard of lately are read to tell whether a job could run anywhere."""
JobId = Annotated[StorableText, Field(max_length=64)]


def _not_too_much(facts: dict[str, JsonValue]) -> dict[str, JsonValue]:
    if len(json.dumps(facts)) > MOST_FACTS_BYTES:
        raise PydanticCustomError(
            "quantity", "facts must not take over {most} bytes as JSON", {"most": MOST_FACTS_BYTES}
        )
    return facts


class NodeRegistration(Message):
    """PUT /v1/nodes/{name}: what a node has. Sent at the agent's start and whenever it changes."""

    device: Name
    """`cpu`, or the GPU's name."""
    device_kind: Literal["cpu", "cuda"] = "cpu"
    memory_total_bytes: SizeBytes
    """Of the device: the GPU's memory, its MIG slice's, or what the worker may use of the machine's."""
    memory_free_bytes: SizeBytes
    """What of it is free now."""
    mig_slice: Name | None = None
    driver: Name | None = None
    torch: Name | None = None
    engines: Annotated[tuple[ClaimingEngine, ...], Field(min_length=1, max_length=2)] = ("agents",)
    """Whose jobs its agent claims."""
    facts: Annotated[dict[Name, FurtherValue], Field(max_length=50), AfterValidator(_not_too_much)] = Field(
        default={}
    )
    """Anything else worth knowing: kept and shown, never acted upon. At most 64 KiB as JSON."""


class Node(NodeRegistration):
    """A node as the service knows it. As of every answer, readers ignore fields that they do not know."""

    model_config = ConfigDict(extra="ignore")

    name: str
    state: NodeState
    """For people. What happens to a job is decided by its own lease."""
    registered_at: datetime
    seen_at: datetime


class NodePage(Answer):
    """Nodes by name."""

    nodes: list[Node]
    next_cursor: str | None = None
    """Pass it as `cursor` for the nodes after these."""


class ClaimRequest(Message):
    """POST /v1/claims: a registered node asks for a job."""

    node: Name
    memory_free_bytes: SizeBytes
    """Free on the device now. Only jobs that need no more are given."""
    engines: Annotated[tuple[ClaimingEngine, ...], Field(min_length=1, max_length=2)] = ("agents",)
    """`local` too for the worker beside the service."""
    except_jobs: Annotated[tuple[JobId, ...], Field(max_length=MOST_EXCEPTED)] = Field(
        default=(), exclude_if=lambda ids: not ids
    )
    """Jobs that the node gave back because its version cannot read them: they are left to others."""


class Assignment(Answer):
    """A job for the node that asked. It goes back to the queue unless an attempt is opened in time."""

    job: Job
    number: int
    """1, 2, …: how often this job has been given to somebody."""
    launch_token: str
    """Bearer token that opens attempts at this job; for the worker's environment. Said once."""
    lease_seconds: float = LEASE_SECONDS
    """Time to open the attempt."""
