"""`tightfit serve`: the HTTP service in this process."""

from __future__ import annotations

import argparse
import os
import sys
from dataclasses import replace
from pathlib import Path
from socket import socket

from planner_service.cli.local_worker import LocalWorker, WorkerNotInstalled
from planner_service.settings import InvalidSetting, Settings


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Register the command."""
    parser = subparsers.add_parser("serve", help="start the planning service")
    parser.add_argument("--host", help="address to listen on (127.0.0.1)")
    parser.add_argument("--port", type=int, help="port to listen on (8080); 0 takes a free one")
    parser.add_argument("--data-dir", type=Path, help="folder of the service's files (tightfit-data)")
    parser.add_argument(
        "--with-worker", action="store_true", help="train the jobs on this machine too (needs torch)"
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Serve until SIGTERM or Ctrl-C. Exit status 2, with one line, when it cannot start."""
    try:
        settings = Settings.from_environ(os.environ, host=args.host, port=args.port, data_dir=args.data_dir)
    except InvalidSetting as error:
        return _refuse(error)
    # The web framework loads here, so that the other commands need not wait for it.
    from planner_service.api.dispatching import cluster_holes
    from planner_service.api.server import CannotListen, listen
    from planner_service.store import DatabaseUnavailable, open_database

    try:
        cluster_holes(settings)
        open_database(settings.store_url).dispose()
        listener = listen(settings.host, settings.port)
    except (DatabaseUnavailable, CannotListen, InvalidSetting) as error:
        return _refuse(error)
    with listener:
        try:
            _serve(settings, listener, with_worker=args.with_worker)
        except WorkerNotInstalled as error:
            return _refuse(error)
    return 0


def _refuse(error: Exception) -> int:
    print(f"tightfit serve: {error}", file=sys.stderr)
    return 2


def _serve(settings: Settings, listener: socket, *, with_worker: bool) -> None:
    from planner_service.api.server import is_open_to_others, serve, url_for_workers, url_of

    scheme = "https" if settings.tls_certificate_file else "http"
    url = url_of(listener, scheme)
    settings = replace(settings, planner_url=settings.planner_url or url_for_workers(listener, scheme))
    if is_open_to_others(listener):
        print(f"warning: {url} is open to other machines, and asks nobody who they are", file=sys.stderr)
    print(f"starting on {url}: loading the solvers", file=sys.stderr)
    worker = LocalWorker(settings, url, os.environ) if with_worker else None

    def on_ready() -> None:
        print(f"tightfit serves on {url}", flush=True)
        if worker is not None:
            worker.start()

    try:
        serve(settings, listener, on_ready, before_exit=None if worker is None else worker.stop)
    except KeyboardInterrupt:  # uvicorn has closed everything and hands the signal on
        print("stopped", file=sys.stderr)
