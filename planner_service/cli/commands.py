"""The commands of `tightfit`, one file each."""

from planner_service.cli import openapi, serve

COMMANDS = (serve, openapi)
