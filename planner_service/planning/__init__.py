"""The use cases: requests of the wire in, plans out."""

from planner_service.planning.planner import Planner
from planner_service.planning.version import PLANNER_VERSION

__all__ = ["PLANNER_VERSION", "Planner"]
