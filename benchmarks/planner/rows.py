"""The rows of the table: what is planned, what we aim at, and which peers do the same work."""

from __future__ import annotations

from typing import NamedTuple

from benchmarks.machine import ROOT
from benchmarks.planner.peers import MULTISTAGE, NUMBA, PLAIN, PYREVOLVE, ROTOR, Peer

CHAINS = str(ROOT / "tests" / "golden" / "rotor_chains.json")


class Against(NamedTuple):
    """A peer with its rounds, its arguments and the ratio that we want."""

    peer: Peer
    rounds: int
    arguments: tuple[str, ...]
    least_ratio: float | None = None
    """Peer's CPU seconds over ours."""


class Row(NamedTuple):
    """One kind of work: our call, our own target, and the peers."""

    name: str
    call: tuple[str, ...]
    """Arguments of our_process.py; the rounds come second."""
    against: tuple[Against, ...] = ()
    most_seconds: float | None = None
    most_gap_ratio: float | None = None
    """Makespan over lower bound, less one."""
    most_rss_bytes: int | None = None
    most_rss_ratio: float | None = None
    """Our peak resident set over the first peer's."""
    cold: str | None = None
    """`empty` or `filled`: the process starts with that kernel cache."""


def homogeneous(steps: int, units: int, tape: int, rounds: int) -> tuple[str, ...]:
    """Our call for T equal steps."""
    return ("homogeneous", str(rounds), str(steps), str(units), str(tape))


def rotor(length: int, rounds: int) -> tuple[str, ...]:
    """Our call for a recorded heterogeneous chain."""
    return ("rotor", str(rounds), str(length))


def against_rotor(length: int, least_ratio: float | None) -> tuple[Against, ...]:
    """Rotor's C solver on the same chain: once, it takes long."""
    return (Against(ROTOR, 1, (CHAINS, str(length)), least_ratio),)


ROWS = [
    Row(
        "T=1,000, 50 units, tape 1",
        homogeneous(1_000, 50, 1, 31),
        (Against(PLAIN, 1, ("1000", "50"), 300), Against(NUMBA, 7, ("1000", "50"), 2)),
        most_seconds=0.05,
    ),
    Row("T=1,000, 50 units, tape 4", homogeneous(1_000, 50, 4, 31), most_seconds=0.05),
    Row(
        "T=10,000, 50 units, tape 1",
        homogeneous(10_000, 50, 1, 7),
        (Against(NUMBA, 3, ("10000", "50"), 5),),
    ),
    Row("T=10,000, 50 units, tape 4", homogeneous(10_000, 50, 4, 7)),
    Row("T=10,000, 1,000 units, tape 1, exact", homogeneous(10_000, 1_000, 1, 5), most_seconds=1),
    Row("T=10,000, 1,000 units, tape 4, exact", homogeneous(10_000, 1_000, 4, 5), most_seconds=1),
    Row("T=100,000, 100 units, tape 1, exact", homogeneous(100_000, 100, 1, 3), most_seconds=5),
    Row("T=100,000, 100 units, tape 4, exact", homogeneous(100_000, 100, 4, 3), most_seconds=5),
    Row(
        "T=1,000,000, 200 units, tape 1",
        homogeneous(1_000_000, 200, 1, 3),
        most_seconds=5,
        most_gap_ratio=1e-3,
        most_rss_bytes=2 * 2**30,
    ),
    Row(
        "T=1,000,000, 200 units, tape 4",
        homogeneous(1_000_000, 200, 4, 3),
        most_seconds=5,
        most_gap_ratio=1e-3,
        most_rss_bytes=2 * 2**30,
    ),
    Row("heterogeneous, 100 stages, 500 levels", rotor(100, 5), against_rotor(100, None)),
    Row(
        "heterogeneous, 200 stages, 500 levels",
        rotor(200, 5),
        against_rotor(200, 10),
        most_rss_ratio=0.25,
    ),
    Row(
        "heterogeneous, 336 stages, 500 levels",
        rotor(336, 3),
        against_rotor(336, 10),
        most_rss_ratio=0.25,
    ),
    Row(
        "expanding T=1,000, 50 units",
        ("expand", "7", "1000", "50", "1"),
        (Against(MULTISTAGE, 7, ("1000", "50")), Against(PYREVOLVE, 7, ("1000", "50"))),
    ),
    Row(
        "expanding T=1,000,000, 200 units",
        ("expand", "3", "1000000", "200", "1"),
        (Against(MULTISTAGE, 1, ("1000000", "200")),),  # pyrevolve needs 50 s here: not repeated
        most_seconds=2,
    ),
    Row("cold process, empty kernel cache", ("cold", "1000", "50", "4"), most_seconds=8, cold="empty"),
    Row("cold process, filled kernel cache", ("cold", "1000", "50", "4"), most_seconds=1.5, cold="filled"),
]
