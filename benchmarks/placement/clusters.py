"""Synthetic queues and clusters: every job another model, every hole another number of free bytes."""

from __future__ import annotations

import random
from typing import Any

GIB = 2**30
DEVICES = [
    ("NVIDIA-A100-SXM4-80GB", "a100", 80, 1.0, 2.0),
    ("NVIDIA-A100-SXM4-40GB", "a100-40", 40, 1.0, 1.5),
    ("NVIDIA-H100-80GB-HBM3", "h100", 80, 2.2, 4.0),
    ("NVIDIA-A10", "a10", 24, 0.5, 0.8),
    ("Tesla-T4", "t4", 15, 0.2, 0.4),
]
"""Product, GRES type, GiB, relative speed, cost of an hour."""


def jobs(count: int, seed: int = 0) -> list[dict[str, Any]]:
    """`count` recurrent models, no two the same."""
    draw = random.Random(seed)
    return [_job(number, draw) for number in range(count)]


def _job(number: int, draw: random.Random) -> dict[str, Any]:
    return {
        "name": f"job-{number}",
        "model": {
            "kind": draw.choice(["lstm", "gru", "rnn"]),
            "input_size": 256,
            "hidden_size": 64 + number,
            "num_layers": draw.choice([1, 2, 3]),
            "head": {"output_size": draw.randrange(1_000, 10_000)},
        },
        "sequence": {"length": draw.randrange(100, 3_000), "batch_size": draw.choice([8, 16, 32, 64])},
        "forward_seconds": 0.001,
        "iterations": 1_000,
    }


def holes(count: int, seed: int = 0) -> list[dict[str, Any]]:
    """`count` holes in nodes of four: whole devices, MIG slices and fractions, partly taken."""
    draw = random.Random(seed)
    return [_hole(number, draw) for number in range(count)]


def _hole(number: int, draw: random.Random) -> dict[str, Any]:
    product, gres, gib, speed, cost = draw.choice(DEVICES)
    total_bytes = gib * GIB
    hole: dict[str, Any] = {
        "name": f"hole-{number}",
        "node": f"node-{number // 4}",
        "device": product,
        "names": {"slurm": gres},
        "memory_total_bytes": total_bytes,
        "memory_free_bytes": draw.randrange(total_bytes // 20, total_bytes),
        "relative_speed": speed,
        "hourly_cost": cost,
    }
    kind = draw.random()
    if kind < 0.2:
        hole |= {"mig_slice": f"1g.{gib // 8}gb", "memory_total_bytes": total_bytes // 8}
        hole |= {"memory_free_bytes": total_bytes // 8, "relative_speed": speed / 7}
    elif kind < 0.3:
        hole |= {"fraction": 0.5, "relative_speed": speed / 2}
    return hole
