"""The engine `slurm`: batch jobs by `sbatch`, which Slurm requeues itself when a node is lost.

Commands, not the REST daemon: every head node has them, and they need no further authentication.
"""

from __future__ import annotations

import math
import os
import shlex
import subprocess
import threading
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from planner_service.dispatch.engine import (
    LAUNCH_PREFIX,
    EngineBusy,
    EngineRefused,
    EngineState,
    EngineStatus,
    EngineUnreachable,
    Launch,
    Resources,
    understanding,
)
from planner_service.placement.slurm import UNTYPED, gres_of
from planner_service.placement.slurm_nodes import gpus_in

COMMAND_SECONDS = 30.0
"""Longest wait for one Slurm command; a controller that restarts answers within it."""
MIB = 2**20
LOWEST_NICE = 100
COMMENT = "tightfit launch="
"""Before a launch's name in its comment. Not `tightfit:`, after which our filters expect a job file."""
PASSED_ON = ("PATH", "HOME", "USER", "LOGNAME", "LANG", "LC_ALL", "SLURM_CONF")
"""What a job gets of the service's environment: enough to run, none of its secrets."""

SQUEUE = ("squeue", "--noheader", "--states=all")
UNKNOWN_JOB = "Invalid job id"
OVER_ALREADY = "already completing or completed"
OUTAGES = (
    "Unable to contact",
    "Connection refused",
    "timed out",
    "Protocol authentication error",
    "Zero Bytes were transmitted",
)
"""In sbatch's complaints: the controller is away, or not to be spoken to now."""
FOR_GOOD = (
    "Invalid account",
    "Invalid partition",
    "invalid partition",
    "Invalid qos",
    "Invalid wckey",
    "Invalid generic resource",
    "Invalid feature",
    "Invalid Trackable RESource",
    "Invalid node name",
    "Invalid reservation",
    "Requested node configuration is not available",
    "Memory specification can not be satisfied",
    "CPU count specification invalid",
    "Node count specification invalid",
    "More processors requested than permitted",
    "Requested time limit is invalid",
    "Access/permission denied",
    "unrecognized option",
    "unrecognized arguments",
    "Unable to open file",
    "cli_filter plugin terminated",
    "Unspecified error",  # a job_submit plugin that refuses it
)
"""In sbatch's complaints: the job as it stands will never be taken. Everything else may pass: limits of what
is queued or in use, partitions that are closed, resources of the controller."""

_STATES: dict[str, EngineState] = {
    "PENDING": "waiting",
    "REQUEUED": "waiting",
    "REQUEUE_HOLD": "waiting",
    "REQUEUE_FED": "waiting",
    "SPECIAL_EXIT": "waiting",
    "RESV_DEL_HOLD": "waiting",
    "CONFIGURING": "running",
    "RUNNING": "running",
    "RESIZING": "running",
    "SIGNALING": "running",
    "STAGE_OUT": "running",
    "STOPPED": "running",
    "SUSPENDED": "running",
    "COMPLETING": "running",
    "COMPLETED": "succeeded",
    "CANCELLED": "cancelled",
}
"""Slurm's job states (`squeue(1)`, JOB STATE CODES); those not named here are failures."""


