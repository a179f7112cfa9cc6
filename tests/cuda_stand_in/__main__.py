"""Builds the stand-in and runs pytest on it: without arguments the tests that mean something there.

    python -m tests.cuda_stand_in
    python -m tests.cuda_stand_in --values tests/executor/test_gpu.py -k gradients
    python -m tests.cuda_stand_in --values --everything-on-cuda tests/executor/test_unroll.py

Needs a CUDA build of torch >= 2.9 for CUDA 13 on Linux with gcc and binutils, and no device. Exit status: 0
when all tests passed, 1 when one failed.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import torch

from executor.cuda_memory import expandable_segments
from tests.cuda_stand_in.build import Built, build

ROOT = Path(__file__).parents[2]
GRADIENTS = "gradients"
"""In the names of the tests that compare them."""


class Tests(NamedTuple):
    """Some of pytest's arguments, and how they are run."""

    arguments: tuple[str, ...]
    has_values: bool = False
    is_expandable: bool = True
    is_all_on_cuda: bool = False
    """Tests that are written for the CPU; otherwise those marked `gpu`."""


USUAL = (
    # What is allocated does not depend on numbers: at full size, with nothing computed.
    Tests(("tests/executor/test_gpu.py", "-k", f"not {GRADIENTS}"), is_expandable=False),
    Tests(("tests/executor/test_gpu.py", "tests/executor/test_gpu_caps.py", "-k", f"not {GRADIENTS}")),
    Tests(("tests/executor/test_gpu.py", "-k", GRADIENTS), has_values=True),
    Tests(("tests/executor/reversible", "tests/executor/sparse", "-k", "not triton"), has_values=True),
    Tests(
        tuple(f"tests/executor/test_{name}.py" for name in ("transparency", "unroll", "faults")),
        has_values=True,
        is_all_on_cuda=True,
    ),
)
AT_ONCE = 2


def run(tests: Tests, built: Built) -> bool:
    """Whether all of them passed; what pytest said is written in one piece."""
    command = [sys.executable, "-m", "pytest", "-q", "-W", "default", "-p", "no:cacheprovider"]
    command += [] if tests.is_all_on_cuda else ["-m", "gpu"]
    command += ["-p", "tests.cuda_stand_in.values"] if tests.has_values else []
    done = subprocess.run(
        [*command, *tests.arguments],
        cwd=ROOT,
        env=environment(tests, built),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    sys.stdout.write(done.stdout)
    sys.stdout.flush()
    return done.returncode == 0


def environment(tests: Tests, built: Built) -> Mapping[str, str]:
    """Of pytest's process."""
    found = {**os.environ, "LD_PRELOAD": str(built.preloaded), "LD_LIBRARY_PATH": str(built.folder)}
    if tests.is_expandable:
        found |= expandable_segments(found)
    if tests.is_all_on_cuda:
        found["STAND_IN_DEFAULT_DEVICE"] = "1"
    if tests.has_values:
        found["TRITON_INTERPRET"] = "1"
    else:
        found["STAND_IN_LAZY"] = "1"
    return found


def asked_for() -> tuple[Tests, ...]:
    """By the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--values", action="store_true", help="let the CPU compute what kernels would")
    parser.add_argument(
        "--everything-on-cuda", action="store_true", help="tests for the CPU, tensors on CUDA by default"
    )
    options, arguments = parser.parse_known_args()
    if not arguments:
        return USUAL
    chosen = Tests(tuple(arguments), options.values, is_all_on_cuda=options.everything_on_cuda)
    return (chosen,)


def main() -> int:
    """See the module."""
    chosen = asked_for()
    if not torch.version.cuda:
        sys.stderr.write("this torch has no CUDA: the stand-in has nothing to stand in for\n")
        return 1
    built = build(Path(torch.__file__).parents[1], Path(sys.prefix) / "cuda-stand-in")
    with ThreadPoolExecutor(AT_ONCE) as pool:
        return 0 if all(list(pool.map(lambda tests: run(tests, built), chosen))) else 1


if __name__ == "__main__":
    raise SystemExit(main())
