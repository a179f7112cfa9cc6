"""`tightfit openapi`: the service's description, from the code."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from planner_service.settings import Settings


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Register the command."""
    parser = subparsers.add_parser(
        "openapi",
        help="write the service's OpenAPI document",
        description="Write the OpenAPI document that the service gives at /openapi.json.",
    )
    parser.add_argument("--output", type=Path, help="file to write (standard output)")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Write the document."""
    text = document_text()
    if args.output is None:
        sys.stdout.write(text)
    else:
        try:
            args.output.parent.mkdir(parents=True, exist_ok=True)
            args.output.write_text(text, encoding="utf-8")
        except OSError as error:
            print(f"tightfit openapi: {args.output} cannot be written: {error.strerror}", file=sys.stderr)
            return 2
    return 0


def document_text() -> str:
    """The OpenAPI document as it is kept in the repository."""
    from planner_service.api.app import create_app  # loads the web framework: only for this command

    return json.dumps(create_app(Settings()).openapi(), indent=2, ensure_ascii=False) + "\n"
