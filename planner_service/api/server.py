"""The service on a socket: listening, serving, stopping."""

from __future__ import annotations

import asyncio
import socket
import sys
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from types import FrameType

import uvicorn
from fastapi import FastAPI

from planner_service.api.app import create_app
from planner_service.api.background import kept_going
from planner_service.api.bounded_heads import BoundedHeads
from planner_service.api.certificate import follow_certificate
from planner_service.api.jobs.collector import settle_collector
from planner_service.api.watching.logs import log_to_stderr
from planner_service.security import ApiKey
from planner_service.settings import Settings

SWITCH_SECONDS = 0.001
"""Longest that a planning thread keeps the interpreter from the event loop, in Python code; kernels do not
hold it. Python's own default is 0.005, and a read may have to wait several times."""

MOST_CONNECTIONS = 65_536


class CannotListen(Exception):
    """The address is taken, or is not this machine's."""


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens on `host` and `port`. Raises CannotListen."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family)
    except OSError as error:
        reason = error.strerror or str(error)
        raise CannotListen(f"cannot listen on {host} port {port}: {reason}; try another --port") from None


def url_of(listener: socket.socket, scheme: str = "http") -> str:
    """Where a client finds the listener."""
    host, port = listener.getsockname()[:2]
    return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"


def url_for_workers(listener: socket.socket, scheme: str = "http") -> str:
    """Where a worker on another machine finds the listener: by this machine's name if it listens to all."""
    host, port = listener.getsockname()[:2]
    if host in {"0.0.0.0", "::"}:  # noqa: S104
        return f"{scheme}://{socket.gethostname()}:{port}"
    return url_of(listener, scheme)


def serve(
    settings: Settings,
    listener: socket.socket,
    on_ready: Callable[[], None],
    *,
    own_keys: Sequence[ApiKey] = (),
    before_exit: Callable[[], None] | None = None,
) -> None:
    """Serve on `listener` until a signal ends it; open requests get `shutdown_seconds` to finish.

    `own_keys` count beside those in the database. `on_ready` is called when the kernels are warm;
    `before_exit` after the first signal, in a thread, while requests are still served: for whoever has
    something to say to the service before it goes. After SIGTERM the process dies of it, once everything
    is closed; Ctrl-C raises KeyboardInterrupt.
    """
    sys.setswitchinterval(SWITCH_SECONDS)
    _allow_connections()
    log_to_stderr(settings.log_level)

    def settle_and_tell() -> None:
        settle_collector()
        on_ready()

    app = create_app(settings, on_ready=settle_and_tell, own_keys=own_keys)
    config = uvicorn.Config(
        app,
        http=BoundedHeads,
        log_config=None,
        access_log=False,
        server_header=False,
        lifespan="on",
        timeout_graceful_shutdown=round(settings.shutdown_seconds),
        ssl_certfile=settings.tls_certificate_file or None,
        ssl_keyfile=settings.tls_key_file or None,
    )
    _Server(config, lambda: _tell_streams(app), before_exit).run(sockets=[listener])


def _allow_connections() -> None:
    """As many as the system lets this process have. Most begin with a thousand, and every watcher of a job
    keeps one: when they are used up, nobody else is answered.
    """
    with suppress(ImportError, OSError, ValueError):  # other systems have other limits
        import resource

        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        if soft < MOST_CONNECTIONS:
            wanted = MOST_CONNECTIONS if hard == resource.RLIM_INFINITY else min(hard, MOST_CONNECTIONS)
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


class _Server(uvicorn.Server):
    """Says when it was asked to end, so that streams do not hold it up, and waits for `before_exit`. Shows a
    certificate that was renewed.
    """

    def __init__(
        self, config: uvicorn.Config, on_exit: Callable[[], None], before_exit: Callable[[], None] | None
    ) -> None:
        super().__init__(config)
        self._on_exit = on_exit
        self._before_exit = before_exit

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen, and look after the certificate until the event loop ends."""
        await super().startup(sockets=sockets)
        context, chain, key = self.config.ssl, self.config.ssl_certfile, self.config.ssl_keyfile
        if context is not None and chain is not None and key is not None:
            follow = partial(follow_certificate, context, Path(chain), Path(key))
            self._following = asyncio.create_task(kept_going(follow))

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """A signal came; a second one is not waited with."""
        self._on_exit()
        before_exit, self._before_exit = self._before_exit, None
        if before_exit is None:
            super().handle_exit(sig, frame)
        else:
            threading.Thread(target=self._exit_after, args=(before_exit, sig), daemon=True).start()

    def _exit_after(self, before_exit: Callable[[], None], sig: int) -> None:
        try:
            before_exit()
        finally:
            super().handle_exit(sig, None)


def _tell_streams(app: FastAPI) -> None:
    service = getattr(app.state, "service", None)
    if service is not None:
        service.is_stopping = True
