"""Run the benchmarks: `python -m benchmarks [NAME …]`; without a name, all but `gpu`."""

from __future__ import annotations

import argparse
import ast
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
ONLY_WHEN_ASKED = {"gpu"}


def available() -> dict[str, str]:
    """Every folder here that can be run, with the first line of its docstring."""
    mains = sorted(HERE.glob("*/__main__.py"))
    return {path.parent.name: _first_line(path) for path in mains}


def _first_line(path: Path) -> str:
    return (ast.get_docstring(ast.parse(path.read_text())) or "").partition("\n")[0]


def main() -> int:
    """Run the chosen benchmarks one after the other; the exit status is the worst of theirs."""
    found = available()
    listed = "\n".join(f"  {name:12} {text}" for name, text in found.items())
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="Ratios against the peers and our own baselines, each measured in one run.",
        epilog=f"benchmarks:\n{listed}\n\nOptions of one: python -m benchmarks.planner --help",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help="which to run (default: all but gpu)")
    names = parser.parse_args().names
    if unknown := sorted(set(names) - set(found)):
        parser.error(f"unknown benchmark {', '.join(unknown)}: choose from {', '.join(found)}")
    worst = 0
    for name in names or sorted(set(found) - ONLY_WHEN_ASKED):
        print(f"== {name}: {found[name]}", flush=True)
        done = subprocess.run([sys.executable, "-m", f"benchmarks.{name}"], check=False)
        worst = max(worst, done.returncode)
    return worst


if __name__ == "__main__":
    sys.exit(main())
