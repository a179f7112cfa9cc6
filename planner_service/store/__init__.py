"""What the service remembers: plans and measurements, in SQLite or another SQL database."""

from planner_service.store.database import DatabaseUnavailable, open_database
from planner_service.store.measurements import MeasurementStore
from planner_service.store.plans import PlanStore, StoredPlan

__all__ = ["DatabaseUnavailable", "MeasurementStore", "PlanStore", "StoredPlan", "open_database"]
