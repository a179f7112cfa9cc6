"""Products with an eighth or a quarter of the columns, and iterations of a character model that use them."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import torch

from benchmarks.gpu.rows import Found, Row
from benchmarks.sparse.frontier import timed
from benchmarks.sparse.training import Training
from executor.sparse.choice import candidates
from executor.sparse.timing import least_seconds

BATCH = 64


def rows() -> Iterator[Row]:
    """Products of the way back by size and share, then iterations by size and layers."""
    for hidden in (512, 1024, 2048):
        for share in (0.125, 0.25):
            name = f"LSTM H{hidden} B{BATCH}, {100 * share:g} % of the columns"
            yield Row(name, 20.0, partial(products, hidden, share, device="cuda"))
    for hidden, layers in ((512, 1), (2048, 1), (512, 2)):
        training = Training(hidden_size=hidden, num_layers=layers)
        yield Row(
            f"iterations, H{hidden}, layers: {layers}", 40.0, partial(iterations, training, device="cuda")
        )


def products(hidden: int, share: float, found: Found, *, device: str) -> None:
    """Seconds of the dense product [B, 4H] @ [4H, H], and of every way to leave columns out.

    With TensorFloat-32 allowed, as cuDNN has it.
    """
    _allow_tensor_float()
    gradient = torch.randn(BATCH, 4 * hidden, device=device)
    weight = torch.randn(4 * hidden, hidden, device=device)
    index = torch.randperm(4 * hidden)[: int(4 * hidden * share)].sort().values.to(device)
    ways = candidates(gradient.device, gradient.dtype)
    through = [way.through_columns(weight, index) for way in ways]
    dense_seconds, *others = least_seconds(
        lambda: torch.mm(gradient, weight), *(partial(each, gradient) for each in through)
    )
    found["dense_seconds"], found["gathered_seconds"] = dense_seconds, others[0]
    found["indexed_seconds"] = min(others[1:], default=None)
    expected = torch.mm(gradient[:, index].double(), weight[index].double())
    errors = [float((each(gradient) - expected).abs().max() / expected.abs().max()) for each in through]
    found["largest_error"] = max(errors)


def iterations(training: Training, found: Found, *, device: str) -> None:
    """Seconds of whole iterations, every rule against the fastest dense baseline."""
    _allow_tensor_float()
    found["rows"] = list(timed(training, device))


def _allow_tensor_float() -> None:
    torch.set_float32_matmul_precision("high")
