"""Jobs and attempts under any order of calls, against a model written from the decision's table.

The model shares no code with `planner_service.jobs`. Workers are remembered with all the tokens that
they ever had: late, stale and repeated calls come as often as proper ones.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from sqlalchemy import Engine, text

from planner_service.contract.attempts import Attempt
from planner_service.contract.nodes import Assignment
from planner_service.jobs import (
    AttemptEnded,
    InvalidToken,
    JobEnded,
    JobNotAssigned,
    JobRefusal,
    StaleAttempt,
)
from planner_service.store import open_database
from planner_service.store.tables import metadata
from tests.store.desk import Desk

MAXIMUM_FAILURES = 1
MOST_JOBS = 3
"""Few, so that the calls meet each other."""
PICK = st.integers(0, 5)
"""Which of the jobs, launch tokens or workers so far, counted round."""
LIVE = ("assigned", "running")
FINAL = ("succeeded", "failed", "cancelled")


@dataclass
class Expected:
    """One job as the table of the decision has it."""

    priority: int
    order: int
    engine: str
    state: str = "queued"
    reason: str | None = None
    attempt: int = 0
    is_open: bool = False
    failures: int = 0
    is_cancelling: bool = False
    launch: int | None = None
    """The handing-over whose token may open attempts."""
    handovers: int = 0
    reported: dict[int, str] = field(default_factory=dict)

    def to_queue(self, reason: str) -> None:
        self.state, self.reason, self.launch = "queued", reason, None

    def wait(self, reason: str) -> None:
        if self.engine == "slurm":
            self.state, self.reason = "assigned", reason
        else:
            self.to_queue(reason)

    def end(self, state: str, reason: str | None) -> None:
        self.state, self.reason, self.launch, self.is_cancelling = state, reason, None, False


class JobMachine(RuleBasedStateMachine):
    """Calls of submitters, workers, engines and the keeper of leases, in any order."""

    engine: Engine

    def __init__(self) -> None:
        super().__init__()
        with self.engine.begin() as connection:
            for table in reversed(metadata.sorted_tables):
                connection.execute(table.delete())
        self.desk = Desk(self.engine)
        self.desk.node("a")
        self.expected: dict[str, Expected] = {}
        self.launches: list[Assignment] = []
        self.workers: list[Attempt] = []
        self.submit(priority=0, engine="agents")
        self.claim()
        self.open(0)

    def job(self, pick: int) -> tuple[str, Expected]:
        return list(self.expected.items())[pick % len(self.expected)]

    @precondition(lambda self: len(self.expected) < MOST_JOBS)
    @rule(priority=st.integers(-1, 1), engine=st.sampled_from(["agents", "slurm"]))
    def submit(self, priority, engine):
        job = self.desk.submit(priority=priority, engine=engine, maximum_failures=MAXIMUM_FAILURES)
        self.expected[job.id] = Expected(priority, len(self.expected), engine)

    @rule(pick=PICK)
    def give(self, pick):
        """To the agent's node, or to an engine."""
        self.claim() if pick % 2 else self.hand_over(pick)

    def claim(self):
        queue = [
            (-job.priority, job.order, job_id)
            for job_id, job in self.expected.items()
            if job.state == "queued" and job.engine == "agents"
        ]
        given = self.desk.claim()
        if not queue:
            assert given is None
            return
        assert given.job.id == min(queue)[2]
        self.handed(given)

    def hand_over(self, pick):
        job_id, job = self.job(pick)
        if job.state == "queued" and job.engine == "slurm":
            self.handed(self.desk.queue.hand_over(job_id))

    def handed(self, given):
        job = self.expected[given.job.id]
        job.handovers += 1
        assert given.number == job.handovers
        job.state, job.reason, job.launch = "assigned", None, job.handovers
        self.launches.append(given)

    @rule(pick=PICK)
    def open(self, pick):
        given = self.launches[pick % len(self.launches)]
        job = self.expected[given.job.id]
        if job.state not in LIVE or job.launch is None:
            with pytest.raises(JobNotAssigned):
                self.desk.open(given)
            return
        if job.launch != given.number:
            with pytest.raises(InvalidToken):
                self.desk.open(given)
            return
        attempt = self.desk.open(given)
        job.attempt += 1
        assert attempt.number == job.attempt
        job.state, job.reason, job.is_open = "running", None, True
        self.workers.append(attempt)

    def refusal(self, worker) -> type[JobRefusal] | None:
        job = self.expected[worker.job.id]
        if worker.number < job.attempt:
            return StaleAttempt
        return None if job.is_open else AttemptEnded

    @rule(pick=PICK, iteration=st.integers(0, 3))
    def beat(self, pick, iteration):
        worker = self.workers[pick % len(self.workers)]
        job = self.expected[worker.job.id]
        if refusal := self.refusal(worker):
            with pytest.raises(refusal):
                self.desk.beat(worker, iteration=iteration)
            return
        is_to_stop = self.desk.beat(worker, iteration=iteration)
        assert is_to_stop == (job.is_cancelling or job.state in FINAL)
        if job.state in FINAL:
            return
        if job.state != "running" and job.engine == "agents":
            job.launch = None
        job.state, job.reason = "running", None

    @rule(pick=PICK)
    def beat_and_report_late(self, pick):
        """What a zombie does when it comes back."""
        self.beat(pick, 1)
        self.report(pick, "succeeded")

    @rule(pick=PICK)
    def come_back_before_the_successor_begins(self, pick):
        """Lost, given to somebody else; the first one is heard again, and then the other begins."""
        self.lose(pick)
        self.give(pick)
        self.beat(pick, 1)
        self.open(len(self.launches) - 1)

    @rule(pick=PICK)
    def replace(self, pick):
        """Lost, given to somebody else, begun anew: if it was not over."""
        self.lose(pick)
        self.give(pick)
        self.open(len(self.launches) - 1)

    @rule(pick=PICK, outcome=st.sampled_from(["succeeded", "error", "oom", "preempted", "cancelled"]))
    def report(self, pick, outcome):
        worker = self.workers[pick % len(self.workers)]
        job = self.expected[worker.job.id]
        if job.reported.get(worker.number) == outcome:
            assert self.desk.report(worker, outcome).state == job.state  # sent again, answered again
            return
        if worker.number in job.reported:
            with pytest.raises(AttemptEnded):
                self.desk.report(worker, outcome)
            return
        if refusal := self.refusal(worker):
            with pytest.raises(refusal):
                self.desk.report(worker, outcome)
            return
        self.desk.report(worker, outcome)
        job.reported[worker.number] = outcome
        job.is_open = False
        self.ended(job, outcome)

    def ended(self, job: Expected, outcome: str) -> None:
        if job.state in FINAL:
            return
        if outcome == "succeeded":
            job.end("succeeded", None)
        elif job.is_cancelling:
            job.end("cancelled", "cancelled")
        elif outcome in ("error", "oom"):
            job.failures += 1
            if job.failures > MAXIMUM_FAILURES:
                job.end("failed", outcome)
            else:
                job.to_queue(outcome)
        else:
            job.wait("preempted")

    @rule(pick=PICK)
    def cancel(self, pick):
        job_id, job = self.job(pick)
        if job.state in ("succeeded", "failed"):
            with pytest.raises(JobEnded):
                self.desk.jobs.cancel(job_id)
            return
        self.desk.jobs.cancel(job_id)
        if job.state == "running":
            job.is_cancelling = True
        elif job.state != "cancelled":
            job.end("cancelled", "cancelled")

    @rule(pick=PICK, by_engine=st.booleans())
    def vanish(self, pick, by_engine):
        """The worker is silent, or its engine gives up."""
        self.give_up(pick) if by_engine else self.lose(pick)

    def lose(self, pick):
        job_id, job = self.job(pick)
        leases = [lease for lease in self.desk.queue.leases() if lease.job_id == job_id]
        assert bool(leases) == (job.state in LIVE)
        for lease in leases:
            self.desk.queue.expire(lease)
        if job.state == "running":
            if job.is_cancelling:
                job.end("cancelled", "cancelled")
            else:
                job.wait("node_lost")
        elif job.state == "assigned" and job.engine == "agents":
            if job.is_cancelling:
                job.end("cancelled", "cancelled")
            else:
                job.to_queue("node_lost")

    def give_up(self, pick):
        job_id, job = self.job(pick)
        numbers = [held.number for held in self.desk.queue.live([job.engine]) if held.job.id == job_id]
        assert bool(numbers) == (job.state in LIVE)
        for number in numbers:
            self.desk.queue.give_up(job_id, "gone", number=number)
        if job.state in LIVE:
            if job.is_cancelling:
                job.end("cancelled", "cancelled")
            else:
                job.to_queue("node_lost")

    @invariant()
    def the_store_says_what_the_model_says(self):
        for job_id, job in self.expected.items():
            kept = self.desk.jobs.get(job_id)
            assert (kept.state, kept.reason) == (job.state, job.reason)
            assert (kept.attempt, kept.failures) == (job.attempt, job.failures)
            assert kept.cancel_requested == job.is_cancelling

    def teardown(self):
        for job_id, job in self.expected.items():
            told = self.desk.told(job_id)  # numbered without gaps
            assert [state for kind, state in told if kind == "state"][-1] == job.state
            kept = {one.number: one.outcome for one in self.desk.history.attempts(job_id) if one.outcome}
            assert kept == job.reported
            assert list(job.reported.values()).count("succeeded") <= 1 or job.state == "cancelled"
        with self.engine.connect() as connection:
            count = connection.execute(text("SELECT count(*) FROM jobs")).scalar()
        assert count == len(self.expected)


def test_any_order_of_calls_does_what_the_table_says(url):
    JobMachine.engine = open_database(url)
    try:
        run_state_machine_as_test(
            JobMachine,
            settings=settings(
                max_examples=30,
                stateful_step_count=25,
                deadline=None,
                suppress_health_check=list(HealthCheck),
            ),
        )
    finally:
        JobMachine.engine.dispose()
