"""Probes that the service asks a node for: each in a process of its own, which the agent reports for.

    python -m executor.agent.probing --request FILE --output FILE --memory BYTES --parent PID

The process measures and writes the profile; it knows neither the service nor the agent's key.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from executor.agent.running import environment_of_children
from executor.attempt.child import die_with_parent
from executor.attempt.data_roots import within_roots
from executor.attempt.memory_cap import OutOfMemory, memory_cap
from executor.attempt.saying import say
from executor.attempt.task import job_of
from executor.errors import ExecutorError
from executor.jobs.job import InvalidJob
from executor.jobs.prepared import PreparedJob
from executor.measure import default_device
from executor.memory.device import device_name
from executor.service.link import MAXIMUM_DETAIL_CHARACTERS

REFUSED = 2


@dataclass(frozen=True, kw_only=True)
class RunningProbe:
    """A probe's process, and where it writes."""

    probe_id: str
    memory_bytes: int
    """What the node counts as taken while it runs."""
    process: subprocess.Popen[bytes]
    profile: Path
    log: Path

    @property
    def exit_status(self) -> int | None:
        """None while it runs."""
        return self.process.poll()

    def kill(self) -> None:
        """SIGKILL; the probe is given to the node again when its agent asks."""
        with suppress(ProcessLookupError):
            self.process.kill()
        self.process.wait()

    def findings(self) -> dict[str, Any]:
        """Fields of the report, once it has ended: the profile, or why there is none."""
        if self.exit_status == 0:
            return {"profile": json.loads(self.profile.read_text(encoding="utf-8"))}
        lines = self.log.read_text(encoding="utf-8", errors="replace").splitlines()
        said = next((line for line in reversed(lines) if line.strip()), "it said nothing")
        detail = f"the probe ended with exit status {self.exit_status}: {said}"
        return {"detail": detail.replace("\0", "")[:MAXIMUM_DETAIL_CHARACTERS]}


def start_probe(
    *,
    probe_id: str,
    request: Mapping[str, Any],
    work_dir: Path,
    memory_bytes: int,
    data_roots: Sequence[Path] = (),
) -> RunningProbe:
    """Start measuring in a process that dies with this one."""
    folder = work_dir / "probes" / probe_id
    folder.mkdir(parents=True, exist_ok=True)
    asked, profile, log = folder / "request.json", folder / "profile.json", folder / "probe.log"
    asked.write_text(json.dumps(request), encoding="utf-8")
    arguments = ["--request", str(asked), "--output", str(profile), "--memory", str(memory_bytes)]
    arguments += ["--parent", str(os.getpid())]
    for root in data_roots:
        arguments += ["--data-root", str(root)]
    with log.open("wb") as writing:
        process = subprocess.Popen(  # noqa: S603 - our own command
            [sys.executable, "-m", "executor.agent.probing", *arguments],
            env=environment_of_children(os.environ),
            stdin=subprocess.DEVNULL,
            stdout=writing,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    return RunningProbe(
        probe_id=probe_id, memory_bytes=memory_bytes, process=process, profile=profile, log=log
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure what a request asks for; exit status 2, with the reason as the last line, when it cannot be."""
    parsed = _parser().parse_args(arguments)
    die_with_parent(parsed.parent, signal.SIGKILL)
    try:
        profile = probed(
            json.loads(parsed.request.read_text(encoding="utf-8")),
            memory_bytes=parsed.memory,
            data_roots=parsed.data_root,
        )
        parsed.output.write_text(json.dumps(profile), encoding="utf-8")
    except (InvalidJob, ExecutorError, OutOfMemory, OSError) as error:
        say(f"tightfit-worker: {error}")  # the agent reads it
        return REFUSED
    return 0


def probed(
    request: Mapping[str, Any], *, memory_bytes: int, data_roots: Sequence[Path] = ()
) -> dict[str, Any]:
    """The profile of a request's model on this machine's device.

    Segments are rehearsed as long as they fit into the budget, which is what is left of `memory_bytes` when
    the request says "free". Raises InvalidJob, ExecutorError and OutOfMemory.
    """
    job = within_roots(job_of(request, request["budget"]), data_roots)
    device = default_device()
    with memory_cap(memory_bytes, device):
        prepared = PreparedJob.of(job, say, device, device_bytes=memory_bytes)
    return {**prepared.profile(), "device_name": device_name(device)}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m executor.agent.probing", description=__doc__)
    parser.add_argument("--request", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--memory", type=int, required=True)
    parser.add_argument("--parent", type=int, required=True)
    parser.add_argument("--data-root", type=Path, action="append", default=[])
    return parser


if __name__ == "__main__":
    sys.exit(main())