class SlurmEngine:
    """Submits, asks and cancels through the commands on this machine's path. References are job ids, which a
    controller that was set up anew gives out again: a job of another name is none of ours.
    """

    name = "slurm"
    most_unfinished = None

    def __init__(self, *, options: Sequence[str] = (), setup: str = "") -> None:
        """`options` go to every sbatch (partition, account, time); `setup` is a line of shell before the
        worker, such as the activation of an environment.
        """
        self._options = tuple(options)
        self._setup = setup
        self._lock = threading.Lock()

    def submit(self, launch: Launch) -> str:
        """Submit the launch, unless the controller knows its name. Raises EngineRefused and EngineBusy."""
        with self._lock:
            return self._find(launch.name) or self._submit(launch)

    def statuses(self, references: Sequence[str]) -> dict[str, EngineStatus]:
        """What the controller says, in one question; or the accounting, of what the controller forgot."""
        if not references:
            return {}
        known = _run([*SQUEUE, f"--jobs={','.join(references)}", "--format=%A|%j|%T|%r|%N"])
        if known.returncode and UNKNOWN_JOB not in known.stderr:  # so it says of a single one
            raise EngineUnreachable(self.name, _reason(known))
        with understanding(self.name):
            found = _by_job(known.stdout if known.returncode == 0 else "")
        forgotten = [reference for reference in references if reference not in found]
        return found | (_accounted(forgotten) if forgotten else {})

    def cancel(self, reference: str) -> None:
        """SIGTERM to the worker, SIGKILL after Slurm's KillWait; a pending job leaves the queue."""
        known = _run([*SQUEUE, f"--jobs={reference}", "--format=%j"])
        if known.returncode and UNKNOWN_JOB not in known.stderr:
            raise EngineUnreachable(self.name, _reason(known))
        if known.stdout.startswith(LAUNCH_PREFIX):
            self._cancel(reference)

    def _cancel(self, reference: str) -> None:
        # The shell of a batch job is replaced by the worker (`exec`): `--full` reaches it and its children.
        done = _run(["scancel", "--full", reference])
        if done.returncode and not any(words in done.stderr for words in (UNKNOWN_JOB, OVER_ALREADY)):
            raise EngineUnreachable(self.name, _reason(done))

    def withdraw(self, name: str) -> None:
        """By the name of the job."""
        reference = self._find(name)
        if reference is not None:
            self._cancel(reference)

    def _find(self, job_name: str) -> str | None:
        known = _run([*SQUEUE, f"--name={job_name}", "--format=%i"])
        if known.returncode:
            raise EngineUnreachable(self.name, _reason(known))
        return known.stdout.split()[0] if known.stdout.split() else None

    def _within_reach(self, resources: Resources) -> Resources:
        """The same with the device types that can be asked for at once on this cluster: those that nodes have
        a feature of, else the best that nodes have.
        """
        types = resources.types_for(self.name)
        if len(types) < 2:
            return resources
        known = _run(["sinfo", "--noheader", "--format=%f|%G"])
        if known.returncode:
            raise EngineUnreachable(self.name, _reason(known))
        nodes = [line.partition("|")[::2] for line in known.stdout.splitlines()]
        features = {feature for told, _ in nodes for feature in told.split(",")}
        devices = {kind for _, told in nodes for kind, _ in gpus_in(told)}
        here = [kind for kind in types if kind in features] or [kind for kind in types if kind in devices][:1]
        if not here:
            raise EngineRefused(
                self.name, f"no node has a device (GRES or feature) of type {', '.join(types)}"
            )
        return replace(resources, device_types=tuple(here))

    def _submit(self, launch: Launch) -> str:
        try:
            Path(launch.work_dir).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise EngineRefused(self.name, f"work folder: {error}") from error
        resources = self._within_reach(launch.resources)
        arguments = ["sbatch", *sbatch_arguments(launch), *resource_arguments(resources), *self._options]
        done = _run(arguments, script=batch_script(launch, setup=self._setup), environment=launch.environment)
        if done.returncode == 0:
            return done.stdout.strip().partition(";")[0]
        raise _refusal(done)


def sbatch_arguments(launch: Launch) -> list[str]:
    """What sbatch is told of a launch, its resources aside; the token travels in the environment."""
    return [
        "--parsable",
        f"--job-name={launch.name}",
        f"--comment={COMMENT}{launch.name}",
        "--requeue",  # after the loss of a node; a worker that fails is the service's to retry
        "--export=ALL",
        f"--chdir={launch.work_dir}",
        "--output=slurm-%j.log",
        "--open-mode=append",  # the log of the attempt before explains why there is another
        f"--nice={max(0, -launch.priority) * LOWEST_NICE // 100}",
    ]


