"""A real service that asks for keys, and keys for it made by the command."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import httpx

from tests.serving import START, Serving

SCOPES = ("read", "plan", "submit", "worker", "admin")


def tightfit(*arguments: str) -> str:
    """What the command prints; it must succeed."""
    done = subprocess.run([sys.executable, "-c", START, *arguments], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def make_key(data_dir: Path, name: str, *scopes: str) -> str:
    """A key of `tightfit keys create`."""
    wanted = [word for scope in scopes for word in ("--scope", scope)]
    return tightfit("keys", "create", name, *wanted, "--data-dir", str(data_dir))


def client_with(service: Serving, key: str | None) -> httpx.Client:
    """A client that sends `key`."""
    headers = {} if key is None else {"authorization": f"Bearer {key}"}
    return httpx.Client(base_url=service.url, headers=headers, timeout=60)
