"""The profiles that come with the package: data files beside the code, read once."""

from __future__ import annotations

import json
from functools import cache
from importlib.resources import files

from planner_service.memory.profile import Profile, profile_from_record


@cache
def shipped_profiles() -> tuple[Profile, ...]:
    """Every profile in `profiles/*.json`, each file a list of probe records, in order of the names."""
    folder = files("planner_service.memory") / "profiles"
    if not folder.is_dir():
        return ()
    texts = [
        entry.read_text(encoding="utf-8")
        for entry in sorted(folder.iterdir(), key=lambda entry: entry.name)
        if entry.name.endswith(".json")
    ]
    return tuple(profile_from_record(record) for text in texts for record in json.loads(text))
