"""Where the peers are, and one measurement of one of them in its own interpreter."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any, NamedTuple

RUNNER = Path(__file__).with_name("peer_process.py")
LIMIT_SECONDS = 300
"""A measurement that takes longer is stopped."""

ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"), "1")


class Missing(Exception):
    """The peer cannot be measured here; the message says why."""


class Peer(NamedTuple):
    """One peer: which environment of peers.sh runs it, and its name in peer_process.py."""

    label: str
    environment: str
    call: str


PLAIN = Peer("checkpoint_schedules mixed", "plain", "mixed")
NUMBA = Peer("checkpoint_schedules mixed + numba", "numba", "mixed")
MULTISTAGE = Peer("checkpoint_schedules binomial, all actions", "plain", "multistage")
PYREVOLVE = Peer("pyrevolve's Revolve, all actions", "plain", "pyrevolve")
ROTOR = Peer("rotor's C solver", "plain", "rotor")


def measure(peer: Peer, directory: Path | None, rounds: int, arguments: tuple[str, ...]) -> dict[str, Any]:
    """The record that peer_process.py prints. Raises Missing."""
    if directory is None:
        raise Missing("no --peers directory")
    python = directory / peer.environment / "bin" / "python"
    if not python.exists():
        raise Missing(f"no environment {peer.environment!r} in the --peers directory")
    if peer is ROTOR:
        if not list((directory / "rotor" / "algorithms").glob("dynamic_programs*.so")):
            raise Missing("rotor's C extension is not built")
        arguments = (str(directory / "rotor"), *arguments)
    return run([str(python), "-W", "ignore", str(RUNNER), peer.call, str(rounds), *arguments])


def run(command: list[str], environment: dict[str, str] | None = None) -> dict[str, Any]:
    """Run a measuring process and read its JSON line. Raises Missing when it fails or takes too long."""
    try:
        done = subprocess.run(
            command,
            check=False,
            capture_output=True,
            text=True,
            timeout=LIMIT_SECONDS,
            env={**os.environ, **ONE_THREAD, **(environment or {})},
        )
    except subprocess.TimeoutExpired:
        raise Missing(f"stopped after {LIMIT_SECONDS} s") from None
    if done.returncode:
        raise Missing((done.stderr.strip().splitlines() or ["failed"])[-1])
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found
