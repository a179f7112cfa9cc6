"""The command line of a benchmark that takes none."""

from __future__ import annotations

import argparse
import sys


def without_arguments(text: str | None) -> None:
    """Show `text` on --help and refuse everything else, before minutes of measuring replace a result."""
    spec = getattr(sys.modules["__main__"], "__spec__", None)
    name = spec.name.removesuffix(".__main__") if spec is not None else sys.argv[0]
    raw = argparse.RawDescriptionHelpFormatter
    argparse.ArgumentParser(prog=f"python -m {name}", description=text, formatter_class=raw).parse_args()
