"""Schemathesis against a service of its own: `make fuzz`, and a test with fewer examples.

python -m tests.api.fuzzing [--max-examples 50]
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.serving import start_service

ROOT = Path(__file__).parent.parent.parent


def fuzz(data_dir: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """All checks over the whole contract; a plan gets half a second, so that none holds the others up."""
    service = start_service(data_dir, TIGHTFIT_PLANNING_TIMEOUT_SECONDS="0.5")
    program = str(Path(sys.executable).parent / "schemathesis")
    command = [
        *(program, "run", f"{service.url}/openapi.json", "--checks", "all", "--no-color"),
        *("--request-timeout", "30", "--generation-database", "none", *arguments),
    ]
    try:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
        assert service.process.poll() is None, "the service is gone"
    finally:
        service.kill()
    return done


def main() -> int:
    """Fuzz with many examples; schemathesis's own exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.api.fuzzing", description=__doc__)
    parser.add_argument("--max-examples", default="50")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        phases = "examples,coverage,fuzzing,stateful"
        done = fuzz(Path(folder), "--phases", phases, "--max-examples", given.max_examples)
    sys.stdout.write(done.stdout + done.stderr)
    return done.returncode


if __name__ == "__main__":
    sys.exit(main())
