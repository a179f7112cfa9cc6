"""From a model's description to its byte ledger and chains. Pure: numpy and `chain` only."""

from planner_service.memory.candidate import Candidate, CostUnit
from planner_service.memory.ledger import Exactness, LedgerLine, total_bytes

__all__ = ["Candidate", "CostUnit", "Exactness", "LedgerLine", "total_bytes"]
