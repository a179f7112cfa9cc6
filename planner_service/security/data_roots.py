"""Which texts jobs may name: files inside the operator's folders, and the text that Python brings along."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from planner_service.chain import PlanningError

BUILT_IN_TEXT = "python"
"""Not a file: the sources of the worker's own Python."""


class TextOutsideRoots(PlanningError):
    """A job names a file that is none of those it may name."""

    def __init__(self, text: str) -> None:
        self.text = text
        super().__init__(
            f"data.text={text!r} is no file inside the folders that jobs may read (TIGHTFIT_DATA_ROOTS of "
            f"the service, --data-root of the worker): name one relative to them"
        )
        self.field = "data.text"


def require_text_within(text: str, roots: Sequence[Path]) -> None:
    """Raises TextOutsideRoots unless `text` is a file inside one of `roots`, symbolic links followed.

    Without roots the workers alone know their files: then only names that climb (`..`) are refused.
    """
    if text == BUILT_IN_TEXT:
        return
    if ".." in PurePosixPath(text).parts:
        raise TextOutsideRoots(text)
    if roots and not any(_holds(root, text) for root in roots):
        raise TextOutsideRoots(text)


def _holds(root: Path, text: str) -> bool:
    resolved_root = root.resolve()
    try:
        path = (resolved_root / text).resolve()
        return path.is_relative_to(resolved_root) and path.is_file()
    except (OSError, ValueError, RuntimeError):  # too long, a NUL, links in a circle
        return False
