"""The files that a job leaves: looked at before it trains, written after it has."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import torch

from executor.jobs.job import InvalidJob
from executor.jobs.prepared import PreparedJob, Progress
from executor.jobs.report import RunReport


def require_writable(paths: Mapping[str, Path | str | None]) -> None:
    """Raise InvalidJob, before anything is trained, for paths that could not be written afterwards.

    `paths` are by the field of the job, or the option, that names them; None where none is asked for.
    """
    for field, path in paths.items():
        reason = None if path is None else _unwritable(Path(path))
        if reason is not None:
            raise InvalidJob(field, f"{path} cannot be written: {reason}")


def _unwritable(path: Path) -> str | None:
    place = _place(path)
    folder = place.parent
    if not folder.is_dir():
        return "its folder does not exist"
    if place.is_symlink():
        return "it is a link that leads to itself"
    if path.is_dir():
        return "it is a folder"
    if not os.access(path if path.exists() else folder, os.W_OK):
        return "permission denied"
    return None


def _place(path: Path | str) -> Path:
    """Where `path` leads; of a link that leads to itself `Path.resolve` would raise RuntimeError."""
    return Path(os.path.realpath(path))


def require_apart(paths: Mapping[str, Path | str | None]) -> None:
    """Raise InvalidJob where two of these paths lead to one file: what is written later would be all that is
    left of it. Names as in `require_writable`.
    """
    fields: dict[Path, str] = {}
    for field, path in paths.items():
        place = None if path is None else _place(path)
        if place is None or (place.exists() and not place.is_file()):  # /dev/null takes everything
            continue
        other = fields.setdefault(place, field)
        if other != field:
            raise InvalidJob(
                field, f"{path} is {other} too, of which nothing would be left: name another file"
            )


def written(report: RunReport, prepared: PreparedJob, output: Path | None, progress: Progress) -> RunReport:
    """Write the weights that the job asks for, and the report to `output`; the report as it is then.

    A full disk costs the file, not the training that is done: the report says what is missing.
    """
    weights = prepared.job.report.weights
    if weights is not None:
        save = partial(torch.save, prepared.model.state_dict(), weights)
        report = _with_file(report, "weights file", weights, save, progress)
    if output is not None:
        text = json.dumps(report.record(), indent=2) + "\n"
        write = partial(output.write_text, text, encoding="utf-8")
        report = _with_file(report, "report", output, write, progress)
    return report


def _with_file(
    report: RunReport, what: str, path: Path | str, save: Callable[[], object], progress: Progress
) -> RunReport:
    """`report`, which says so where `save` fails to write `what` to `path`."""
    try:
        save()
    except (OSError, RuntimeError) as error:  # torch's writer reports a full disk as RuntimeError
        reason = str(error).partition("\n")[0]
        missing = f"the {what} {path} is NOT written: {reason}"
        return dataclasses.replace(report, unwritten=(*report.unwritten, missing))
    progress(f"{what}: {path}")
    return report