def resource_arguments(resources: Resources) -> list[str]:
    """Slurm's words for the memory and the devices of a job, all its ranks on one node.

    Devices are asked for whole, by type: Slurm's count-style memory resources are sums over a node, so a
    node of two smaller devices would be given a job that neither of them holds.
    """
    if resources.device == "cpu":
        if resources.request_bytes is None:
            return ["--nodes=1"]
        return ["--nodes=1", f"--mem={math.ceil(resources.request_bytes * resources.processes / MIB)}M"]
    count = resources.processes
    if len(resources.device_types) == 1:
        return ["--nodes=1", f"--gres={gres_of(resources.device_types[0], count)}"]
    constraint = [f"--constraint={'|'.join(resources.device_types)}"] if resources.device_types else []
    return ["--nodes=1", f"--gres={gres_of(UNTYPED, count)}", *constraint]


def batch_script(launch: Launch, *, setup: str = "") -> str:
    """The batch script: it becomes the worker, so that Slurm's signals reach the worker itself."""
    lines = ["#!/bin/sh", setup, f"exec {shlex.join(launch.command)}", ""]
    return "\n".join(line for line in lines if line or line == lines[-1])


def _run(
    arguments: Sequence[str], *, script: str = "", environment: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    inherited = {name: os.environ[name] for name in PASSED_ON if name in os.environ}
    try:
        return subprocess.run(  # noqa: S603 - Slurm's own commands, no shell
            list(arguments),
            input=script,
            env=inherited | (environment or {}),
            capture_output=True,
            text=True,
            timeout=COMMAND_SECONDS,
            check=False,
        )
    except FileNotFoundError as error:
        raise EngineUnreachable("slurm", f"no command {arguments[0]} on this machine") from error
    except subprocess.TimeoutExpired as error:
        raise EngineUnreachable("slurm", f"{arguments[0]} took over {COMMAND_SECONDS:.0f} s") from error


def _status(line: str) -> EngineStatus:
    """Of a line "name|state|reason|nodes". Raises LookupError or ValueError for another one."""
    name, state, *further = line.split("|")
    reason, nodes = [*further, "", ""][:2]
    if not name.startswith(LAUNCH_PREFIX):
        return EngineStatus("missing", f"that number is another job's, {name}")
    detail = ", ".join(text for text in (state, reason if reason != "None" else "", nodes) if text)
    return EngineStatus(_STATES.get(state.split()[0], "failed"), detail)


def _by_job(listing: str) -> dict[str, EngineStatus]:
    """Statuses by job, of lines that begin with its number. Raises LookupError or ValueError for others."""
    lines = [line.partition("|") for line in listing.splitlines() if line]
    return {reference.strip(): _status(rest) for reference, _, rest in lines}


def _accounted(references: Sequence[str]) -> dict[str, EngineStatus]:
    """What sacct remembers; clusters without accounting remember nothing."""
    unknown = {reference: EngineStatus("missing", f"job {reference} is unknown") for reference in references}
    jobs = f"--jobs={','.join(references)}"
    try:
        found = _run(["sacct", "-X", "-n", "-P", jobs, "--format=JobIDRaw,JobName,State,ExitCode,NodeList"])
    except EngineUnreachable:
        return unknown
    if found.returncode:
        return unknown
    with understanding("slurm"):
        return unknown | _by_job(found.stdout)


def _refusal(done: subprocess.CompletedProcess[str]) -> EngineRefused | EngineBusy | EngineUnreachable:
    """What a failed sbatch means: only what is known to stay as it is ends the job."""
    reason = _reason(done)
    if any(words in done.stderr for words in OUTAGES):
        return EngineUnreachable("slurm", reason)
    if any(words in done.stderr for words in FOR_GOOD):
        return EngineRefused("slurm", reason)
    return EngineBusy("slurm", reason)


def _reason(done: subprocess.CompletedProcess[str]) -> str:
    """The last line of what a command complained of."""
    return (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1]
