"""torch's settings that decide which kernels run, so how many bytes and seconds a step takes."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch


class Backends(NamedTuple):
    """Those of this process."""

    has_threads: bool
    """Whether operations may use several: some take a buffer for each, and without OpenMP our own kernels,
    whose tapes are a third of torch's, leave the work to them."""
    mkldnn: bool
    cudnn: tuple[bool, bool, bool]
    """Whether it is enabled, deterministic, and looks for the quickest algorithm."""
    precisions: tuple[str | bool, ...]
    """What float32 may be rounded to by cuBLAS and cuDNN."""
    is_deterministic: bool
    attention: tuple[bool, ...]
    """Which kernels of scaled_dot_product_attention may run, on the CPU as well: one keeps all its weights,
    twice the bytes of a step or more."""

    @classmethod
    def now(cls) -> Backends:
        """As they are set now."""
        cudnn = torch.backends.cudnn
        return cls(
            torch.get_num_threads() > 1,
            bool(torch.backends.mkldnn.enabled),
            (bool(cudnn.enabled), bool(cudnn.deterministic), bool(cudnn.benchmark)),
            _precisions(),
            torch.are_deterministic_algorithms_enabled(),
            _kernels_of_attention(),
        )


def products_may_round() -> bool:
    """Whether products of float32 on CUDA may be made of numbers rounded to tf32."""
    precision, *_ = _precisions()
    return precision in (True, "tf32")


def _kernels_of_attention() -> tuple[bool, ...]:
    cuda: Any = torch.backends.cuda
    return (
        cuda.flash_sdp_enabled(),
        cuda.mem_efficient_sdp_enabled(),
        cuda.math_sdp_enabled(),
        cuda.cudnn_sdp_enabled(),
    )


def _precisions() -> tuple[str | bool, ...]:
    """Of cuBLAS, then of cuDNN."""
    backends: Any = torch.backends
    matmul, cudnn = backends.cuda.matmul, backends.cudnn
    if hasattr(backends, "fp32_precision"):  # since torch 2.9, and the older names may then refuse
        return (matmul.fp32_precision, cudnn.rnn.fp32_precision, cudnn.conv.fp32_precision)
    return (matmul.allow_tf32, cudnn.allow_tf32)
