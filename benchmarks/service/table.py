"""The page benchmarks/service/README.md from the result files: python -m benchmarks.service.table"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from benchmarks.arguments import without_arguments
from benchmarks.machine import RESULTS

PAGE = Path(__file__).parent / "README.md"
HEAD = """\
# What the service costs, and what it bears

Written by `python -m benchmarks.service.table` from `benchmarks/results/service-*.json`. Each part says when
and on what it was measured; the load average tells how much else ran on the machine, and a negative
niceness that it had to give way.
"""


def page() -> str:
    """The whole page; parts that were not measured are left out."""
    parts = [HEAD]
    for name, part in (("load", _load), ("memory", _memory), ("restart", _restart), ("claims", _claims)):
        path = RESULTS / f"service-{name}.json"
        if path.exists():
            found = json.loads(path.read_text())
            command = f"`python -m benchmarks.service.{name}`, {_machine(found['machine'])}."
            parts.append(f"{part(found)}\n{command}\n")
    return "\n".join(parts)


def _machine(machine: dict[str, Any]) -> str:
    load, niceness = machine["load_average"][0], machine.get("niceness", 0)
    shared = f"load average {load:.1f}" + (f", niceness {niceness}" if niceness else "")
    return f"{machine['date']}, {machine['cores']} cores of {machine['processor']}, {shared}"


def _load(found: dict[str, Any]) -> str:
    rows = "\n".join(
        f"| {name} | {row['cpu_us']:.0f} | {row['requests_per_second']:,} |"
        for name, row in found["prices"].items()
    )
    mix, block = found["mix"], found["longest_answer_ms"]
    statuses = ", ".join(f"{count:,} x {name}" for name, count in mix["statuses"].items())
    return f"""\
## A request, and 200 clients at once

| request | processor time of the server, µs | answered per second |
|---|---|---|
{rows}

The longest answer to `/healthz` in two seconds: {block["idle"]} ms while idle, {block["planning"]} ms
while a plan of 4,000 stages is read and computed.

{mix["clients"]} clients for {mix["seconds"]:.0f} s, nine of ten requests for a cached plan, the others for
new ones and for what cannot be: {statuses}. Answers that are not documented: {mix["undocumented"]}.
Cached reads: median {mix["read_p50_ms"]} ms, p99 {mix["read_p99_ms"]} ms, longest {mix["read_max_ms"]} ms.
Memory of the server over the run, MiB: {", ".join(map(str, mix["resident_mib"]))}.
"""


def _memory(found: dict[str, Any]) -> str:
    full = found["full_cache"]
    cached = ", ".join(f"{amount / 1024:.0f}" for amount in full["cached_bytes"])
    return f"""\
## When the cache of answers is full

{full["plans"]:,} new plans, one after the other, at a service whose cache may hold
{full["capacity_bytes"] // 1024} KiB. The cache over the run, KiB: {cached}.
Memory of the server, MiB: {", ".join(map(str, full["resident_mib"]))}.
"""


def _restart(found: dict[str, Any]) -> str:
    rows = "\n".join(
        f"| {name} | {', '.join(f'{one:.2f}' for one in seconds)} |"
        for name, seconds in found["kill_to_ready_seconds"].items()
    )
    return f"## From kill -9 to ready\n\n| stored | seconds |\n|---|---|\n{rows}\n"


def _claims(found: dict[str, Any]) -> str:
    rows = "\n".join(
        f"| {name} | {row['jobs']:,} | {row['claimed_twice']} | {row['never_claimed']} | "
        f"{row['claims_per_second']} |"
        for name, row in found["claims"].items()
    )
    head = "| database | jobs | claimed twice | never claimed | claims per second |\n|---|---|---|---|---|"
    return f"## Two workers that claim at once\n\n{head}\n{rows}\n"


def main() -> int:
    """Write the page."""
    PAGE.write_text(page())
    return 0


if __name__ == "__main__":
    without_arguments(__doc__)
    sys.exit(main())
