"""The files of recorded answers."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

GOLDEN = Path(__file__).parent.parent / "golden"


@cache
def golden(name: str) -> dict[str, Any]:
    """The golden file `name`.json."""
    return json.loads((GOLDEN / f"{name}.json").read_text())
