"""A job's needs in Slurm's words: GRES types, features, and memory where it is main memory.

GRES that count memory (CountOnly, shards) are sums over a node and choose no device, so they are never
part of the words.
"""

from __future__ import annotations

from dataclasses import dataclass

from planner_service.placement.holes import Hole
from planner_service.placement.wanted import Wanted, mebibytes

UNTYPED = "gpu"
"""Stands for the type of GPUs that have none in GRES."""


@dataclass(frozen=True, kw_only=True)
class SlurmWords:
    """Arguments of sbatch. Each alternative is complete in itself."""

    alternatives: tuple[tuple[str, ...], ...]
    """The quickest first. Types that GRES name; all at once by features, where nodes have them."""
    notes: tuple[str, ...] = ()
    """What these words leave open."""


def slurm_words(wanted: Wanted) -> SlurmWords:
    """The alternatives for Slurm."""
    if wanted.on_cpu:
        memory = f"--mem={mebibytes(wanted.devices * wanted.request_bytes)}M"  # of a node, for all its ranks
        one_node = ("--nodes=1",) if wanted.devices > 1 else ()
        return SlurmWords(alternatives=((*one_node, f"--ntasks={wanted.devices}", memory),))
    holes = [each.smallest for each in wanted.types]
    named = [hole for hole in holes if hole.fraction is None and gres_type(hole)]
    alternatives: list[tuple[str, ...]] = [
        (f"--gres={gres_of(gres_type(hole), wanted.devices)}",) for hole in named
    ]
    features = [kind for hole in named if hole.mig_slice is None and (kind := gres_type(hole)) != UNTYPED]
    notes = []
    if any(gres_type(hole) == UNTYPED for hole in named):
        notes.append("GPUs without a type are any GPU of the cluster: give them types in gres.conf")
    if len(features) > 1:
        alternatives.append((f"--gres=gpu:{wanted.devices}", f"--constraint={'|'.join(features)}"))
        notes.append("--constraint needs node features that are called like the GRES types")
    whole = [hole for hole in holes if hole.fraction is None]
    if len(whole) < len(holes):
        notes.append("fractions are left out: gres/shard counts per node and isolates no memory")
    if len(named) < len(whole):
        notes.append("types without a name for Slurm are left out")
    return SlurmWords(alternatives=tuple(alternatives), notes=tuple(notes))


def gres_of(kind: str, count: int) -> str:
    """So many GPUs of a type, in GRES' words."""
    return f"gpu:{count}" if kind == UNTYPED else f"gpu:{kind}:{count}"


def gres_type(hole: Hole) -> str:
    """The type in GRES: as named, else the MIG slice, else the device's name in one word; empty without."""
    return hole.names.slurm or hole.mig_slice or "_".join(hole.device.lower().split())
