"""The engine `agents`: worker agents on the nodes claim jobs from the service; nothing is handed over."""

from __future__ import annotations

from collections.abc import Sequence

from planner_service.dispatch.engine import EngineRefused, EngineStatus, Launch


class AgentsEngine:
    """Never given a launch: its jobs wait in the service's queue for a claim."""

    name = "agents"
    most_unfinished = 0

    def submit(self, launch: Launch) -> str:
        """Raises EngineRefused: agents take jobs themselves."""
        raise EngineRefused(self.name, f"agents claim job {launch.job_id} themselves")

    def statuses(self, references: Sequence[str]) -> dict[str, EngineStatus]:
        """Nothing is known here: the service's own attempts tell."""
        return dict.fromkeys(references, EngineStatus("missing", "not handed over: agents claim their jobs"))

    def cancel(self, reference: str) -> None:
        """Nothing to do: the claimed job's next heartbeat tells its worker."""

    def withdraw(self, name: str) -> None:
        """Nothing to do: nothing was handed over."""
