"""Packed batches with new lengths in every one: seconds of an iteration beside torch's own.

    taskset -c 1 python -m benchmarks.executor.ragged [--threads 1] [--batches 12]

TIGHTFIT_FUSED_KERNELS=off in the environment shows what probing every new set of lengths costs.
"""

from __future__ import annotations

import argparse
import random
import statistics
import time

import torch
from torch import nn
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence

from executor import GRU, LSTM

HIDDEN, BATCH, STEPS = 256, 16, 200
BUDGET = "32MiB"


def batch(lengths: random.Random) -> PackedSequence:
    """One sequence of all steps; the others have a quarter of them at least."""
    others = sorted((lengths.randint(STEPS // 4, STEPS) for _ in range(BATCH - 1)), reverse=True)
    return pack_padded_sequence(torch.randn(STEPS, BATCH, HIDDEN), [STEPS, *others])


def seconds(module: nn.Module, packed: PackedSequence) -> float:
    """Of forward and backward."""
    module.zero_grad()
    started = time.perf_counter()
    y, _ = module(packed)
    y.data.square().sum().backward()
    return time.perf_counter() - started


def main() -> None:
    """Print one line per kind."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--batches", type=int, default=12)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    for plain, drop_in in ((nn.LSTM(HIDDEN, HIDDEN), LSTM), (nn.GRU(HIDDEN, HIDDEN), GRU)):
        module, lengths = drop_in.from_torch(plain, budget=BUDGET), random.Random(0)
        batches = (batch(lengths) for _ in range(given.batches))
        times = [(seconds(plain, each), seconds(module, each)) for each in batches]
        torch_s, own_s = (statistics.median(column) for column in zip(*times[1:], strict=True))
        print(
            f"{plain.mode}: torch {torch_s:.3f} s, inside {BUDGET} {own_s:.3f} s ({own_s / torch_s:.2f}), "
            f"its first batch {times[0][1]:.1f} s"
        )


if __name__ == "__main__":
    main()
