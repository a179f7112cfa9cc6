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
    Bundle,
    RuleBasedStateMachine,
    invariant,
    multiple,
    rule,
    run_state_machine_as_test,
)
from sqlalchemy import Engine, text

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

    jobs = Bundle("jobs")
    launches = Bundle("launches")
    workers = Bundle("workers")

    def __init__(self) -> None:
        super().__init__()
        with self.engine.begin() as connection:
            for table in reversed(metadata.sorted_tables):
                connection.execute(table.delete())
        self.desk = Desk(self.engine)
        self.desk.node("a")
        self.expected: dict[str, Expected] = {}

    @rule(target=jobs, priority=st.integers(-1, 1), engine=st.sampled_from(["agents", "agents", "slurm"]))
    def submit(self, priority, engine):
        job = self.desk.submit(priority=priority, engine=engine, maximum_failures=MAXIMUM_FAILURES)
        self.expected[job.id] = Expected(priority, len(self.expected), engine)
        return job.id

    @rule(target=launches)
    def claim(self):
        queue = [
            (-job.priority, job.order, job_id)
            for job_id, job in self.expected.items()
            if job.state == "queued" and job.engine == "agents"
        ]
        given = self.desk.claim()
        if not queue:
            assert given is None
            return multiple()
        assert given.job.id == min(queue)[2]
        return self.handed(given)

    @rule(target=launches, job_id=jobs)
    def hand_over(self, job_id):
        if self.expected[job_id].state != "queued" or self.expected[job_id].engine != "slurm":
            return multiple()
        return self.handed(self.desk.queue.hand_over(job_id))

    def handed(self, given):
        job = self.expected[given.job.id]
        job.handovers += 1
        assert given.number == job.handovers
        job.state, job.reason, job.launch = "assigned", None, job.handovers
        return given

    @rule(target=workers, given=launches)
    def open(self, given):
        job = self.expected[given.job.id]
        if job.state not in LIVE or job.launch is None:
            with pytest.raises(JobNotAssigned):
                self.desk.open(given)
            return multiple()
        if job.launch != given.number:
            with pytest.raises(InvalidToken):
                self.desk.open(given)
            return multiple()
        attempt = self.desk.open(given)
        job.attempt += 1
        assert attempt.number == job.attempt
        job.state, job.reason, job.is_open = "running", None, True
        return attempt

    def refusal(self, worker) -> type[JobRefusal] | None:
        job = self.expected[worker.job.id]
        if worker.number < job.attempt:
            return StaleAttempt
        return None if job.is_open else AttemptEnded

    @rule(worker=workers, iteration=st.integers(0, 3))
    def beat(self, worker, iteration):
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

    @rule(worker=workers, outcome=st.sampled_from(["succeeded", "error", "oom", "preempted", "cancelled"]))
    def report(self, worker, outcome):
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

    @rule(job_id=jobs)
    def cancel(self, job_id):
        job = self.expected[job_id]
        if job.state in ("succeeded", "failed"):
            with pytest.raises(JobEnded):
                self.desk.jobs.cancel(job_id)
            return
        self.desk.jobs.cancel(job_id)
        if job.state == "running":
            job.is_cancelling = True
        elif job.state != "cancelled":
            job.end("cancelled", "cancelled")

    @rule(job_id=jobs)
    def lose(self, job_id):
        job = self.expected[job_id]
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

    @rule(job_id=jobs)
    def give_up(self, job_id):
        job = self.expected[job_id]
        self.desk.queue.give_up(job_id, "gone")
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
                max_examples=15,
                stateful_step_count=30,
                deadline=None,
                suppress_health_check=list(HealthCheck),
            ),
        )
    finally:
        JobMachine.engine.dispose()
