"""Memory of a service whose cache of answers is full: new plans go on, its size does not.

    python -m benchmarks.service.memory [--plans 1200]

The cache is given a quarter of a MiB, which a few hundred plans fill, so that the bound is seen at work.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import httpx

from benchmarks.machine import RESULTS, description
from benchmarks.service.load import Connection, post, resident_bytes
from tests.serving import Serving, chain_request, start_service

CAPACITY_BYTES = 2**18
LOOKS = 6


async def fill(server: Serving, plans: int) -> dict[str, Any]:
    """Ask for so many new plans; what the cache holds and what the process takes, LOOKS times."""
    connection = await Connection.open(server.url)
    cached, resident = [], []
    for number in range(plans):
        assert await connection.ask(post("/v1/plans", chain_request(count=100 + number))) == 201
        if (number + 1) % (plans // LOOKS) == 0:
            cached.append(cached_bytes(server))
            resident.append(round(resident_bytes(server) / 2**20, 1))
    connection.close()
    return {
        "plans": plans,
        "capacity_bytes": CAPACITY_BYTES,
        "cached_bytes": cached,
        "resident_mib": resident,
    }


def cached_bytes(server: Serving) -> int:
    """Answers that the service keeps in memory, in bytes, as it says itself."""
    text = httpx.get(f"{server.url}/metrics", timeout=60).text
    (line,) = [line for line in text.splitlines() if line.startswith("tightfit_reply_cache_bytes ")]
    return round(float(line.split()[1]))


def main() -> int:
    """Measure, print, keep the result; 1 when the cache went beyond its bound."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.service.memory", description=__doc__)
    parser.add_argument("--plans", type=int, default=1200)
    plans = parser.parse_args().plans
    with tempfile.TemporaryDirectory() as folder:
        server = start_service(Path(folder), TIGHTFIT_REPLY_CACHE_BYTES=str(CAPACITY_BYTES))
        try:
            found = asyncio.run(fill(server, plans))
        finally:
            server.kill()
    print(json.dumps(found))
    result = {"machine": description("fastapi", "starlette", "uvicorn"), "full_cache": found}
    (RESULTS / "service-memory.json").write_text(json.dumps(result, indent=2) + "\n")
    return int(max(found["cached_bytes"]) > CAPACITY_BYTES)


if __name__ == "__main__":
    sys.exit(main())
