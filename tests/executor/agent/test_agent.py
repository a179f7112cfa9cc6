"""Agents with real processes: jobs handed back and taken over, agents killed, two of them at once."""

import signal

import pytest

torch = pytest.importorskip("torch")

from executor.attempt.planning import StoredPlan  # noqa: E402
from executor.attempt.task import job_of as executor_job  # noqa: E402
from executor.attempt.weights_file import _files  # noqa: E402
from executor.jobs.data import character_streams  # noqa: E402
from executor.jobs.models import CharacterModel, Window  # noqa: E402
from executor.jobs.training import PlannedLoss, iterate, optimizer_for  # noqa: E402
from planner_service.client import PlannerClient  # noqa: E402
from tests.api.workers import HTTP  # noqa: E402
from tests.executor.attempt.workers import (  # noqa: E402
    ENDLESS,
    JOB,
    POLL_SECONDS,
    agent,
    children_of,
    is_alive,
    job_of,
    reaches,
    report_of,
    submit,
    trains,
)
from tests.serving import eventually, start_service  # noqa: E402


@pytest.fixture
def agents(url, tmp_path):
    """Starts agents; none is left."""
    found = []

    def start(node, *arguments):
        found.append(agent(url, tmp_path, node, *arguments))
        return found[-1]

    yield start
    for each in found:
        each.close()
    with PlannerClient(url) as client:  # the next test's agents claim its own job
        for job in client.jobs(limit=10).jobs:
            if job.state not in ("succeeded", "failed", "cancelled"):
                client.cancel_job(job.id)


def uninterrupted_losses(plan_text):
    """Losses of JOB trained in one piece, in this process, under a plan."""
    job = executor_job(JOB, JOB["budget"])
    streams = character_streams(job.data, job.sequence)
    torch.manual_seed(job.training.seed)
    model = CharacterModel(job.model, vocabulary_size=streams.vocabulary.size)
    loss = PlannedLoss(model, length=job.sequence.length, batch_size=job.sequence.batch_size)
    optimizer = optimizer_for(model, job.training)
    plan = StoredPlan.of(plan_text).plan
    losses = []
    for iteration in range(job.training.iterations):
        window = Window.of(streams.window(iteration))
        losses.append(iterate(lambda window=window: loss.forward(window, plan), optimizer))
    return losses


def test_a_job_that_is_given_back_is_finished_by_another_agent_with_the_losses_of_one_run(
    url, agents, tmp_path
):
    """Two agents ask for one job: one gets it; SIGTERM; the other resumes it, equal to the last bit"""
    job_id = submit(url, JOB)
    first, second = agents("first", "--jobs", "1"), agents("second", "--jobs", "1")
    assert trains(url, job_id)
    taken_by = job_of(url, job_id)["node"]
    holder, other = (first, second) if taken_by == "first" else (second, first)
    assert other.trainers() == []  # the claim was given once
    holder.process.send_signal(signal.SIGTERM)
    assert holder.ended() == 0
    assert report_of(tmp_path, job_id, 1)["outcome"] == "preempted"

    assert reaches(url, job_id, state="succeeded", attempt=2, failures=0)
    done = job_of(url, job_id)
    assert done["node"] != taken_by
    assert other.ended() == 0
    ((_, weights),) = _files(tmp_path / "work" / job_id)
    plan_text = torch.load(weights, weights_only=True)["plan"]
    measured = report_of(tmp_path, job_id, 2)["measurement"]
    assert 0 < measured["iterations"] < 300
    assert measured["losses"] == uninterrupted_losses(plan_text)


def test_an_agent_that_is_killed_leaves_no_process_and_its_job_goes_back(url, agents):
    """Kill -9: the attempt hears of it from the kernel, saves, and gives the job back itself"""
    job_id = submit(url, ENDLESS)
    killed = agents("killed")
    assert trains(url, job_id)
    (supervisor,) = killed.trainers()
    below = [supervisor, *children_of(supervisor)]
    killed.process.kill()
    assert reaches(url, job_id, state="queued", reason="preempted", failures=0)
    assert eventually(lambda: not any(map(is_alive, below)), 10)


def test_a_job_that_names_no_engine_says_that_nobody_is_there_until_an_agent_comes_and_takes_it(tmp_path):
    """The service as it starts by default, and an agent as the README starts one"""
    service = start_service(tmp_path / "service")
    try:
        anywhere = {name: part for name, part in JOB.items() if name != "engine"}
        job_id = submit(service.url, {**anywhere, "training": {"iterations": 2}})
        waiting = job_of(service.url, job_id)
        assert (waiting["state"], waiting["engine"]) == ("queued", "agents")
        assert "no worker that takes jobs of the engine 'agents' is there" in waiting["detail"]
        small = agent(service.url, tmp_path, "small", "--memory", "16KiB")
        assert eventually(
            lambda: "no worker has the memory" in str(job_of(service.url, job_id)["detail"]),
            60,
            every_seconds=POLL_SECONDS,
        )
        small.close()
        came = agent(service.url, tmp_path, "came", "--jobs", "1")
        assert reaches(service.url, job_id, state="succeeded", node="came", detail=None)
        assert came.ended() == 0
    finally:
        service.kill()


def test_an_agent_registers_again_at_a_service_that_has_never_heard_of_it(tmp_path):
    """The service comes back with an empty database: the agent stays and takes its jobs"""
    first = start_service(tmp_path / "first")
    one = agent(first.url, tmp_path, "one", "--jobs", "1")
    try:
        assert eventually(lambda: knows(first.url, "one"), 60, every_seconds=POLL_SECONDS)
        first.kill()
        second = start_service(tmp_path / "second", "--port", first.url.rpartition(":")[2])
        try:
            job_id = submit(second.url, {**JOB, "training": {"iterations": 2}})
            assert reaches(second.url, job_id, state="succeeded", node="one")
            assert one.ended() == 0
        finally:
            second.kill()
    finally:
        one.close()


def knows(url, node):
    """Whether the service has heard of a node."""
    return HTTP.get(f"{url}/v1/nodes/{node}").is_success
