"""Whoever connects has so many bytes and seconds to say what is wanted; bodies and answers have others."""

from __future__ import annotations

import asyncio
import socket
from urllib.parse import urlsplit

import pytest
import uvicorn

from planner_service.api import bounded_heads
from planner_service.api.bounded_heads import MOST_HEAD_BYTES, BoundedHeads

HEAD = b"POST /v1/plans HTTP/1.1\r\nhost: localhost\r\n"
ENDLESS = {
    "a header": HEAD + b"x-name: ",
    "a path": b"GET /",
    "headers": HEAD,
    "trailers": HEAD + b"transfer-encoding: chunked\r\n\r\n1\r\n1\r\n0\r\n",
    "an extension of a chunk": HEAD + b"transfer-encoding: chunked\r\n\r\n1;",
}
MORE = dict.fromkeys(ENDLESS, b"a" * 1000) | dict.fromkeys(
    ("headers", "trailers"), b"x-n: " + b"a" * 993 + b"\r\n"
)


def send_on(connection, piece):
    """Far more than the buffers between two processes hold."""
    for _ in range(500 * MOST_HEAD_BYTES // len(piece)):
        connection.sendall(piece)


@pytest.mark.parametrize("what", ENDLESS)
def test_what_never_ends_is_ended(service, what):
    """A hundred MiB of headers took twice as much memory, and half a minute of the event loop in one piece"""
    address = urlsplit(service.url)
    with socket.create_connection((address.hostname, address.port), timeout=20) as connection:
        connection.sendall(ENDLESS[what])
        with pytest.raises(ConnectionError):
            send_on(connection, MORE[what])
    with socket.create_connection((address.hostname, address.port), timeout=20) as connection:
        connection.sendall(ENDLESS["a header"] + b"a" * (MOST_HEAD_BYTES + 1))
        assert connection.recv(1000).startswith(b"HTTP/1.1 431 ")


async def app(_scope, receive, send):
    """Answers with the length of the body, slowly."""
    length, more = 0, True
    while more:
        message = await receive()
        length, more = length + len(message.get("body", b"")), message.get("more_body", False)
    await asyncio.sleep(0.3)
    told = str(length).encode()
    await send(
        {"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(told))]}
    )
    await send({"type": "http.response.body", "body": told})


def talk(monkeypatch, conversation):
    """What `conversation(reader, writer)` gives, where a head has a tenth of a second."""
    monkeypatch.setattr(bounded_heads, "HEAD_SECONDS", 0.1)

    async def talked():
        listener = socket.create_server(("127.0.0.1", 0))
        config = uvicorn.Config(app, lifespan="off", log_config=None, http=BoundedHeads)
        server = uvicorn.Server(config)
        serving = asyncio.create_task(server.serve(sockets=[listener]))
        while not server.started:
            await asyncio.sleep(0.01)
        reader, writer = await asyncio.open_connection(*listener.getsockname())
        try:
            return await asyncio.wait_for(conversation(reader, writer), 10)
        finally:
            writer.close()
            server.should_exit = True
            await serving

    return asyncio.run(talked())


@pytest.mark.parametrize("begun", [b"", HEAD, HEAD + b"content-length: 1\r\n\r\n1" + HEAD])
def test_a_request_that_does_not_come_is_not_waited_for(monkeypatch, begun):
    async def silence(reader, writer):
        writer.write(begun)
        answers = await reader.read()
        return answers.count(b"HTTP/1.1 200")

    assert talk(monkeypatch, silence) == begun.count(b"content-length")


def test_bodies_and_answers_may_take_their_time(monkeypatch):
    """Several times what a head has, and many times its bytes"""

    async def slow(reader, writer):
        writer.write(HEAD + b"content-length: %d\r\n\r\n" % (3 * MOST_HEAD_BYTES))
        for _ in range(3):
            await asyncio.sleep(0.15)
            writer.write(b"a" * MOST_HEAD_BYTES)
        return await reader.readuntil(b"%d" % (3 * MOST_HEAD_BYTES))

    assert talk(monkeypatch, slow).startswith(b"HTTP/1.1 200")
