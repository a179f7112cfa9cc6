"""What an installation takes: every package pinned, pins that go together, one version everywhere."""

from __future__ import annotations

import json
import re
import tomllib
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.lowest_bounds import least, promised

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
PINS = {
    canonicalize_name(name): version
    for name, version in re.findall(r"^(\S+)==(\S+)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
}
OF_NVIDIA = ("nvidia-", "cuda-")
"""What torch's CUDA build asks for, each by its exact version; other builds ask for none of them."""
TRITON_OF_TORCH = {"2.13.0": "3.7.1"}
"""What torch's build for Linux on the package index asks for; with any other version `make` fails there."""


def needed() -> set[str]:
    """Every package that the extras and the groups bring here, the indirect ones too."""
    groups = [entry for group in PROJECT["dependency-groups"].values() for entry in group]
    extras = [entry for extra in PROJECT["project"]["optional-dependencies"].values() for entry in extra]
    waiting = [
        entry for entry in PROJECT["project"]["dependencies"] + extras + groups if isinstance(entry, str)
    ]
    seen: dict[str, set[str]] = {}
    while waiting:
        requirement = Requirement(waiting.pop())
        name, wanted = canonicalize_name(requirement.name), {"", *requirement.extras}
        if wanted <= seen.get(name, set()):
            continue
        seen[name] = seen.get(name, set()) | wanted
        waiting += _asked_for(name, seen[name])
    return set(seen)


def _asked_for(name: str, extras: set[str]) -> list[str]:
    try:
        entries = metadata.requires(name) or []
    except metadata.PackageNotFoundError:  # a group that is not installed here, another system's package
        return []
    # The extra "" stands for what is needed always.
    return [
        entry.partition(";")[0]
        for entry in entries
        if (marker := Requirement(entry).marker) is None
        or any(marker.evaluate({"extra": each}) for each in extras)
    ]


def test_every_package_that_is_installed_is_pinned():
    """constraints.txt names a version for all that `make` installs, what torch needs included but for CUDA"""
    assert {name for name in needed() - set(PINS) if not name.startswith(OF_NVIDIA)} == set()


def test_every_package_has_a_least_version_that_its_pin_keeps():
    """What `make test-lowest` installs is one version of each, and the suite's own is no older"""
    assert all(least(each) for each in promised())
    assert [
        str(each) for each in promised() if PINS[canonicalize_name(each.name)] not in each.specifier
    ] == []


def test_triton_is_the_one_that_torch_takes():
    """The two pins move together: with any other Triton, pip finds no solution for torch's Linux build"""
    assert PINS["triton"] == TRITON_OF_TORCH[PINS["torch"]]


def test_the_version_is_the_same_everywhere():
    """The distribution, the OpenAPI document and pyproject.toml tell one version"""
    described = json.loads((ROOT / "openapi" / "openapi.json").read_text(encoding="utf-8"))["info"]["version"]
    assert PROJECT["project"]["version"] == described == metadata.version("tightfit")
