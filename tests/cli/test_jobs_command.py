"""`tightfit jobs`, `tightfit nodes` and `tightfit export` against a real service."""

from __future__ import annotations

import itertools
import json
import secrets
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from planner_service.cli import job_watch
from planner_service.cli.main import main
from planner_service.cli.request_file import UnreadableRequest, read_document
from planner_service.client import PlannerClient, PlannerUnreachable
from planner_service.contract.job_events import JobEvent
from tests.api.workers import HTTP, Life
from tests.serving import START, start_service

JOB_FILE = """
model: {kind: lstm, hidden_size: 8}
sequence: {length: 50, batch_size: 2}
training: {iterations: 3}
budget: 5%
report: {output: report.json}
"""


@pytest.fixture
def job_file(tmp_path):
    path = tmp_path / "job.yaml"
    path.write_text(JOB_FILE)
    return str(path)


@pytest.fixture
def jobs(service, capsys):
    """Runs `tightfit jobs …` and returns its exit status and output."""

    def run(*arguments: str, command: str = "jobs") -> tuple[int, str]:
        action = [command] if command != "jobs" else ["jobs", arguments[0]]
        rest = arguments if command != "jobs" else arguments[1:]
        status = main([*action, "--planner", service.url, *rest])
        said = capsys.readouterr()
        return status, said.out + said.err

    return run


def test_a_workers_job_file_is_submitted_listed_shown_and_cancelled(jobs, job_file):
    name = secrets.token_hex(4)
    status, job_id = jobs("submit", job_file, "--name", name, "--engine", "agents", "--priority", "-9")
    job_id = job_id.splitlines()[0]  # why nobody takes it comes after
    assert status == 0
    assert name in jobs("list", "--state", "queued", "--limit", "1000")[1]
    shown = json.loads(jobs("show", job_id, "--json")[1])
    assert (shown["name"], shown["budget"], shown["request"]["priority"]) == (name, "5%", -9)
    assert "queued" in jobs("show", job_id)[1]
    assert jobs("cancel", job_id) == (0, "cancelled\n")
    status, told = jobs("watch", job_id)
    assert (status, [line.split("  ")[2] for line in told.splitlines()]) == (
        1,  # it did not succeed
        ["queued", "cancelled (cancelled): cancelled while queued"],
    )


def test_a_file_of_yaml_is_what_json_would_say_or_refused(tmp_path):
    """A name that looks like a date is a text, as the people who wrote it meant"""
    path = tmp_path / "job.yaml"
    path.write_text("{name: 2026-02-03, budget: 5%, model: {hidden_size: 8}}")
    assert read_document(str(path)) == {"name": "2026-02-03", "budget": "5%", "model": {"hidden_size": 8}}
    for wrong in ("name: 2026-02-30", "name: .nan", "name: !!set {a}", "2026-02-03: 1", "[" * 9999):
        path.write_text(wrong)
        with pytest.raises(UnreadableRequest, match="YAML"):
            read_document(str(path))


def test_a_finished_job_shows_its_attempts_and_logs(jobs, service):
    life = Life(secrets.token_hex(4), service)
    for step in life.steps[:-1]:
        assert step().is_success
    assert life.log(3, ["\x1b[2Jno\tcleared screen"]).is_success
    assert life.report().is_success
    assert jobs("logs", life.job_id) == (0, "one\ntwo\n\\x1b[2Jno\tcleared screen\n")
    status, told = jobs("watch", life.job_id)
    assert status == 0
    assert "iteration 2, loss 1.5" in told
    assert "succeeded" in jobs("show", life.job_id)[1]
    assert life.name in jobs(command="nodes")[1]


def test_of_a_running_jobs_attempts_only_the_last_is_shown_to_run(jobs, service):
    life = Life(secrets.token_hex(4), service)
    for step in life.steps[:4]:  # as far as its first attempt
        assert step().is_success
    assert life.open().is_success
    rows = [line.split() for line in jobs("show", life.job_id)[1].splitlines()]
    assert [row[-1] for row in rows if row[:1] in (["1"], ["2"])] == ["silent", "running"]
    assert life.report().is_success


def test_a_list_says_that_it_is_not_all(jobs, service):
    for _ in range(2):
        submitted = Life(secrets.token_hex(4), service)
        assert submitted.submit().is_success
        jobs("cancel", submitted.job_id)
    assert "the latest 1: --limit shows more" in jobs("list", "--limit", "1")[1]


def test_the_same_key_submits_one_job(jobs, job_file):
    key = secrets.token_hex(4)
    submit = ("submit", job_file, "--engine", "agents", "--priority", "-9", "--idempotency-key", key)
    assert jobs(*submit) == jobs(*submit)


