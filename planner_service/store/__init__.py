"""What the service remembers: plans, jobs and measurements, in SQLite or PostgreSQL."""

from planner_service.store.attempts import AttemptCall, AttemptStore
from planner_service.store.audit import AuditStore
from planner_service.store.database import DatabaseUnavailable, open_database
from planner_service.store.job_history import EventsAfter, JobHistory
from planner_service.store.job_queue import HandedOver, JobQueue
from planner_service.store.jobs import JobStore
from planner_service.store.keys import KeyStore
from planner_service.store.measurements import MeasurementStore
from planner_service.store.nodes import NodeStore
from planner_service.store.plans import PlanStore, StoredPlan
from planner_service.store.probes import ProbeStore
from planner_service.store.profiles import KeptProfile, ProfileStore
from planner_service.store.residuals import Family
from planner_service.store.retention import delete_ended_jobs

__all__ = [
    "AttemptCall",
    "AttemptStore",
    "AuditStore",
    "DatabaseUnavailable",
    "EventsAfter",
    "Family",
    "HandedOver",
    "JobHistory",
    "JobQueue",
    "JobStore",
    "KeptProfile",
    "KeyStore",
    "MeasurementStore",
    "NodeStore",
    "PlanStore",
    "ProbeStore",
    "ProfileStore",
    "StoredPlan",
    "delete_ended_jobs",
    "open_database",
]
