"""The least versions that pyproject.toml promises to work with, as a file for `pip install --requirement`.

python -m tests.lowest_bounds > bounds.txt

For the planner's side, the extras and the tests' packages included; torch's builds are too large to be
installed for this.
"""

from __future__ import annotations

import sys
import tomllib
from collections.abc import Iterable
from pathlib import Path

from packaging.requirements import Requirement

PYPROJECT = Path(__file__).parent.parent / "pyproject.toml"
LEFT_OUT = {"torch", "triton"}


def promised() -> list[Requirement]:
    """What users and the tests ask for by name: dependencies, every extra, the group `test`."""
    document = tomllib.loads(PYPROJECT.read_text(encoding="utf-8"))
    project = document["project"]
    extras = [entry for extra in project["optional-dependencies"].values() for entry in extra]
    return [
        Requirement(entry)
        for entry in [*project["dependencies"], *extras, *document["dependency-groups"]["test"]]
    ]


def least(requirement: Requirement) -> str:
    """The least version that `requirement` allows. Raises ValueError unless it is `>=` one version."""
    (only,) = requirement.specifier
    if only.operator != ">=":
        raise ValueError(f"no least version: {requirement}")
    return only.version


def pinned(requirements: Iterable[Requirement]) -> Iterable[str]:
    """The lines of the file: each requirement at its least version, markers kept."""
    for requirement in requirements:
        extras = f"[{','.join(sorted(requirement.extras))}]" if requirement.extras else ""
        marker = f"; {requirement.marker}" if requirement.marker else ""
        yield f"{requirement.name}{extras}=={least(requirement)}{marker}"


if __name__ == "__main__":
    wanted = [requirement for requirement in promised() if requirement.name not in LEFT_OUT]
    sys.stdout.writelines(f"{line}\n" for line in pinned(wanted))
