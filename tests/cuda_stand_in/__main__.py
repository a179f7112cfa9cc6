"""Builds the stand-in and runs pytest on it: without arguments the tests that mean something there.

    python -m tests.cuda_stand_in
    python -m tests.cuda_stand_in --values tests/executor/test_gpu.py -k gradients
    python -m tests.cuda_stand_in --values --everything-on-cuda tests/executor/test_unroll.py
    python -m tests.cuda_stand_in --module benchmarks.gpu.gaps --seconds 60

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

from benchmarks.gpu.suites import CAPPED_TESTS, FIRST_TESTS, test_files
from executor.memory.cuda_memory import expandable_segments
from tests.cuda_stand_in.build import Built, build

ROOT = Path(__file__).parents[2]
GRADIENTS = "gradients"
"""In the names of the tests that compare them."""


class Settings(NamedTuple):
    """How a process runs on the stand-in."""

    has_values: bool = False
    is_expandable: bool = True
    is_all_on_cuda: bool = False
    """Tests that are written for the CPU; otherwise those marked `gpu`."""


class Tests(NamedTuple):
    """Some of pytest's arguments, and how they are run."""

    arguments: tuple[str, ...]
    settings: Settings


EVERYTHING = (
    "test_transparency",
    "test_unroll",
    "test_faults",
    "rules/test_steps_that_differentiate",
    "surroundings/test_streams",
    "surroundings/test_between_passes",
)
USUAL = (
    # What is allocated does not depend on numbers: at full size, with nothing computed.
    Tests((FIRST_TESTS, "-k", f"not {GRADIENTS}"), Settings(is_expandable=False)),
    Tests((FIRST_TESTS, CAPPED_TESTS, "-k", f"not {GRADIENTS}"), Settings()),
    Tests((FIRST_TESTS, "-k", GRADIENTS), Settings(has_values=True)),
    Tests((*test_files(), "-k", "not triton", "--deselect", FIRST_TESTS), Settings(has_values=True)),
    Tests(
        (
            *(f"tests/executor/{name}.py" for name in EVERYTHING),
            *("-k", "not sparse_tensors"),  # of which the stand-in has no copies
        ),
        Settings(has_values=True, is_all_on_cuda=True),
    ),
)
AT_ONCE = 2


def run(tests: Tests, built: Built) -> bool:
    """Whether all of them passed; what pytest said is written in one piece."""
    settings = tests.settings
    command = [sys.executable, "-m", "pytest", "-q", "-W", "default", "-p", "no:cacheprovider"]
    command += [] if settings.is_all_on_cuda else ["-m", "gpu"]
    command += ["-p", f"tests.cuda_stand_in.{'values' if settings.has_values else 'nothing'}"]
    done = subprocess.run(
        [*command, *tests.arguments],
        cwd=ROOT,
        env=environment(settings, built),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    sys.stdout.write(done.stdout)
    sys.stdout.flush()
    return done.returncode == 0


def environment(settings: Settings, built: Built) -> Mapping[str, str]:
    """Of a process on the stand-in."""
    found = {**os.environ, "LD_PRELOAD": str(built.preloaded), "LD_LIBRARY_PATH": str(built.folder)}
    if settings.is_expandable:
        found |= expandable_segments(found)
    if settings.is_all_on_cuda:
        found["STAND_IN_DEFAULT_DEVICE"] = "1"
    if settings.has_values:
        found["TRITON_INTERPRET"] = "1"
    else:
        found["STAND_IN_LAZY"] = "1"
    return found


def parser() -> argparse.ArgumentParser:
    """Of the command line; what it does not know goes to pytest, or to the module."""
    found = argparse.ArgumentParser(
        prog="python -m tests.cuda_stand_in",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    found.add_argument("--values", action="store_true", help="let the CPU compute what kernels would")
    found.add_argument("--plain-segments", action="store_true", help="the allocator as it comes")
    found.add_argument(
        "--everything-on-cuda", action="store_true", help="tests for the CPU, tensors on CUDA by default"
    )
    found.add_argument("--module", help="run this module instead of tests, with nothing computed")
    return found


def main() -> int:
    """See the module."""
    options, arguments = parser().parse_known_args()
    if not torch.version.cuda:
        sys.stderr.write("this torch has no CUDA: the stand-in has nothing to stand in for\n")
        return 1
    built = build(Path(torch.__file__).parents[1], Path(sys.prefix) / "cuda-stand-in")
    settings = Settings(options.values, not options.plain_segments, options.everything_on_cuda)
    if options.module:
        command = [sys.executable, "-m", "tests.cuda_stand_in.nothing", options.module, *arguments]
        return subprocess.run(command, cwd=ROOT, env=environment(settings, built), check=False).returncode
    chosen = (Tests(tuple(arguments), settings),) if arguments else USUAL
    with ThreadPoolExecutor(AT_ONCE) as pool:
        return 0 if all(list(pool.map(lambda tests: run(tests, built), chosen))) else 1


if __name__ == "__main__":
    raise SystemExit(main())
