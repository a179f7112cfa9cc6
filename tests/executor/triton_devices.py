"""Where Triton's programs run in tests: on a CUDA device, or without one under Triton's interpreter.

Import this before a module with such programs: Triton looks at the environment when it sees them.
"""

from __future__ import annotations

import pytest

from tests.executor.triton_interpreter import interpret

torch = pytest.importorskip("torch")
pytest.importorskip("triton")

HAS_CUDA = torch.cuda.is_available()

if not HAS_CUDA:
    interpret()

INTERPRETER = pytest.param(
    "cpu", id="interpreter", marks=pytest.mark.skipif(HAS_CUDA, reason="the device runs the programs")
)
DEVICES = [INTERPRETER, pytest.param("cuda", marks=pytest.mark.gpu)]
