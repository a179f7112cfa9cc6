"""C kernels compiled with whatever C compiler the machine has; a second or less.

No compiler, no matter: who asks for a library has other kernels for the same work. A library is built for
this very processor, so it is made anew by each process and never left on disk.
"""

from __future__ import annotations

import ctypes
import functools
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

_FLAGS = ("-O3", "-march=native", "-fno-math-errno", "-fno-trapping-math", "-fPIC", "-shared")


@functools.cache
def compiled_library(source: Path, *, switch: str) -> ctypes.CDLL | None:
    """`source` compiled and loaded, or None where that cannot be done or the environment variable `switch`
    says "off".
    """
    compiler = shutil.which(os.environ.get("CC", "cc"))
    if compiler is None or os.environ.get(switch, "").lower() == "off":
        return None
    with tempfile.TemporaryDirectory(prefix="tightfit-") as folder:
        library = Path(folder, "native.so")
        command = [compiler, *_FLAGS, str(source), "-o", str(library), "-lm"]
        try:
            subprocess.run(command, check=True, capture_output=True, timeout=60)  # noqa: S603 - own source
            return ctypes.CDLL(str(library))
        except (OSError, subprocess.SubprocessError):
            return None
