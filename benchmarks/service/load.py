"""What a request costs the service, and how it bears 200 clients at once.

    python -m benchmarks.service.load [--seconds 60]

Processor time is the server's own, from /proc, per request: a crowded machine makes requests slower, not
dearer. Each row is read three times, the least is kept beside all three. The clients of the mix are
processes of their own on the same machine, so its latencies include their share of the cores.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import httpx

from benchmarks.machine import RESULTS, description
from benchmarks.service.__main__ import baseline
from tests.api.guarded import make_key
from tests.serving import Serving, chain_request, endless_request, start_service

CONNECTIONS = 8
REPEATS = 3
REQUESTS = 4000
CLIENTS = 200
DOCUMENTED = {200, 201, 304, 422, 429, 503}


class Connection:
    """One kept-alive connection that sends ready bytes and drops answers: next to no work of its own."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    @classmethod
    async def open(cls, url: str) -> Connection:
        """Connect to the service."""
        host, port = url.removeprefix("http://").split(":")
        return cls(*await asyncio.open_connection(host, int(port)))

    async def ask(self, request: bytes) -> int:
        """Send a request, drop the body of its answer, return the status."""
        self._writer.write(request)
        head = await self._reader.readuntil(b"\r\n\r\n")
        length = head.lower().partition(b"content-length:")[2].partition(b"\r")[0]
        await self._reader.readexactly(int(length or b"0"))
        return int(head[9:12])

    def close(self) -> None:
        """Hang up."""
        self._writer.close()


def get(path: str, *, key: str | None = None) -> bytes:
    """A GET as bytes."""
    bearer = f"Authorization: Bearer {key}\r\n" if key else ""
    return f"GET {path} HTTP/1.1\r\nHost: localhost\r\n{bearer}\r\n".encode()


def post(path: str, document: dict[str, Any], *, key: str | None = None) -> bytes:
    """A POST as bytes."""
    body = json.dumps(document).encode()
    bearer = f"Authorization: Bearer {key}\r\n" if key else ""
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n{bearer}"
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


