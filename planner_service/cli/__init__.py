"""The shell: `tightfit plan | frontier | compare | simulate | serve | openapi`, one file per command."""

from planner_service.cli.main import main

__all__ = ["main"]
