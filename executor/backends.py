"""torch's settings that decide which kernels run, so how many bytes and seconds a step takes."""

from __future__ import annotations

from typing import NamedTuple

import torch


class Backends(NamedTuple):
    """Those of this process."""

    has_threads: bool
    """Whether operations may use several: our own kernels, whose tapes are a third of torch's, use one."""
    mkldnn: bool
    cudnn: tuple[bool, bool, bool, bool]
    """Whether it is enabled, deterministic, looks for the quickest algorithm, and may round to tf32."""
    matmul: str
    is_deterministic: bool

    @classmethod
    def now(cls) -> Backends:
        """As they are set now."""
        cudnn = torch.backends.cudnn
        return cls(
            torch.get_num_threads() > 1,
            bool(torch.backends.mkldnn.enabled),
            (bool(cudnn.enabled), bool(cudnn.deterministic), bool(cudnn.benchmark), bool(cudnn.allow_tf32)),
            torch.get_float32_matmul_precision(),
            torch.are_deterministic_algorithms_enabled(),
        )
