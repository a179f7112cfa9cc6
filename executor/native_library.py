"""C kernels compiled with whatever C compiler the machine has, once per machine.

No compiler, no matter: who asks for a library has other kernels for the same work. A library is built for
this very processor, so its file is named after the source, the flags and the processor; it is kept in a
folder of the user's own, which nobody else may write to.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
from pathlib import Path

_FLAGS = ("-O3", "-march=native", "-fno-math-errno", "-fno-trapping-math", "-fPIC", "-shared")
_COMPILE_SECONDS = 120
_PROCESSOR = Path("/proc/cpuinfo")


@functools.cache
def compiled_library(source: Path, *, switch: str) -> ctypes.CDLL | None:
    """`source` compiled and loaded, or None where that cannot be done or the environment variable `switch`
    says "off".
    """
    compiler = shutil.which(os.environ.get("CC", "cc"))
    if compiler is None or os.environ.get(switch, "").lower() == "off":
        return None
    try:
        folder = _own_folder()
        if folder is not None:
            return ctypes.CDLL(str(_kept(source, compiler, folder)))
        with tempfile.TemporaryDirectory(prefix="tightfit-") as passing:
            return ctypes.CDLL(str(_kept(source, compiler, Path(passing))))
    except (OSError, subprocess.SubprocessError):
        return None


def _kept(source: Path, compiler: str, folder: Path) -> Path:
    """The library's file in `folder`, compiled unless it is there."""
    library = folder / f"{source.stem}-{_name(source, compiler)}.so"
    if not library.exists():
        with tempfile.NamedTemporaryFile(dir=folder, suffix=".so", delete=False) as file:
            unfinished = Path(file.name)
        try:
            command = [compiler, *_FLAGS, str(source), "-o", str(unfinished), "-lm"]
            subprocess.run(command, check=True, capture_output=True, timeout=_COMPILE_SECONDS)  # noqa: S603 - own source
            unfinished.replace(library)  # whole or not at all: several processes may compile at once
        finally:
            unfinished.unlink(missing_ok=True)
    return library


def _name(source: Path, compiler: str) -> str:
    """What the library depends on, in one word: the headers beside the source count too."""
    digest = hashlib.sha256()
    for file in (source, *sorted(source.parent.glob("*.h"))):
        digest.update(file.read_bytes())
    for part in (*_FLAGS, compiler, str(Path(compiler).stat().st_mtime_ns), platform.machine(), _processor()):
        digest.update(part.encode() + b"\0")
    return digest.hexdigest()[:24]


def _processor() -> str:
    """Model and abilities of the processor, where the system tells."""
    if not _PROCESSOR.exists():
        return platform.processor()
    first = _PROCESSOR.read_text().split("\n\n")[0].splitlines()
    return "\n".join(
        line for line in first if line.startswith(("model name", "flags", "Features", "CPU part"))
    )


def _own_folder() -> Path | None:
    """The user's cache folder; None where there is none that only the user can write to."""
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tightfit"
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        about = folder.stat()
    except (OSError, RuntimeError):
        return None
    is_own = about.st_uid == os.getuid() and not about.st_mode & 0o022
    return folder if is_own and os.access(folder, os.W_OK) else None
