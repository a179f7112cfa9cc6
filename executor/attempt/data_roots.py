"""Where a job's text may be: jobs name files inside the folders that the worker was given, and no others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from executor.jobs.job import PYTHON_TEXT, InvalidJob, Job


def within_roots(job: Job, roots: Sequence[Path]) -> Job:
    """The job with its text as a full path, found in the first of `roots` that has it.

    Symbolic links are followed before the path is judged. Raises InvalidJob for a text outside.
    """
    name = job.data.text
    if name == PYTHON_TEXT:
        return job
    for root in roots:
        path = _found(root, name)
        if path is not None:
            return replace(job, data=replace(job.data, text=str(path)))
    known = ", ".join(map(str, roots)) or f"none: the worker has no --data-root, only {PYTHON_TEXT!r}"
    raise InvalidJob("data.text", f"{name!r} is in none of the worker's data folders ({known})")


def _found(root: Path, name: str) -> Path | None:
    """The file of that name in `root`; None where none is, links lead out of it, or it can be no name."""
    resolved_root = root.resolve()
    try:
        path = (resolved_root / name).resolve()
        return path if path.is_relative_to(resolved_root) and path.is_file() else None
    except (OSError, ValueError, RuntimeError):  # too long, a NUL, links in a circle
        return None
