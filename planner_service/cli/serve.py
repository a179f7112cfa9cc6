"""`tightfit serve`: the HTTP service in this process."""

from __future__ import annotations

import argparse
import os
import sys
import time
from dataclasses import replace
from pathlib import Path
from socket import socket

from planner_service.cli.local_worker import LocalWorker, WorkerNotInstalled
from planner_service.security import new_api_key, scopes_of
from planner_service.settings import InvalidSetting, Settings, settings_lines

_EPILOG = """\
examples:
  tightfit serve --with-worker     plans over HTTP, and the jobs are trained here
  tightfit serve --host 0.0.0.0    for other machines; make a key first: `tightfit keys create`
  TIGHTFIT_DATABASE_URL=postgresql+psycopg://… tightfit serve

Everything else is set by variables of the environment; the options above win over theirs (TIGHTFIT_HOST,
TIGHTFIT_PORT, TIGHTFIT_DATA_DIR). With their defaults:

{settings}

exit status: 2 when it cannot start, with one line that says why, 75 when its database may answer later; else
it dies of the signal that ends it.
"""
NOT_YET = 75
"""EX_TEMPFAIL: whoever watches over the service may start it again."""


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Register the command."""
    parser = subparsers.add_parser(
        "serve",
        help="start the planning service",
        description="Answer plans, frontiers, comparisons, simulations, placements and jobs over HTTP until "
        "SIGTERM or Ctrl-C.",
        epilog=_EPILOG.format(settings=settings_lines()),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--host", help="address to listen on (127.0.0.1)")
    parser.add_argument("--port", type=int, help="port to listen on (8080); 0 takes a free one")
    parser.add_argument("--data-dir", type=Path, help="folder of the service's files (tightfit-data)")
    parser.add_argument(
        "--with-worker", action="store_true", help="train the jobs on this machine too (needs torch)"
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Serve until SIGTERM or Ctrl-C. Exit status 2 or NOT_YET, with one line, when it cannot start."""
    try:
        settings = Settings.from_environ(os.environ, host=args.host, port=args.port, data_dir=args.data_dir)
    except InvalidSetting as error:
        return _refuse(error)
    # The web framework loads here, so that the other commands need not wait for it.
    from planner_service.api.jobs.collector import collector_paused

    with collector_paused():
        return _started(settings, with_worker=args.with_worker)


def _started(settings: Settings, *, with_worker: bool) -> int:
    from planner_service.api.access.credentials import KeysNeeded
    from planner_service.api.certificate import require_certificate
    from planner_service.api.jobs.dispatching import cluster_holes
    from planner_service.api.server import CannotListen, listen
    from planner_service.api.watching.telemetry import require_exporter
    from planner_service.store import DatabaseUnavailable

    try:
        cluster_holes(settings)
        require_certificate(settings)
        require_exporter(settings)
        _require_start(settings)
        listener = listen(settings.host, settings.port)
    except DatabaseUnavailable as error:
        return _refuse(error, NOT_YET if error.may_pass else 2)
    except (CannotListen, KeysNeeded, InvalidSetting) as error:
        return _refuse(error)
    with listener:
        try:
            _serve(settings, listener, with_worker=with_worker)
        except WorkerNotInstalled as error:
            return _refuse(error)
    return 0


def _require_start(settings: Settings) -> None:
    """Raises DatabaseUnavailable, KeysNeeded or InvalidSetting where the service could not start."""
    from planner_service.api.access.credentials import Credentials, require_keys
    from planner_service.store import open_database

    engine = open_database(settings.store_url)
    try:
        require_keys(settings, engine)
        Credentials(settings, engine)
    finally:
        engine.dispose()


def _refuse(error: Exception, status: int = 2) -> int:
    print(f"tightfit serve: {error}", file=sys.stderr)
    return status


def _serve(settings: Settings, listener: socket, *, with_worker: bool) -> None:
    from planner_service.api.server import serve, url_for_workers, url_of

    scheme = "https" if settings.tls_certificate_file else "http"
    url = url_of(listener, scheme)
    settings = replace(settings, planner_url=settings.planner_url or url_for_workers(listener, scheme))
    print(f"starting on {url}: loading the solvers", file=sys.stderr)
    worker_key, kept_key = new_api_key("local-worker", scopes_of(["worker"]), now=time.time())
    # A certificate is for the name under which the others ask, too.
    asked = settings.planner_url if scheme == "https" else url
    worker = LocalWorker(settings, asked, os.environ, api_key=worker_key) if with_worker else None

    def on_ready() -> None:
        print(f"tightfit serves on {url}", flush=True)
        if worker is not None:
            worker.start()

    try:
        before_exit = None if worker is None else worker.stop
        serve(settings, listener, on_ready, own_keys=[kept_key], before_exit=before_exit)
    except KeyboardInterrupt:  # uvicorn has closed everything and hands the signal on
        print("stopped", file=sys.stderr)
