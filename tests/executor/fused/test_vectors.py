"""The kernels are made of vectors that the processor has: wider ones took forty times as long."""

from __future__ import annotations

import ctypes
import platform
import shutil
import subprocess

import pytest
import torch

from executor.fused import kernels as module_of_kernels
from executor.fused.kernels import Kernels
from executor.fused.layer import run_layer
from tests.executor.fused.test_layer import (
    MODULES,
    SIZES,
    TOLERANCES,
    gradients,
    in_float64,
    problem,
    require_close,
    run_torch,
    weights_of,
)

# What a processor may lack, and how wide its vectors are then at most.
LACKING = {"-mno-avx512f": 32, "-mno-avx": 16}

pytestmark = [
    pytest.mark.skipif(platform.machine() != "x86_64", reason="the options are those of x86"),
    pytest.mark.skipif(shutil.which("cc") is None, reason="needs a C compiler"),
]


@pytest.fixture(scope="module", params=LACKING)
def library(request, tmp_path_factory):
    """The kernels for a processor that lacks something; with little optimisation, which takes less time."""
    path = tmp_path_factory.mktemp("kernels") / "kernels.so"
    options = ["-O1", "-march=native", request.param, "-Wall", "-Werror", "-fPIC", "-shared"]
    source = module_of_kernels._SOURCE
    subprocess.run(["cc", *options, str(source), "-o", str(path), "-lm"], check=True, capture_output=True)
    found = ctypes.CDLL(str(path))
    assert Kernels(found, torch.float32).lanes * 4 <= LACKING[request.param]
    return found


@pytest.mark.parametrize("sizes", SIZES)
@pytest.mark.parametrize("dtype", TOLERANCES)
@pytest.mark.parametrize("mode", MODULES)
def test_narrower_vectors_compute_the_same(library, mode, dtype, sizes):
    """As torch's kernels do, and no vector is one that the compiler warns of"""

    def run(module, x, state):
        return run_layer(Kernels(library, dtype), module.mode, x, state, weights_of(module))

    given = problem(mode, sizes, dtype)
    require_close(gradients(run, *given), gradients(run_torch, *in_float64(*given)), dtype)
