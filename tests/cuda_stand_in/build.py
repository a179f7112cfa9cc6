"""Compiles the stand-in against the headers that torch's CUDA wheels carry.

Three libraries: one that is loaded before all others and answers for CUDA's runtime, cuBLAS and cuDNN's
recurrent layers; the driver's; and that of the driver's monitoring. What torch calls and nothing of ours
answers gets a function that returns 0, which is success.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

HERE = Path(__file__).parent
SOURCES = tuple(HERE / name for name in ("memory.c", "device.c", "libraries.c"))
TORCH_LIBRARIES = ("libtorch_cuda.so", "libc10_cuda.so", "libtorch_python.so", "libtorch_cuda_linalg.so")
HEADERS = ("nvidia/cu13/include", "triton/backends/nvidia/include", "nvidia/cudnn/include")
"""Where the wheels have them; Triton's are those of CUDA's runtime where torch brings none."""
ANSWERED = re.compile(r"(__)?cuda|cublas|cudnnRNN")
DRIVER_NAME = re.compile(r"CUDAAPI (cu[A-Za-z0-9_]+)")
MONITORING_NAME = re.compile(rb"\0(nvml[A-Z]\w+)(?=\0)")
DRIVER = """
int cuGetErrorString(int error, const char **text) { *text = "an error of the stand-in"; return 0; }
int cuDriverGetVersion(int *version) { *version = 13000; return 0; }
int cuDeviceGetCount(int *count) { *count = 1; return 0; }
int cuDeviceGet(int *device, int index) { *device = 0; return 0; }
int cuCtxGetCurrent(void **context) { *context = (void *)64; return 0; }
int cuDevicePrimaryCtxRetain(void **context, int device) { *context = (void *)64; return 0; }
int cuDeviceGetAttribute(int *value, int attribute, int device) {
  extern int cudaDeviceGetAttribute(int *, int, int); /* the preloaded one; their numbers are the same */
  return cudaDeviceGetAttribute(value, attribute, device);
}
int cuFuncGetAttribute(int *value, int attribute, void *function) { *value = attribute ? 0 : 1024; return 0; }
int cuDevicePrimaryCtxGetState(int device, unsigned *flags, int *on) { *flags = 0; *on = 1; return 0; }
"""
MONITORING_ANSWERED = re.compile(r"nvmlInit|nvmlDeviceGetHandle|nvmlDeviceGetComputeRunningProcesses")
"""What torch takes to succeed; the number of processes that it finds there is 0."""
MONITORING = "int not_supported(void) { return 3; }\n"


class Built(NamedTuple):
    """Where the libraries are."""

    preloaded: Path
    folder: Path
    """Of the driver's libraries, which torch opens by name."""


def build(packages: Path, folder: Path) -> Built:
    """Compile into `folder` for the torch in the site-packages folder `packages`.

    Raises FileNotFoundError for a torch without CUDA, and CalledProcessError when the compiler complains.
    """
    folder.mkdir(parents=True, exist_ok=True)
    torch_libraries = [packages / "torch/lib" / name for name in TORCH_LIBRARIES]
    _preloaded(packages, torch_libraries, folder)
    _driver(packages, folder)
    _monitoring(torch_libraries, folder)
    return Built(folder / "stand_in.so", folder)


def _preloaded(packages: Path, torch_libraries: list[Path], folder: Path) -> None:
    objects = [folder / f"{source.stem}.o" for source in SOURCES]
    include = [f"-I{packages / folder}" for folder in HEADERS]
    for source, made in zip(SOURCES, objects, strict=True):
        _compile(*include, "-c", source, "-o", made)
    called = (name for library in torch_libraries for name in _symbols(library, "--undefined-only", "-D"))
    ours = {name for made in objects for name in _symbols(made, "--defined-only")}
    rest = {name for name in called if ANSWERED.match(name)} - ours
    _compile("-shared", _doing_nothing(folder / "rest.c", rest), *objects, "-o", folder / "stand_in.so")


def _driver(packages: Path, folder: Path) -> None:
    headers = (packages / folder / "cuda.h" for folder in HEADERS)
    header = next(path for path in headers if path.exists())
    names = set(DRIVER_NAME.findall(header.read_text(encoding="utf-8"))) - set(
        re.findall(r"^int (\w+)\(", DRIVER, re.MULTILINE)
    )
    source = _doing_nothing(folder / "driver.c", names, DRIVER)
    _compile("-shared", source, "-o", folder / "libcuda.so.1")


def _monitoring(torch_libraries: list[Path], folder: Path) -> None:
    names = {
        name.decode() for each in torch_libraries[:2] for name in MONITORING_NAME.findall(each.read_bytes())
    }
    begins = {name for name in names if MONITORING_ANSWERED.match(name)}
    refused = "".join(_alias(name, "not_supported") for name in sorted(names - begins))
    source = _doing_nothing(folder / "monitoring.c", begins, MONITORING + refused)
    _compile("-shared", source, "-o", folder / "libnvidia-ml.so.1")


def _doing_nothing(path: Path, names: Iterable[str], before: str = "") -> Path:
    """A source with `before`, and functions of these names that return 0."""
    aliases = "".join(_alias(name, "nothing") for name in sorted(names))
    path.write_text(f"{before}static long nothing(void) {{ return 0; }}\n{aliases}", encoding="utf-8")
    return path


def _alias(name: str, of: str) -> str:
    return f'long {name}(void) __attribute__((alias("{of}")));\n'


def _symbols(library: Path, *options: str) -> Iterator[str]:
    listed = subprocess.run(["nm", *options, library], capture_output=True, text=True, check=True).stdout
    return (line.split()[-1].partition("@")[0] for line in listed.splitlines())


def _compile(*options: object) -> None:
    subprocess.run(["gcc", "-O1", "-w", "-fPIC", "-fno-builtin", *map(str, options)], check=True)
