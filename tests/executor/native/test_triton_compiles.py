"""Without a device, Triton's programs compile for an H100, and those on integers without shortcuts."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("triton")

ROOT = Path(__file__).parents[3]
COMPILING = """
import json, sys
sys.path.insert(0, ".")
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from executor.reversible import triton_kernels as reversible
from executor.sparse import triton_kernels as sparse


def compiled(program, types, constants, options):
    names = program.arg_names
    signature = dict(zip(names, [*types.split(), *["constexpr"] * len(constants)], strict=True))
    fixed = dict(zip(names[-len(constants):], constants))
    source = ASTSource(program, signature, fixed)
    found = triton.compile(source, target=GPUTarget("cuda", 90, 32), options=options)
    return {"machine_code_bytes": len(found.asm["cubin"]), "ptx": found.asm["ptx"]}


exact, fused = {"enable_fp_fusion": False}, {"enable_fp_fusion": True}
sizes = "i32 i32 i32 i32 i32 i32"


def constants(tile, precision):
    return tile.rows, tile.columns, tile.inner, precision


small, large = constants(sparse.TILES[0], "tf32x3"), constants(sparse.TILES[-1], "tf32")
warps = {"num_warps": sparse.TILES[-1].warps}
print(json.dumps({
    "advance": compiled(reversible._advance, "*fp64 *fp64 *fp32 *fp32 *fp32 i32", (512,), exact),
    "reverse": compiled(reversible._reverse, "*fp64 *fp64 *fp64 *fp64 *fp64 i32", (512,), exact),
    "split_full": compiled(reversible._split_full, "*fp64 *fp32 fp32 *i16 *i1 i32", (512,), exact),
    "join_low": compiled(reversible._join_low, "*fp64 *i1 *i64 *i16 i32", (512,), exact),
    "sum_over": compiled(sparse._sum_over, "*fp32 *fp32 *fp32 *fp32 *i64 " + sizes, small, fused),
    "add_at": compiled(sparse._add_at, "*fp32 *fp32 *fp32 *i64 " + sizes, small, fused),
    "large": compiled(sparse._sum_over, "*fp32 *fp32 *fp32 *fp32 *i64 " + sizes, large, fused | warps),
}))
"""


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, str]]:
    """Compiled in a process of its own: in this one, programs may have been loaded for the interpreter."""
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    environment["TRITON_CACHE_DIR"] = str(tmp_path_factory.mktemp("triton"))
    command = [sys.executable, "-W", "error", "-c", COMPILING]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout)


def test_every_program_becomes_machine_code(programs):
    assert all(program["machine_code_bytes"] > 1000 for program in programs.values())


@pytest.mark.parametrize("name", ["advance", "reverse"])
def test_the_exact_updates_round_quotients_to_nearest_and_fuse_nothing(programs, name):
    """What makes their bits those of torch: a true division, and the addend's rounding left in place."""
    text = programs[name]["ptx"]
    assert "div.rn.f64" in text
    assert "fma" not in text
    assert "approx" not in text
    assert "0d4338000000000000" in text  # 1.5 * 2**52, added
    assert "0dC338000000000000" in text  # and taken away again


@pytest.mark.parametrize(
    ("name", "instruction"), [("sum_over", "mma.sync"), ("add_at", "mma.sync"), ("large", "wgmma.mma_async")]
)
def test_products_run_on_the_tensor_cores(programs, name, instruction):
    """Large tiles by Hopper's own instructions, which take warps in groups"""
    assert instruction in programs[name]["ptx"]
