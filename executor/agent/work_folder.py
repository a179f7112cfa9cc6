"""The folder of an agent's jobs, looked at before a job is asked for."""

from __future__ import annotations

import tempfile
from pathlib import Path

from executor.errors import ExecutorError


class UnusableWorkFolder(ExecutorError):
    """No file can be made in the work folder; `reason` is the system's."""

    def __init__(self, folder: Path, reason: str) -> None:
        self.folder, self.reason = folder, reason
        super().__init__(f"the work folder {folder} cannot be used: {reason}; name another with --work-dir")

    def __reduce__(self) -> tuple[object, ...]:
        return (UnusableWorkFolder, (self.folder, self.reason))


def require_work_folder(folder: Path) -> None:
    """Make it unless it is there, and a file in it that is gone at once. Raises UnusableWorkFolder.

    A disk that is full will do: it costs what would be kept, not the training.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise UnusableWorkFolder(folder, error.strerror or str(error)) from error
