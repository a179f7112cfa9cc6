"""What pytest says of its tests, read off its lines: of a run that goes on or was ended, too."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

_IN_PASSING = re.compile(r"(?P<name>\S*::.+) (?P<outcome>[A-Z]+)(?: \(.*\))? +\[ *\d+%\]$")
_FAILURES = ("FAILED", "ERROR")
_IN_SUMMARY = re.compile(r"(?:FAILED|ERROR) (?P<name>.+?)(?: - .*)?$")


def so_far(lines: Sequence[str]) -> str:
    """How many tests have ended how, and at what it is."""
    passing = (_IN_PASSING.match(line) for line in lines)
    outcomes = Counter(found["outcome"].lower() for found in passing if found)
    counts = ", ".join(f"{count} {outcome}" for outcome, count in outcomes.items()) or "no test"
    last = next((line.strip(" =") for line in reversed(lines) if line.strip()), "its beginning")
    return f"{counts} by now, at {last}"


def failures_among(lines: Sequence[str]) -> list[str]:
    """Tests that failed, each once, with as much of the reason as was told: pytest's summary may cut it off,
    and a run that was ended has none.
    """
    found: dict[str, str] = {}
    for line in lines:
        passing = _IN_PASSING.match(line)
        if passing and passing["outcome"] in _FAILURES:
            found[passing["name"]] = f"{passing['outcome']} {passing['name']}"
        elif told := _IN_SUMMARY.match(line):
            found[told["name"]] = max(found.get(told["name"], ""), line, key=len)
    return list(found.values())