@pytest.mark.parametrize(
    ("arguments", "slug"),
    [(("show", "none"), "unknown-job"), (("submit", "/nowhere.yaml"), "unreadable-request")],
)
def test_a_refusal_is_the_problem_document_and_status_2(jobs, arguments, slug):
    status, said = jobs(*arguments)
    assert (status, json.loads(said)["type"]) == (2, f"/problems/{slug}")


def test_measurements_are_exported_beside_a_running_service(service, tmp_path, capsys):
    life = Life(secrets.token_hex(4), service)
    for step in life.steps:
        assert step().is_success
    output = tmp_path / "measurements.csv"
    arguments = ["export", "measurements", "--data-dir", str(service.data_dir), "--output", str(output)]
    assert main(arguments) == 0
    assert life.read()["measurement_id"] in output.read_text()
    assert main([*arguments[:4], "--format", "parquet"]) == 2
    assert "needs --output" in capsys.readouterr().err


def test_a_job_is_watched_past_a_restart_of_the_service_each_event_once(tmp_path):
    """SIGTERM ends the stream in good order, SIGKILL breaks it: the watcher goes on where it was"""
    service = start_service(tmp_path)
    port = service.url.rpartition(":")[2]
    life = Life("watched", service)
    for step in life.steps[:4]:
        assert step().is_success
    watching = subprocess.Popen(
        [sys.executable, "-c", START, "jobs", "watch", life.job_id, "--planner", service.url],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert watching.stdout is not None
        assert [watching.stdout.readline().split()[-1] for _ in range(3)] == ["queued", "assigned", "running"]
        for is_gentle in (True, False):
            service.terminate() if is_gentle else service.kill()
            time.sleep(1)
            life.service = service = start_service(tmp_path, "--port", port)
            assert life.beat().is_success
        assert life.report().is_success
        told, said = watching.communicate(timeout=30)
    finally:
        watching.kill()
        service.kill()
    assert watching.returncode == 0
    assert [line.split("  ")[2] for line in told.splitlines()] == ["iteration 2, loss 1.5", "succeeded"]
    assert "asking again" in said


def test_a_service_that_is_not_there_is_not_waited_for(capsys):
    assert main(["jobs", "watch", "any", "--planner", "http://127.0.0.1:9"]) == 2
    assert "planner-unreachable" in capsys.readouterr().err


def test_measurements_go_to_standard_output_and_a_misspelt_folder_is_not_made(
    service, tmp_path, capsys, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    export = ["export", "measurements", "--data-dir"]
    assert main([*export, str(service.data_dir), "--output", "-"]) == 0
    assert capsys.readouterr().out.startswith("id,received_at,job")
    assert main([*export, "misspelt"]) == 2
    assert "there is no misspelt/tightfit.sqlite3" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_all_nodes_are_listed_though_the_service_tells_them_in_pages(service, capsys, monkeypatch):
    life = Life("paged", service)
    names = [f"{life.name}-{number}" for number in range(3)]
    node = {"device": "cpu", "memory_total_bytes": 1, "memory_free_bytes": 1}
    for name in names:
        HTTP.put(f"{service.url}/v1/nodes/{name}", json=node).raise_for_status()
    whole = PlannerClient.nodes
    monkeypatch.setattr(
        PlannerClient, "nodes", lambda client, limit, cursor: whole(client, limit=1, cursor=cursor)
    )
    assert main(["nodes", "--planner", service.url]) == 0
    told = capsys.readouterr().out
    assert all(name in told for name in names)


def test_the_services_address_comes_from_the_environment(service, capsys, monkeypatch):
    monkeypatch.setenv("TIGHTFIT_PLANNER_URL", service.url)
    for command in (["jobs", "list"], ["nodes"]):
        assert main(command) == 0
    assert "attempt" in capsys.readouterr().out


def test_only_a_service_that_is_away_is_given_up_not_one_that_had_nothing_to_say(monkeypatch, capsys):
    """A job waits for hours between two events, and its service restarts twice meanwhile"""
    clock = itertools.count(step=3600)
    monkeypatch.setattr(job_watch.time, "monotonic", lambda: float(next(clock)))
    monkeypatch.setattr(job_watch.time, "sleep", lambda _seconds: None)
    endings = iter([PlannerUnreachable("url", "gone"), PlannerUnreachable("url", "gone"), None])

    class Planner:
        def job(self, job_id: str) -> None:
            """It answers."""

        def job_events(self, job_id: str, *, after: int) -> Iterator[JobEvent]:
            if (ending := next(endings)) is not None:
                raise ending
            yield from ()

    assert list(job_watch.events_until_over(Planner(), "a")) == []
    assert capsys.readouterr().err.count("asking again") == 2
