"""The kernels are made of vectors that the processor has: wider ones took forty times as long."""

from __future__ import annotations

import ctypes
import platform
import re
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
    pytest.mark.skipif(shutil.which("gcc") is None, reason="needs gcc"),
]


def compiled(*options):
    """What the compiler prints for the source of the kernels."""
    command = ["gcc", "-march=native", str(module_of_kernels._SOURCE), *options]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


@pytest.fixture(scope="module", params=LACKING)
def library(request, tmp_path_factory):
    """The kernels for a processor that lacks something; with little optimisation, which takes less time."""
    path = tmp_path_factory.mktemp("kernels") / "kernels.so"
    compiled("-O1", request.param, "-Wall", "-Werror", "-fPIC", "-shared", "-o", str(path), "-lm")
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


def innermost_loops(assembly):
    """The lines from each label to a jump back to it, where no other label is between."""
    label, body = None, []
    for line in assembly.splitlines():
        if found := re.match(r"(\.L\w+):", line):
            label, body = found[1], []
        else:
            body.append(line)
            if label is not None and re.match(rf"\s+j\w+\s+{re.escape(label)}$", line):
                yield body


def test_sums_stay_in_registers_while_products_are_added():
    """With the sixteen registers of AVX no loop over products writes its sums to memory"""
    flags = ["-O3", "-fno-math-errno", "-fno-trapping-math", "-fPIC", "-S", "-o", "-"]
    loops = list(innermost_loops(compiled("-march=haswell", *flags)))
    products = [body for body in loops if sum("vfmadd" in line for line in body) >= 6]
    assert len(products) >= 8  # forwards and backwards, in two types
    for body in products:
        assert not [line for line in body if re.search(r"vmov\w+\s+%[xyz]mm\d+, .*\(%r[sb]p\)", line)]
