"""A real Ray head and further nodes on this host, in an environment of Ray's own (`make test-cluster`)."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path

import httpx

from planner_service.dispatch.ray import DEVICE_MEMORY
from tests.cluster.slurm_cluster import descendants
from tests.serving import eventually

ADDRESS = "10.99.0.1"
"""Of `isolated.sh`: Ray rewrites loopback addresses to one of the host's."""
PORT, DASHBOARD_PORT = 6_399, 8_299
"""Outside 10002..19999, which Ray gives to its workers."""
AGENT_PORT = 52_400
"""Of the first node's agent, the next one after it: a further node would try the same port for seconds."""
START_SECONDS = 120
STARTED = "Ray runtime started"
OBJECT_STORE_BYTES = 80_000_000
TOKEN = "0123456789abcdef" * 4
ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_AUTH_MODE": "token",
    "RAY_AUTH_TOKEN": TOKEN,
    "RAY_DISABLE_IMPORT_WARNING": "1",
    # A node that has been silent for five seconds is dead; by default Ray waits for fifteen.
    "RAY_health_check_period_ms": "1000",
}


def ray_command() -> Path | None:
    """The `ray` that `make test-cluster` installed, or None."""
    path = Path(os.environ.get("RAY_COMMAND", ""))
    return path if path.name and path.exists() else None


@dataclass(frozen=True)
class RayNode:
    """A node as Ray is told of it."""

    name: str
    memory_bytes: int
    cpus: int = 1
    device_memory_mib: int | None = None
    """Of a device that it says it has; None: it has none."""

    @property
    def options(self) -> list[str]:
        """What `ray start` is told."""
        told = [f"--num-cpus={self.cpus}", f"--memory={self.memory_bytes}"]
        if self.device_memory_mib is not None:
            told.append(f"--resources={json.dumps({DEVICE_MEMORY: self.device_memory_mib})}")
            told.append("--num-gpus=1")
        return told


@dataclass
class RayCluster:
    """A head without work to give, and nodes that can be cut off."""

    folder: Path
    nodes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)
    _agent_ports: Iterator[int] = field(default_factory=lambda: count(AGENT_PORT))

    @property
    def url(self) -> str:
        """The dashboard."""
        return f"http://{ADDRESS}:{DASHBOARD_PORT}"

    def start(self, *nodes: RayNode) -> None:
        """Start the head, then one node after the other."""
        self._start(
            "head",
            "--head",
            f"--port={PORT}",
            f"--dashboard-host={ADDRESS}",
            f"--dashboard-port={DASHBOARD_PORT}",
            "--num-cpus=0",
            "--no-monitor",  # no autoscaler
            f"--temp-dir={self.folder}",
        )
        self._wait_for(1)
        for node in nodes:
            self.start_node(node)
        self._wait_for(1 + len(nodes))

    def start_node(self, node: RayNode) -> None:
        """Start one more node and wait for it: Ray gives up on nodes that start at the same time."""
        self._start(node.name, f"--address={ADDRESS}:{PORT}", *node.options)
        has_started = eventually(lambda: STARTED in self._log(node.name), START_SECONDS, every_seconds=0.2)
        assert has_started, self._log(node.name)

    def _wait_for(self, nodes: int) -> None:
        # Starting is work for the processors: asking every moment would slow it down.
        is_there = eventually(lambda: self.living_nodes() == nodes, START_SECONDS, every_seconds=0.5)
        assert is_there, self._log("head")

    def living_nodes(self) -> int:
        """How many nodes the head counts, itself included."""
        headers = {"authorization": f"Bearer {TOKEN}"}
        try:
            answer = httpx.get(f"{self.url}/nodes", params={"view": "summary"}, headers=headers)
        except httpx.HTTPError:
            return 0
        if not answer.is_success:
            return 0
        return sum(node["raylet"].get("state") == "ALIVE" for node in answer.json()["data"]["summary"])

    def _log(self, name: str) -> str:
        return (self.folder.parent / f"{name}.log").read_text(errors="replace")[-3_000:]

    def cut(self, name: str) -> None:
        """Cut a node's power: its daemon and everything that it started, at once."""
        process = self.nodes.pop(name)
        for process_id in (process.pid, *descendants(process.pid)):
            try:
                os.kill(process_id, signal.SIGKILL)
            except ProcessLookupError:
                continue
        process.wait()

    def stop(self) -> None:
        """End everything, the head last."""
        for name in reversed(tuple(self.nodes)):
            self.cut(name)

    def _start(self, name: str, *options: str) -> None:
        command = ray_command()
        assert command is not None
        log = (self.folder.parent / f"{name}.log").open("ab")
        self.nodes[name] = subprocess.Popen(
            [
                command,
                "start",
                "--block",
                f"--node-ip-address={ADDRESS}",
                f"--object-store-memory={OBJECT_STORE_BYTES}",
                f"--dashboard-agent-listen-port={next(self._agent_ports)}",
                "--include-log-monitor=false",
                *options,
            ],
            env={**os.environ, **ENVIRONMENT},
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        log.close()