async def repeat(url: str, request: bytes) -> float:
    """Send `request` REQUESTS times over a few connections; requests per second."""
    connections = [await Connection.open(url) for _ in range(CONNECTIONS)]

    async def many(connection: Connection) -> None:
        for _ in range(REQUESTS // CONNECTIONS):
            assert await connection.ask(request) == 200

    started = time.perf_counter()
    await asyncio.gather(*map(many, connections))
    seconds = time.perf_counter() - started
    for connection in connections:
        connection.close()
    return REQUESTS / seconds


def price(server: Serving, request: bytes) -> dict[str, Any]:
    """Processor microseconds of the server per request, and the rate at which they were answered."""
    asyncio.run(repeat(server.url, request))  # warm
    microseconds, rates = [], []
    for _ in range(REPEATS):
        before = server.cpu_seconds()
        rates.append(round(asyncio.run(repeat(server.url, request))))
        microseconds.append(round(1e6 * (server.cpu_seconds() - before) / REQUESTS, 1))
    return {"cpu_us": min(microseconds), "all_cpu_us": microseconds, "requests_per_second": max(rates)}


def prices() -> dict[str, dict[str, Any]]:
    """Every row of what one request costs."""
    with tempfile.TemporaryDirectory() as folder:
        data_dir = Path(folder)
        key = make_key(data_dir, "load", "read", "plan")
        rows = {}
        with baseline(1000) as bare:
            rows["bare uvicorn, 1,000 bytes"] = price(bare, get("/"))
        for name, environ, sent in (
            ("", {}, None),
            (", with a key", {"TIGHTFIT_AUTHENTICATION": "always", "TIGHTFIT_REQUESTS_PER_SECOND": "0"}, key),
        ):
            server = start_service(data_dir, **environ)
            try:
                headers = {"authorization": f"Bearer {key}"}
                made = httpx.post(f"{server.url}/v1/plans", json=chain_request(), headers=headers, timeout=60)
                rows[f"cached plan by id{name}"] = price(server, get(made.headers["location"], key=sent))
                rows[f"POST of a known request{name}"] = price(
                    server, post("/v1/plans", chain_request(), key=sent)
                )
            finally:
                server.kill()
    return rows


async def blocked_seconds(server: Serving) -> dict[str, float]:
    """The longest of the answers to /healthz, before and while a plan of 4,000 stages is read and made."""
    connection = await Connection.open(server.url)
    planner = await Connection.open(server.url)

    async def longest(seconds: float) -> float:
        worst, end = 0.0, time.perf_counter() + seconds
        while (started := time.perf_counter()) < end:
            await connection.ask(get("/healthz"))
            worst = max(worst, time.perf_counter() - started)
            await asyncio.sleep(0.001)
        return worst

    idle = await longest(2)
    plan = asyncio.create_task(planner.ask(post("/v1/plans", endless_request())))
    planning = await longest(2)
    plan.cancel()
    planner.close()
    connection.close()
    return {"idle": round(1e3 * idle, 1), "planning": round(1e3 * planning, 1)}


class Mix:
    """200 clients: most read cached plans, some ask for new ones, some for what cannot be."""

    def __init__(self, server: Serving, locations: list[str]) -> None:
        self._server = server
        self._reads = [get(location) for location in locations]
        self.statuses: Counter[str] = Counter()
        self.read_seconds: list[float] = []
        self._fresh = 100

    def _next(self, draw: random.Random) -> tuple[str, bytes]:
        chance = draw.random()
        if chance < 0.90:
            return "cached", draw.choice(self._reads)
        if chance < 0.95:
            self._fresh += 1
            return "new", post("/v1/plans", chain_request(budget_bytes=60, count=self._fresh))
        return "refused", post("/v1/plans", chain_request(budget_bytes=1))

    async def client(self, seed: int, end: float) -> None:
        """One client until `end`, thinking as long as people's programs do."""
        draw = random.Random(seed)
        connection = await Connection.open(self._server.url)
        while time.perf_counter() < end:
            kind, request = self._next(draw)
            started = time.perf_counter()
            status = await connection.ask(request)
            if kind == "cached":
                self.read_seconds.append(time.perf_counter() - started)
            self.statuses[f"{kind} {status}"] += 1
            await asyncio.sleep(draw.random() * 0.4)
        connection.close()


async def mixed(server: Serving, seconds: float) -> dict[str, Any]:
    """The mix for so long; statuses, latencies of cached reads, and the server's memory over time."""
    async with httpx.AsyncClient(base_url=server.url, timeout=60) as client:
        made = [await client.post("/v1/plans", json=chain_request(budget_bytes=60 + n)) for n in range(20)]
    mix = Mix(server, [answer.headers["location"] for answer in made])
    await asyncio.gather(*(mix.client(seed, time.perf_counter() + 5) for seed in range(CLIENTS)))
    mix.statuses.clear()
    mix.read_seconds.clear()
    memory = [resident_bytes(server)]
    end = time.perf_counter() + seconds

    async def watch() -> None:
        while time.perf_counter() < end:
            await asyncio.sleep(seconds / 6)
            memory.append(resident_bytes(server))

    await asyncio.gather(watch(), *(mix.client(1000 + seed, end) for seed in range(CLIENTS)))
    durations = sorted(mix.read_seconds)
    return {
        "clients": CLIENTS,
        "seconds": seconds,
        "statuses": dict(sorted(mix.statuses.items())),
        "undocumented": sum(n for name, n in mix.statuses.items() if int(name[-3:]) not in DOCUMENTED),
        "read_p50_ms": round(1e3 * durations[len(durations) // 2], 2),
        "read_p99_ms": round(1e3 * durations[int(len(durations) * 0.99)], 2),
        "read_max_ms": round(1e3 * durations[-1], 2),
        "resident_mib": [round(value / 2**20, 1) for value in memory],
    }


def resident_bytes(server: Serving) -> int:
    """Memory of the server that is in use, in bytes."""
    (line,) = [
        line
        for line in Path(f"/proc/{server.process.pid}/status").read_text().splitlines()
        if line.startswith("VmRSS")
    ]
    return int(line.split()[1]) * 1024


def with_service(measure: Callable[[Serving], Coroutine[Any, Any, dict[str, Any]]]) -> dict[str, Any]:
    """What `measure` finds on a service of its own."""
    with tempfile.TemporaryDirectory() as folder:
        server = start_service(Path(folder))
        try:
            return asyncio.run(measure(server))
        finally:
            server.kill()


def main() -> int:
    """Measure, print, keep the result; 1 when somebody got an answer that is not documented."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.service.load", description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0)
    seconds = parser.parse_args().seconds
    found = {
        "machine": description("fastapi", "starlette", "uvicorn", "uvloop", "httptools"),
        "prices": prices(),
        "longest_answer_ms": with_service(blocked_seconds),
        "mix": with_service(lambda server: mixed(server, seconds)),
    }
    print(json.dumps(found, indent=2))
    (RESULTS / "service-load.json").write_text(json.dumps(found, indent=2) + "\n")
    return int(found["mix"]["undocumented"] > 0)


if __name__ == "__main__":
    sys.exit(main())
