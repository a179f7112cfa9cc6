"""The result file of `make gpu`, written whenever a row has more, so that nothing measured is lost."""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.machine import RESULTS, ROOT

FOLDER = "GPU_RESULTS"
"""A variable of the environment: the folder of the result file and the page, if they are not to go to their
places in this checkout; seen from there.
"""


def place(wanted: Path) -> Path:
    """`wanted`, or a file of that name in the folder that FOLDER names; without one, where `wanted` cannot be
    written, among the system's temporary files. The same for all processes of a run.
    """
    if chosen := os.environ.get(FOLDER):
        return ROOT / chosen / wanted.name
    folder = next(folder for folder in wanted.parents if folder.exists())
    is_free = os.access(wanted, os.W_OK) or not wanted.exists()
    return wanted if is_free and os.access(folder, os.W_OK) else Path(tempfile.gettempdir(), wanted.name)


PATH = place(RESULTS / "gpu.json")


def start(about: dict[str, Any], path: Path = PATH) -> None:
    """Begin a new file with what is known before anything is measured."""
    _write(about, path)


def add(section: str, row: Any, path: Path = PATH) -> None:
    """Add a row to a section, in the place of what was known of it before."""
    found = load(path)
    others = [each for each in found.get(section, []) if each["name"] != row["name"]]
    found[section] = [*others, row]
    _write(found, path)


def names(section: str, path: Path = PATH) -> set[str]:
    """The rows of a section that were begun."""
    return {row["name"] for row in load(path).get(section, [])}


def load(path: Path = PATH) -> dict[str, Any]:
    """All that was measured."""
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found


def _write(found: dict[str, Any], path: Path) -> None:
    """All or nothing: a process that is ended in between leaves the older file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(".tmp")
    unfinished.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    unfinished.replace(path)
