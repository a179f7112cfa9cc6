"""The service: reading a plan while idle and while another one is computed, processor time per request.

One real process, one client on a kept-alive connection. `blocked` is the longest answer to a cached
read; `baseline` is the same read of the same bytes by a bare ASGI application in another process, so
that a crowded machine shows in both.
"""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import httpx

from benchmarks.arguments import without_arguments
from benchmarks.machine import RESULTS, description
from tests.serving import Serving, chain_request, endless_request, start_service

SECONDS = 5.0
BASELINE = """
import socket, sys, uvicorn
BODY = b"x" * int(sys.argv[1])
async def app(scope, receive, send):
    if scope["type"] == "http":
        head = [(b"content-type", b"application/json"), (b"content-length", str(len(BODY)).encode())]
        await send({"type": "http.response.start", "status": 200, "headers": head})
        await send({"type": "http.response.body", "body": BODY})
listener = socket.create_server(("127.0.0.1", 0))
print(f"http://127.0.0.1:{listener.getsockname()[1]}", flush=True)
uvicorn.Server(uvicorn.Config(app, log_config=None, access_log=False, lifespan="off")).run([listener])
"""


class Reads(NamedTuple):
    """Repeated reads of one plan."""

    count: int
    p50_seconds: float
    p99_seconds: float
    blocked_seconds: float
    """The longest."""
    cpu_seconds_per_request: float
    """Of the whole server process: what it computes besides is in it."""


def read_repeatedly(server: Serving, path: str) -> Reads:
    """Read `path` one request after the other for `SECONDS`."""
    durations = []
    with httpx.Client(base_url=server.url, timeout=30) as client:
        client.get(path)
        cpu_before, end = server.cpu_seconds(), time.perf_counter() + SECONDS
        while (started := time.perf_counter()) < end:
            client.get(path).raise_for_status()
            durations.append(time.perf_counter() - started)
        cpu = server.cpu_seconds() - cpu_before
    durations.sort()
    return Reads(
        count=len(durations),
        p50_seconds=durations[len(durations) // 2],
        p99_seconds=durations[int(len(durations) * 0.99)],
        blocked_seconds=durations[-1],
        cpu_seconds_per_request=cpu / len(durations),
    )


@contextmanager
def planning(server: Serving) -> Iterator[None]:
    """A plan that takes longer than the reads is being computed."""
    host, port = server.url.removeprefix("http://").split(":")
    body = json.dumps(endless_request()).encode()
    head = f"POST /v1/plans HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n"
    with socket.create_connection((host, int(port))) as connection:
        connection.sendall(f"{head}Content-Type: application/json\r\n\r\n".encode() + body)
        time.sleep(1)  # its body has been parsed: that much is paid once, before planning
        yield


@contextmanager
def baseline(size_bytes: int) -> Iterator[Serving]:
    """A bare ASGI application that answers `size_bytes` bytes."""
    command = [sys.executable, "-c", BASELINE, str(size_bytes)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    server = Serving(process, process.stdout.readline().strip(), Path())
    try:
        yield server
    finally:
        server.kill()


def measure() -> dict[str, Reads]:
    """All rows."""
    with tempfile.TemporaryDirectory() as folder:
        server = start_service(Path(folder))
        try:
            made = httpx.post(f"{server.url}/v1/plans", json=chain_request(), timeout=60)
            location = made.headers["location"]
            with baseline(len(made.content)) as bare:
                rows = {"baseline": read_repeatedly(bare, "/")}
                rows["idle"] = read_repeatedly(server, location)
                with planning(server):
                    rows["baseline while planning"] = read_repeatedly(bare, "/")
                    rows["while planning"] = read_repeatedly(server, location)
        finally:
            server.kill()
    return rows


def main() -> int:
    """Measure, print a table, keep the result."""
    rows = measure()
    print(f"{'cached read':26}{'requests':>9}{'p50 ms':>9}{'p99 ms':>9}{'max ms':>9}{'cpu us':>9}")
    for name, row in rows.items():
        times = "".join(f"{1e3 * value:9.2f}" for value in row[1:4])
        print(f"{name:26}{row.count:9}{times}{1e6 * row.cpu_seconds_per_request:9.0f}")
    RESULTS.mkdir(exist_ok=True)
    found = {name: row._asdict() for name, row in rows.items()}
    record = {"machine": description("fastapi", "starlette", "uvicorn", "uvloop"), "rows": found}
    (RESULTS / "service.json").write_text(json.dumps(record, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    without_arguments(__doc__)
    sys.exit(main())
