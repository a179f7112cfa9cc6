"""A renewed certificate is shown to whoever connects from then on, by the service's own server."""

from __future__ import annotations

import asyncio
import socket
import ssl

import pytest
import trustme
import uvicorn

from planner_service.api import certificate
from planner_service.api.server import _Server


async def app(_scope, _receive, _send):
    """Nobody asks it anything."""


class Files:
    """A certificate and its key, as something else writes them."""

    def __init__(self, folder):
        self.chain, self.key = folder / "tls.crt", folder / "tls.key"
        self._authority = trustme.CA()

    def renew(self):
        """A new pair; the certificate as it is shown."""
        made = self._authority.issue_cert("127.0.0.1")
        made.private_key_pem.write_to_path(self.key)
        made.cert_chain_pems[0].write_to_path(self.chain)
        return ssl.PEM_cert_to_DER_cert(self.chain.read_text())


def shown_at(port):
    return ssl.PEM_cert_to_DER_cert(ssl.get_server_certificate(("127.0.0.1", port), timeout=5))


async def becomes(port, certificate_shown):
    """Whether it is shown within a few seconds."""
    for _ in range(200):
        if await asyncio.to_thread(shown_at, port) == certificate_shown:
            return True
        await asyncio.sleep(0.02)
    return False


@pytest.mark.parametrize("spoilt", ["chain", "key"])
def test_a_renewed_certificate_is_shown_and_a_broken_one_is_not(tmp_path, monkeypatch, caplog, spoilt):
    monkeypatch.setattr(certificate, "LOOK_SECONDS", 0.01)
    files = Files(tmp_path)
    first = files.renew()

    async def served():
        listener = socket.create_server(("127.0.0.1", 0))
        port = listener.getsockname()[1]
        config = uvicorn.Config(
            app, lifespan="off", log_config=None, ssl_certfile=files.chain, ssl_keyfile=files.key
        )
        server = _Server(config, lambda: None, None)
        serving = asyncio.create_task(server.serve(sockets=[listener]))
        try:
            assert await becomes(port, first)
            second = files.renew()
            assert await becomes(port, second)
            getattr(files, spoilt).write_text("half a fi")
            while "certificate not read again" not in caplog.text:
                await asyncio.sleep(0.02)
            assert await asyncio.to_thread(shown_at, port) == second
            assert await becomes(port, files.renew())
        finally:
            server.should_exit = True
            await serving

    asyncio.run(asyncio.wait_for(served(), 30))
