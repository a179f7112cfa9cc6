"""What every engine does with a job: take it once, say how it is, stop it.

An engine runs processes; it decides nothing about results. It may lose a job, start it twice or start it
again: the service admits one attempt at a time (fencing), so whatever the engine does, a result is stored
once. Nobody here retries what the engine retries itself.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import ClassVar, Literal, Protocol

from planner_service.chain import PlanningError

LAUNCH_TOKEN = "TIGHTFIT_LAUNCH_TOKEN"  # noqa: S105 - the variable's name, not a token
"""The environment variable that lets a worker open its attempt."""

LAUNCH_PREFIX = "tightfit-"
"""What the names of all launches begin with."""

EngineState = Literal["waiting", "running", "succeeded", "failed", "cancelled", "missing"]
"""waiting: accepted, not started; missing: the engine knows nothing (any more) of the reference."""


class EngineError(PlanningError):
    """An engine does not do what it was asked for."""

    says: ClassVar[str]

    def __init__(self, engine: str, reason: str) -> None:
        self.engine = engine
        self.reason = reason
        super().__init__(f"engine={engine!r} {self.says}: {reason}")

    def __reduce__(self) -> tuple[object, ...]:
        return (type(self), (self.engine, self.reason))


class EngineRefused(EngineError):
    """The engine will never run this launch as it stands; asking again is of no use."""

    says = "refuses the job"


class EngineUnreachable(EngineError):
    """The engine does not answer now; the same call may succeed later."""

    says = "does not answer"


class EngineBusy(EngineError):
    """The engine answers, and does not take this launch now: a limit, a closed partition, no node yet."""

    says = "does not take the job now"


@contextmanager
def understanding(engine: str) -> Iterator[None]:
    """Raises EngineUnreachable for an answer that is none of the engine's, such as a proxy's page."""
    try:
        yield
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        said = f"{type(error).__name__}: {error}"[:500]
        raise EngineUnreachable(engine, f"the answer is none of its own ({said})") from error


@dataclass(frozen=True, kw_only=True)
class Resources:
    """What one process of a job needs; each engine says it in its own words."""

    device: Literal["cpu", "cuda"] = "cuda"
    request_bytes: int | None = None
    """Device memory to set aside per process, context included; None: not known, a whole device."""
    limit_bytes: int | None = None
    """The least nominal memory of a device that holds it, the driver's reserve included; None: not known."""
    processes: int = 1
    """Ranks of a data-parallel job, each on a device of its own."""
    device_types: tuple[str, ...] = ()
    """Types of devices that hold it, in the engine's own word for them, the best first."""
    any_type: bool = True
    """Without types: nothing is known of the cluster's, and any will have to do. False: there are types that
    hold it, but the engine has a name for none."""

    memory_bytes: int | None = None
    """What training in one process may take where others take from the same memory; None: its device is its
    own, and all of it may be taken.
    """

    def types_for(self, engine: str) -> tuple[str, ...]:
        """The types to ask for; none: any will do. Raises EngineRefused where what holds it has no name."""
        if self.device_types or self.any_type or self.device == "cpu":
            return self.device_types
        raise EngineRefused(
            engine,
            "the types of devices that hold it have no name there: give them one in the file of holes, "
            f"names: {{{engine}: …}}",
        )


@dataclass(frozen=True, kw_only=True)
class Launch:
    """One handing-over of a job to an engine."""

    job_id: str
    number: int
    """Of this handing-over of the job, from 1. The same number again is the same launch."""
    command: tuple[str, ...]
    """What the engine starts, the same everywhere (see `attempt_command`)."""
    launch_token: str = field(repr=False)
    """Goes into the environment, never into the command line."""
    work_dir: str
    """Where the weights file is kept: the next attempt resumes from it."""
    resources: Resources = Resources()
    priority: int = 0
    """-100..100, higher first."""
    ran_before: bool = False
    """An attempt at the job was opened: there was a node that could run it."""

    @property
    def name(self) -> str:
        """What the engine calls it."""
        return launch_name(self.job_id, self.number)

    @property
    def environment(self) -> dict[str, str]:
        """What the command needs in its environment."""
        return {LAUNCH_TOKEN: self.launch_token}


def launch_name(job_id: str, number: int) -> str:
    """What engines call a handing-over of a job: letters, digits and dashes, at most 63 of them."""
    return f"{LAUNCH_PREFIX}{job_id}-{number}".lower()[:63]


@dataclass(frozen=True)
class EngineStatus:
    """How a launch is, as its engine tells it. Results come from the attempt, never from here."""

    state: EngineState
    detail: str = ""
    """The engine's own words: an exit status, a reason, a node."""


class Engine(Protocol):
    """A place where launches run. Calls block: make them off the event loop. Safe to share by threads.

    Every method raises EngineUnreachable when nothing answers.
    """

    @property
    def name(self) -> str:
        """The name in settings and in the job's `engine` field."""

    @property
    def most_unfinished(self) -> int | None:
        """Launches that it takes at a time: one on this machine, None for a cluster with a queue of its
        own, 0 for an engine that is never given any.
        """

    def submit(self, launch: Launch) -> str:
        """Hand over a launch; its reference. Submitting it again gives the same reference, and no second
        copy, as far as the engine can tell. Raises EngineRefused and EngineBusy.
        """

    def statuses(self, references: Sequence[str]) -> dict[str, EngineStatus]:
        """How the launches of these references are, all of them."""

    def cancel(self, reference: str) -> None:
        """Stop it, running or not; nothing happens when it is over or unknown."""

    def withdraw(self, name: str) -> None:
        """Stop the launch of that name, whose reference nobody knows; nothing happens when there is none."""


def attempt_command(
    *,
    planner_url: str,
    job_id: str,
    work_dir: str,
    save_seconds: float = 60.0,
    memory_bytes: int | None = None,
) -> tuple[str, ...]:
    """The command that runs an attempt of a job, under every engine; it saves its weights that often, and
    takes no more than `memory_bytes` for a budget that says `free`.
    """
    where = ("--planner", planner_url, "--job", job_id, "--work-dir", work_dir)
    most = () if memory_bytes is None else ("--memory", str(memory_bytes))
    return ("tightfit-worker", "attempt", *where, "--save-seconds", f"{save_seconds:g}", *most)
