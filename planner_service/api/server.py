"""The service on a socket: listening, serving, stopping."""

from __future__ import annotations

import socket
from collections.abc import Callable

import uvicorn

from planner_service.api.app import create_app
from planner_service.api.logs import log_to_stderr
from planner_service.settings import Settings

_LOOPBACK = ("127.0.0.1", "::1")


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


def url_of(listener: socket.socket) -> str:
    """Where a client finds the listener."""
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def is_open_to_others(listener: socket.socket) -> bool:
    """Whether other machines may reach the listener."""
    return listener.getsockname()[0] not in _LOOPBACK


def serve(settings: Settings, listener: socket.socket, on_ready: Callable[[], None]) -> None:
    """Serve on `listener` until a signal ends it; open requests get `shutdown_seconds` to finish.

    `on_ready` is called when the kernels are warm. After SIGTERM the process dies of it, once
    everything is closed; Ctrl-C raises KeyboardInterrupt.
    """
    log_to_stderr(settings.log_level)
    config = uvicorn.Config(
        create_app(settings, on_ready=on_ready),
        log_config=None,
        access_log=False,
        server_header=False,
        lifespan="on",
        timeout_graceful_shutdown=round(settings.shutdown_seconds),
    )
    uvicorn.Server(config).run(sockets=[listener])
