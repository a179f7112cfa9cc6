"""A real Ray head and further nodes on this host, in an environment of Ray's own (`make test-cluster`)."""

from __future__ import annotations

import os
import signal
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from tests.cluster.slurm_cluster import descendants
from tests.serving import eventually

ADDRESS = "10.99.0.1"
"""Of `isolated.sh`: Ray rewrites loopback addresses to one of the host's."""
PORT, DASHBOARD_PORT = 6_399, 8_299
"""Outside 10002..19999, which Ray gives to its workers."""
START_SECONDS = 120
STARTED = "Ray runtime started"
OBJECT_STORE_BYTES = 80_000_000
TOKEN = "0123456789abcdef" * 4


def ray_command() -> Path | None:
    """The `ray` that `make test-cluster` installed, or None."""
    path = Path(os.environ.get("RAY_COMMAND", ""))
    return path if path.name and path.exists() else None


@dataclass
class RayCluster:
    """A head without work to give, and nodes that can be cut off."""

    folder: Path
    nodes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    @property
    def url(self) -> str:
        """The dashboard."""
        return f"http://{ADDRESS}:{DASHBOARD_PORT}"

    def start(self, **node_memory_bytes: int) -> None:
        """Start the head, then one node after the other; each has one processor and so much memory."""
        self._start(
            "head",
            "--head",
            f"--port={PORT}",
            f"--dashboard-host={ADDRESS}",
            f"--dashboard-port={DASHBOARD_PORT}",
            "--num-cpus=0",
            f"--temp-dir={self.folder}",
        )
        assert eventually(lambda: self.living_nodes() == 1, START_SECONDS), self._log("head")
        for name, memory_bytes in node_memory_bytes.items():
            self.start_node(name, memory_bytes)

    def start_node(self, name: str, memory_bytes: int) -> None:
        """Start one more node and wait for it: Ray gives up on nodes that start at the same time."""
        self._start(name, f"--address={ADDRESS}:{PORT}", "--num-cpus=1", f"--memory={memory_bytes}")
        assert eventually(lambda: STARTED in self._log(name), START_SECONDS), self._log(name)

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
        environ = {
            **os.environ,
            "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": TOKEN,
            "RAY_DISABLE_IMPORT_WARNING": "1",
        }
        log = (self.folder.parent / f"{name}.log").open("ab")
        self.nodes[name] = subprocess.Popen(
            [
                command,
                "start",
                "--block",
                f"--node-ip-address={ADDRESS}",
                f"--object-store-memory={OBJECT_STORE_BYTES}",
                *options,
            ],
            env=environ,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        log.close()
