"""`tightfit serve`: the HTTP service in this process."""

from __future__ import annotations

import argparse
import os
import socket
import sys
from pathlib import Path

import uvicorn

from planner_service.api.app import create_app
from planner_service.api.logs import log_to_stderr
from planner_service.settings import InvalidSetting, Settings
from planner_service.store import DatabaseUnavailable, open_database

LOOPBACK = ("127.0.0.1", "::1", "localhost")


class CannotListen(Exception):
    """The address is taken, or is not this machine's."""


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Register the command."""
    parser = subparsers.add_parser("serve", help="start the planning service")
    parser.add_argument("--host", help="address to listen on (127.0.0.1)")
    parser.add_argument("--port", type=int, help="port to listen on (8080); 0 takes a free one")
    parser.add_argument("--data-dir", type=Path, help="folder of the service's files (tightfit-data)")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Serve until SIGTERM or Ctrl-C. Exit status 2, with one line, when it cannot start."""
    try:
        settings = Settings.from_environ(os.environ, host=args.host, port=args.port, data_dir=args.data_dir)
        open_database(settings.store_url).dispose()
        listener = listen(settings.host, settings.port)
    except (InvalidSetting, DatabaseUnavailable, CannotListen) as error:
        print(f"tightfit serve: {error}", file=sys.stderr)
        return 2
    with listener:
        serve(settings, listener)
    return 0


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens on `host` and `port`. Raises CannotListen."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family)
    except OSError as error:
        reason = error.strerror or str(error)
        raise CannotListen(f"cannot listen on {host} port {port}: {reason}; try another --port") from None


def serve(settings: Settings, listener: socket.socket) -> None:
    """Serve on `listener` until a signal ends it; open requests get `shutdown_seconds` to finish."""
    host, port = listener.getsockname()[:2]
    url = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
    log_to_stderr(settings.log_level)
    if host not in LOOPBACK:
        print(f"warning: {url} is open to other machines, and asks nobody who they are", file=sys.stderr)
    config = uvicorn.Config(
        create_app(settings, on_ready=lambda: print(f"tightfit serves on {url}", flush=True)),
        log_config=None,
        access_log=False,
        server_header=False,
        lifespan="on",
        timeout_graceful_shutdown=round(settings.shutdown_seconds),
    )
    try:
        uvicorn.Server(config).run(sockets=[listener])
    except KeyboardInterrupt:  # uvicorn has shut down in order and hands the signal on
        print("stopped", file=sys.stderr)
