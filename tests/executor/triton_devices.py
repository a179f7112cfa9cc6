"""Where Triton's programs run in tests: on a CUDA device, or without one under Triton's interpreter.

Import this before a module with such programs: Triton looks at the environment when it sees them.
"""

from __future__ import annotations

import os
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("triton")

HAS_CUDA = torch.cuda.is_available()


def _interpret() -> None:
    """Let programs that are loaded from now on run under the interpreter.

    That of Triton 3.6 makes integers of arrays that hold one number, which numpy 2.4 no longer does: such
    arrays are the bounds of loops.
    """
    os.environ["TRITON_INTERPRET"] = "1"
    from triton.runtime import interpreter

    patch = interpreter._patch_lang_tensor

    def patched(tensor: Any, *scope: Any) -> None:
        patch(tensor, *scope)
        set_attribute = scope[0].set_attr if scope else setattr  # Triton 3.2, of torch 2.6, has no scopes
        set_attribute(tensor, "__index__", lambda number: int(number.handle.data.item()))

    interpreter._patch_lang_tensor = patched


if not HAS_CUDA:
    _interpret()

INTERPRETER = pytest.param(
    "cpu", id="interpreter", marks=pytest.mark.skipif(HAS_CUDA, reason="the device runs the programs")
)
DEVICES = [INTERPRETER, pytest.param("cuda", marks=pytest.mark.gpu)]
