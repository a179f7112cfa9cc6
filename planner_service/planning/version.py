"""The planner's version: part of every plan's name."""

PLANNER_VERSION = "1"
"""Raised whenever some request would get another answer than before."""
