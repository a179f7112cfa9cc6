"""A real Slurm cluster on this host: one controller, several slurmd, in the namespaces of the test run.

`tests/cluster/isolated.sh` gives the run a network and a process table of its own: every daemon dies with it.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

from tests.serving import eventually

UP_SECONDS = 60.0
"""Of a machine with other work to do; nobody waits for longer than it takes."""
CONTROLLER_PORT = 17_817
FIRST_NODE_PORT = 17_900
NODE_LOST_SECONDS = 5
"""A slurmd that is silent for so long is down."""
DAEMONS = ("slurmctld", "slurmd", "munged")


def missing_parts() -> list[str]:
    """What this machine lacks for a cluster; empty when one can be started."""
    lacks = [name for name in (*DAEMONS, "sbatch", "curl") if shutil.which(name) is None]
    return lacks if os.geteuid() == 0 else [*lacks, "root"]


@dataclass(frozen=True)
class Node:
    """A node as Slurm is told of it; devices are character devices that stand for GPUs."""

    name: str
    memory_mib: int
    gpu_type: str = ""
    gpus: int = 0
    cpus: int = 4


@dataclass
class SlurmCluster:
    """Daemons of one cluster, their files in `folder`."""

    folder: Path
    nodes: tuple[Node, ...]
    plugins: str = ""
    """Further lines of slurm.conf."""
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    @property
    def environment(self) -> dict[str, str]:
        """What a client needs to find this cluster."""
        return {**os.environ, "SLURM_CONF": str(self.folder / "slurm.conf")}

    def start(self) -> None:
        """Start every daemon and wait until every node is idle."""
        self._write()
        self.start_munge()
        self.start_controller()
        for node in self.nodes:
            self.start_node(node.name)
        self.wait_until_idle()

    def wait_until_idle(self) -> None:
        """Wait until every node takes jobs and has none."""
        names = {node.name for node in self.nodes}
        assert eventually(lambda: names == self.nodes_that_are("idle"), UP_SECONDS, every_seconds=0.1), (
            self.logs()
        )

    def stop(self) -> None:
        """End every daemon."""
        for name in tuple(self.processes):
            self.kill(name)

    def start_munge(self) -> None:
        """Start the authentication daemon."""
        key = self.folder / "munge.key"
        key.write_bytes(os.urandom(1024))
        key.chmod(0o400)
        socket_path = self.folder / "munge.socket"
        self._spawn(
            "munged",
            "munged",
            "--foreground",
            "--force",
            f"--key-file={key}",
            f"--socket={socket_path}",
            f"--pid-file={self.folder / 'munge.pid'}",
            f"--log-file={self.folder / 'munge.log'}",
            f"--seed-file={self.folder / 'munge.seed'}",
        )
        assert eventually(socket_path.exists, UP_SECONDS)

    def start_controller(self) -> None:
        """Start slurmctld, with the state that a former one left."""
        self._spawn("slurmctld", "slurmctld", "-D")
        assert eventually(lambda: self.run("scontrol", "ping").returncode == 0, UP_SECONDS), self.logs()

    def start_node(self, name: str) -> None:
        """Start the slurmd of one node."""
        self._spawn(name, "slurmd", "-D", "-N", name)

    def kill(self, name: str) -> None:
        """SIGKILL to one daemon: its jobs' processes go on."""
        process = self.processes.pop(name)
        process.kill()
        process.wait()

    def job_processes(self, name: str) -> list[int]:
        """Every process of the jobs on one node: they know its name."""
        mark = f"SLURMD_NODENAME={name}".encode()
        found = []
        for entry in Path("/proc").glob("[0-9]*"):
            try:
                words = (entry / "environ").read_bytes().split(b"\0")
            except OSError:
                continue
            if mark in words:
                found.append(int(entry.name))
        return found

    def run(self, *command: str, **options: object) -> subprocess.CompletedProcess[str]:
        """A client's command."""
        return subprocess.run(
            command, env=self.environment, capture_output=True, text=True, timeout=60, check=False, **options
        )

    def job(self, reference: str) -> dict[str, str]:
        """What the controller says of a job: its fields."""
        shown = self.run("scontrol", "show", "job", "--oneliner", reference).stdout
        return dict(part.partition("=")[::2] for part in shown.split() if "=" in part)

    def nodes_that_are(self, state: str) -> set[str]:
        """Names of the nodes in a state."""
        lines = self.run("sinfo", "--noheader", "--Node", "--format=%N %t").stdout.splitlines()
        return {name for name, is_now in (line.split() for line in lines) if is_now == state}

    def put_back(self) -> None:
        """Take drained nodes into service again, as an operator does: a controller that knows less than its
        nodes finds jobs on them that it thinks it has to start, and drains them.
        """
        for state in ("drain", "drng"):
            for name in self.nodes_that_are(state):
                self.run("scontrol", "update", f"NodeName={name}", "State=RESUME")

    def logs(self) -> str:
        """The ends of the daemons' logs, for a failure's message."""
        return "\n".join(
            f"== {path.name}\n" + "\n".join(path.read_text(errors="replace").splitlines()[-15:])
            for path in sorted(self.folder.glob("*.log"))
        )

    def _spawn(self, name: str, *command: str) -> None:
        with (self.folder / f"{name}.log").open("ab") as log:
            self.processes[name] = subprocess.Popen(
                command, env=self.environment, stdout=log, stderr=log, start_new_session=True
            )

    def _write(self) -> None:
        for spool in ("state", *(f"spool-{node.name}" for node in self.nodes)):
            (self.folder / spool).mkdir(parents=True)
        (self.folder / "slurm.conf").write_text(self._configuration())
        (self.folder / "gres.conf").write_text(self._devices())
        (self.folder / "cgroup.conf").write_text("")

    def _configuration(self) -> str:
        folder, host = self.folder, socket.gethostname()
        lines = [
            "ClusterName=tightfit",
            f"SlurmctldHost={host}(127.0.0.1)",
            f"SlurmctldPort={CONTROLLER_PORT}",
            "SlurmUser=root",
            "SlurmdUser=root",
            "AuthType=auth/munge",
            # Requeueing waits until the credentials of the lost run have expired.
            f"AuthInfo=socket={folder}/munge.socket,cred_expire=6",
            f"StateSaveLocation={folder}/state",
            f"SlurmdSpoolDir={folder}/spool-%n",
            f"SlurmctldPidFile={folder}/slurmctld.pid",
            f"SlurmdPidFile={folder}/slurmd-%n.pid",
            "CommunicationParameters=NoInAddrAny,NoCtldInAddrAny",
            "ProctrackType=proctrack/linuxproc",
            "TaskPlugin=task/none",
            "JobAcctGatherType=jobacct_gather/none",
            "SchedulerType=sched/backfill",
            "SchedulerParameters=batch_sched_delay=0,sched_interval=1,bf_interval=1",
            "SelectType=select/cons_tres",
            "SelectTypeParameters=CR_Core_Memory",
            "GresTypes=gpu",
            f"SlurmdTimeout={NODE_LOST_SECONDS}",
            "SlurmctldTimeout=5",
            "MessageTimeout=4",  # two of these pass before a silent node is down
            "KillWait=5",
            "MinJobAge=600",
            "ReturnToService=2",
            "SlurmdParameters=config_overrides",  # nodes are as large as they say, whatever this host has
            "MpiDefault=none",
            self.plugins,
        ]
        for index, node in enumerate(self.nodes):
            gres = f" Gres=gpu:{node.gpu_type}:{node.gpus} Feature={node.gpu_type}" if node.gpus else ""
            lines.append(
                f"NodeName={node.name} NodeHostname={host} NodeAddr=127.0.0.1 Port={FIRST_NODE_PORT + index} "
                f"CPUs={node.cpus} RealMemory={node.memory_mib} State=UNKNOWN{gres}"
            )
        lines.append("PartitionName=all Nodes=ALL Default=YES MaxTime=INFINITE State=UP")
        return "\n".join(line for line in lines if line) + "\n"

    def _devices(self) -> str:
        """A GPU has to be a character device: /dev/null's numbers do, for as long as nobody opens it."""
        lines = []
        for node in self.nodes:
            for index in range(node.gpus):
                path = self.folder / f"{node.name}-gpu{index}"
                os.mknod(path, 0o20666, os.makedev(1, 3))
                lines.append(f"NodeName={node.name} Name=gpu Type={node.gpu_type} File={path}")
        return "\n".join(lines) + "\n"


def descendants(process_id: int) -> list[int]:
    """Every process that descends from one, by the process table."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
        except (OSError, ValueError, IndexError):
            continue
        children.setdefault(parent, []).append(int(entry.name))
    found: list[int] = []
    waiting = [process_id]
    while waiting:
        below = children.get(waiting.pop(), [])
        found += below
        waiting += below
    return found
