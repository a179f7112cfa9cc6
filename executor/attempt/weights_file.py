"""Weights files: what an attempt leaves behind so that the next one goes on exactly where it stopped.

One file per attempt, replaced as a whole: whoever reads it sees all of one iteration or all of another.
It holds tensors, numbers and text only, and is read with `weights_only=True`: no code travels in it.
"""

from __future__ import annotations

import os
import re
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

FORMAT = 1
_NAME = re.compile(r"weights-(\d{6})\.pt")


@dataclass(frozen=True, kw_only=True)
class TrainingState:
    """Everything that the iterations to come depend on."""

    iteration: int
    """Iterations done."""
    description: str
    """The job, as canonical JSON without its budget: weights of another job are not loaded."""
    model: dict[str, Tensor]
    optimizer: dict[str, Any]
    random_state: Tensor
    """Of torch's generator on the CPU, uint8."""
    device_random_state: Tensor | None
    """Of the CUDA generator; None where training runs on the CPU."""
    losses: tuple[float, ...]
    """Of the iterations done."""
    plan: str | None
    """The plan that they ran under, as JSON: another one may add the same terms in another order."""
    carried: dict[str, tuple[Tensor | None, ...]] | None = None
    """What error feedback owes the next iteration, where gradients are sparsified with it."""


def save(folder: Path, state: TrainingState, *, attempt: int) -> Path:
    """Write the file of `attempt`, flushed to the disk; then drop those of earlier attempts.

    Raises OSError and leaves the earlier file as it was when the disk is full.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"weights-{attempt:06d}.pt"
    partial = path.with_suffix(".partial")
    try:
        with partial.open("wb") as stream:
            torch.save(_record(state), stream)
            stream.flush()
            os.fsync(stream.fileno())
        partial.replace(path)
    except (OSError, RuntimeError) as error:  # torch's writer reports a full disk as RuntimeError
        partial.unlink(missing_ok=True)
        raise error if isinstance(error, OSError) else OSError(str(error)) from error
    _flush_folder(folder)
    for number, earlier in _files(folder):
        if number < attempt:
            earlier.unlink(missing_ok=True)
    return path


def load_latest(folder: Path, *, description: str) -> TrainingState | None:
    """The furthest state of this job in `folder`, or None when there is none that can be read.

    An attempt that was declared lost may still write; its file is its own, so it cannot undo a later one.
    """
    states = [state for _, path in _files(folder) if (state := _read(path)) is not None]
    ours = [state for state in states if state.description == description]
    return max(ours, key=lambda state: state.iteration, default=None)


def _files(folder: Path) -> Iterator[tuple[int, Path]]:
    if not folder.is_dir():
        return
    for path in sorted(folder.iterdir()):
        match = _NAME.fullmatch(path.name)
        if match:
            yield int(match[1]), path


def _record(state: TrainingState) -> dict[str, Any]:
    fields = dict(vars(state))
    fields["losses"] = torch.tensor(state.losses, dtype=torch.float64, device="cpu")
    return {"format": FORMAT, **fields}


def _read(path: Path) -> TrainingState | None:
    """None for a file that is damaged: torch itself would take numbers that a bad disk has changed."""
    try:
        with zipfile.ZipFile(path) as archive:
            if archive.testzip() is not None:
                return None
        fields = torch.load(path, map_location="cpu", weights_only=True)
        if fields.pop("format") != FORMAT:
            return None
        fields["losses"] = tuple(fields["losses"].tolist())
        return TrainingState(**fields)
    except MemoryError:
        raise
    except Exception:  # which one depends on the byte that is wrong, and any of them would fail every attempt
        return None


def _flush_folder(folder: Path) -> None:
    """The new name is on the disk too, so that it survives a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
