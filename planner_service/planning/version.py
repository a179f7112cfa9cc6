"""The planner's version: part of every plan's name."""

PLANNER_VERSION = "8"
"""Raised whenever some request would get another answer than before: a service keeps plans by ids that name
it, and answers from what it kept. `tests/planning/test_version.py` tells when."""
