"""JSONPatch (RFC 6902), `add` and `replace`, applied by code that shares nothing with the service."""

from __future__ import annotations

import copy
from typing import Any


def applied(document: Any, operations: list[dict[str, Any]]) -> Any:
    """The document after the operations; KeyError or IndexError where a parent is missing."""
    result = copy.deepcopy(document)
    for operation in operations:
        assert operation["op"] in {"add", "replace"}
        *parents, last = [
            part.replace("~1", "/").replace("~0", "~") for part in operation["path"].split("/")[1:]
        ]
        target = result
        for part in parents:
            target = target[int(part)] if isinstance(target, list) else target[part]
        if isinstance(target, list):
            target.insert(len(target) if last == "-" else int(last), operation["value"])
        else:
            assert operation["op"] == "add" or last in target, "what is replaced must be there"
            target[last] = operation["value"]
    return result
