"""Triton's interpreter, for programs that are loaded from now on."""

from __future__ import annotations

import os
from typing import Any


def interpret() -> None:
    """Let programs run under it. That of Triton 3.6 makes integers of arrays that hold one number, which
    numpy 2.4 no longer does: such arrays are the bounds of loops.
    """
    os.environ["TRITON_INTERPRET"] = "1"
    from triton.runtime import interpreter

    patch = interpreter._patch_lang_tensor

    def patched(tensor: Any, *scope: Any) -> None:
        patch(tensor, *scope)
        set_attribute = scope[0].set_attr if scope else setattr  # Triton 3.2, of torch 2.6, has no scopes
        set_attribute(tensor, "__index__", lambda number: int(number.handle.data.item()))

    interpreter._patch_lang_tensor = patched
