"""C kernels compiled with whatever C compiler the machine has, once per machine.

No compiler, no matter: who asks for a library has other kernels for the same work. A library is built for
this very processor, so its file is named after the source, the flags and the processor, and after its own
bytes, which are looked at before it is loaded: half a file would end the process. It is kept in a folder of
the user's own, which nobody else may write to.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import os
import platform
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

_THIS_PROCESSOR = "-mcpu=native" if platform.machine() in ("aarch64", "arm64") else "-march=native"
_FLAGS = ("-O3", _THIS_PROCESSOR, "-fno-math-errno", "-fno-trapping-math", "-fPIC", "-shared")
_WAYS = ((*_FLAGS, "-fopenmp"), _FLAGS)
"""The first that the compiler can: without OpenMP, kernels use one thread."""
_COMPILE_SECONDS = 120
_PROCESSOR = Path("/proc/cpuinfo")


@functools.cache
def compiled_library(source: Path, *, switch: str) -> ctypes.CDLL | None:
    """`source` compiled and loaded, or None where that cannot be done or the environment variable `switch`
    says "off".
    """
    compiler = _compiler()
    if compiler is None or os.environ.get(switch, "").lower() == "off":
        return None
    try:
        folder = _own_folder()
        if folder is not None:
            return _loaded(source, compiler, folder)
        with tempfile.TemporaryDirectory(prefix="tightfit-") as passing:
            return _loaded(source, compiler, Path(passing))
    except (OSError, subprocess.SubprocessError):
        return None


def function_of(library: ctypes.CDLL, name: str, arguments: Sequence[Any], result: Any = None) -> Any:
    """The library's function of that name, called with C types `arguments`. Raises AttributeError where the
    compiler left it out.
    """
    function = getattr(library, name)
    function.argtypes, function.restype = arguments, result
    return function


def _compiler() -> tuple[str, ...] | None:
    """The words of CC, "gcc -O2" or "ccache gcc", the first of them as a path; `cc` where it names none."""
    for words in (_words(os.environ.get("CC", "")), ("cc",)):
        found = shutil.which(words[0]) if words else None
        if found is not None:
            return (found, *words[1:])
    return None


def _words(command: str) -> tuple[str, ...]:
    try:
        return tuple(shlex.split(command))
    except ValueError:  # a quotation that does not end
        return ()


def _loaded(source: Path, compiler: Sequence[str], folder: Path) -> ctypes.CDLL:
    """The library of `folder`; compiled where there is none that is whole and can be loaded."""
    commands = [(*compiler, *flags) for flags in _WAYS]
    names = {command: f"{source.stem}-{_name(source, command)}" for command in commands}
    for name in names.values():
        kept = _kept(folder, name)
        if kept is not None:
            return kept
    *others, last = commands
    for command in others:
        try:
            return _compiled(source, command, folder, names[command])
        except (OSError, subprocess.SubprocessError):
            pass
    return _compiled(source, last, folder, names[last])


def _kept(folder: Path, name: str) -> ctypes.CDLL | None:
    """The library of that name, where there is one that is whole and can be loaded; others are taken away."""
    for library in sorted(folder.glob(f"{name}-*.so")):
        try:
            if library.name == _named(name, library):
                return ctypes.CDLL(str(library))
        except OSError:  # whole, and yet none: compiled once more
            pass
        library.unlink(missing_ok=True)
    return None


def _compiled(source: Path, command: Sequence[str], folder: Path, name: str) -> ctypes.CDLL:
    """`source` compiled by `command`, its compiler and flags, and kept in `folder`."""
    with tempfile.NamedTemporaryFile(dir=folder, suffix=".so", delete=False) as file:
        unfinished = Path(file.name)
    try:
        command = [*command, str(source), "-o", str(unfinished), "-lm"]
        subprocess.run(command, check=True, capture_output=True, timeout=_COMPILE_SECONDS)  # noqa: S603 - own source
        loaded = ctypes.CDLL(str(unfinished))  # what cannot be loaded is not kept
        _flush(unfinished)
        # Whole or not at all: several processes may compile at once, and any may be killed.
        unfinished.replace(folder / _named(name, unfinished))
    finally:
        unfinished.unlink(missing_ok=True)
    return loaded


def _named(name: str, library: Path) -> str:
    """What a library of that name with these bytes is called."""
    return f"{name}-{hashlib.sha256(library.read_bytes()).hexdigest()[:16]}.so"


def _flush(file: Path) -> None:
    """Its bytes are on the disk before its name is."""
    with file.open("rb") as stream:
        os.fsync(stream.fileno())


def _name(source: Path, command: Sequence[str]) -> str:
    """What the library depends on, in one word: the headers beside the source count too."""
    digest = hashlib.sha256()
    for file in (source, *sorted(source.parent.glob("*.h"))):
        digest.update(file.read_bytes())
    built_at = str(Path(command[0]).stat().st_mtime_ns)
    for part in (*command, built_at, platform.machine(), _processor()):
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
