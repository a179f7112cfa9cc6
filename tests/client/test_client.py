"""The typed client against a real service, and against things that are no planner."""

from __future__ import annotations

import itertools
import socket
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, HTTPServer

import httpx
import pytest

from planner_service.chain import Advance, Backward, Free, Store, Tape
from planner_service.client import PlannerClient, PlannerRefused, PlannerUnreachable
from planner_service.contract import PlanReply, PlanRequest
from planner_service.contract.job_events import JobEvent
from planner_service.contract.measurements import MeasurementReport
from planner_service.contract.nodes import ClaimRequest
from planner_service.dispatch.ray import RayEngine
from planner_service.worker_client import WorkerClient
from tests.serving import CHAIN, chain_request

REPORT = {
    "job": "from-the-client",
    "budget_bytes": 1000,
    "projected_peak_bytes": 991,
    "measured_peak_bytes": 990,
    "seconds_per_iteration": 0.25,
    "iterations": 3,
    "torch": "2.13.0+cpu",
    "device": "cpu",
}


@pytest.fixture
def planner(service) -> Iterator[PlannerClient]:
    with PlannerClient(service.url) as client:
        yield client


def test_a_plan_comes_back_typed_and_is_found_again(planner):
    made = planner.plan(CHAIN)
    assert isinstance(made, PlanReply)
    assert planner.get_plan(made.id) == made
    assert planner.plan(PlanRequest.model_validate(CHAIN)) == made


def test_the_schedule_is_an_iterator_of_actions(planner):
    actions = list(planner.schedule(planner.plan(CHAIN).id))
    assert {type(action) for action in actions} == {Advance, Backward, Free, Tape}
    reversed_stages = sum(
        action.first - action.last + 1 for action in actions if isinstance(action, Backward)
    )
    assert reversed_stages == 100


def test_the_schedule_of_a_tiered_plan_moves_states(planner):
    host = {"name": "host", "budget_bytes": 12, "write_seconds_per_byte": 1}
    plan = planner.plan({**CHAIN, "memory": {**CHAIN["memory"], "tiers": [host]}})
    moved = [action for action in planner.schedule(plan.id) if isinstance(action, Store)]
    assert len(moved) == plan.memory.tiers[0].write_count > 0


def test_a_schedule_may_be_left_before_its_end(planner):
    plan_id = planner.plan(chain_request(count=3000, budget_bytes=200)).id
    assert len(list(itertools.islice(planner.schedule(plan_id), 3))) == 3
    assert planner.is_ready()


def test_a_refusal_carries_the_problem_with_its_numbers(planner):
    with pytest.raises(PlannerRefused) as refused:
        planner.plan(chain_request(budget_bytes=3))
    assert (refused.value.status, refused.value.slug) == (422, "budget-too-small")
    assert planner.plan(chain_request(budget_bytes=refused.value.problem["minimum_budget_bytes"]))


@pytest.mark.parametrize("plan_id", ["none", "../healthz", "a/b", "?", "ü"])
def test_an_id_of_no_plan_is_refused_as_an_id(planner, plan_id):
    with pytest.raises(PlannerRefused, match=r"id|nothing is served"):
        planner.get_plan(plan_id)
    with pytest.raises(PlannerRefused):
        next(planner.schedule(plan_id))


def test_a_frontier_ends_at_full_bptt(planner):
    frontier = planner.frontier({"model": CHAIN["model"], "points": 5})
    assert frontier.points[-1].makespan == frontier.store_all_makespan
    budgets = [point.budget_bytes for point in frontier.points]
    assert budgets == sorted(budgets)
    assert planner.plan(chain_request(budget_bytes=budgets[0])).memory.projected_peak_bytes <= budgets[0]


def test_a_comparison_has_the_plan_that_auto_makes_among_its_cheapest(planner):
    comparison = planner.compare({"model": CHAIN["model"], "memory": CHAIN["memory"]})
    assert comparison.reference_makespan == planner.plan(CHAIN).cost.makespan


def test_the_simulator_confirms_the_planners_own_policy(planner):
    plan = planner.plan(CHAIN)
    judged = planner.simulate({"model": CHAIN["model"], "memory": CHAIN["memory"], "policy": plan.policy})
    assert judged.legal
    assert (judged.makespan, judged.peak_bytes) == (plan.cost.makespan, plan.memory.projected_peak_bytes)


def test_a_schedule_that_was_streamed_is_judged_like_its_policy(planner):
    plan = planner.plan(CHAIN)
    schedule = list(planner.schedule_records(plan.id))
    judged = planner.simulate({"model": CHAIN["model"], "memory": CHAIN["memory"], "schedule": schedule})
    assert (judged.legal, judged.makespan) == (True, plan.cost.makespan)
    cut = planner.simulate({"model": CHAIN["model"], "schedule": schedule[:-1]})
    assert (cut.legal, cut.illegal.index) == (False, len(schedule) - 1)


def test_a_measurement_is_reported_and_listed(planner):
    kept = planner.post_measurement(REPORT)
    assert planner.post_measurement(MeasurementReport.model_validate(REPORT)) == kept
    assert planner.measurements(job="from-the-client").measurements == [kept]


def test_what_a_report_adds_is_read_back_and_nothing_else(planner):
    added = {"measured_reserved_bytes": 900, "driver": {"version": [1, 2]}}
    kept = planner.post_measurement({**REPORT, "job": "with-more", **added})
    assert kept.model_extra == added
    assert planner.measurements(job="with-more").measurements == [kept]


def test_health_and_readiness(planner):
    assert planner.health()["status"] == "ok"
    assert planner.is_ready()


def test_not_ready_is_no_error():
    problem = {"type": "/problems/not-ready", "status": 503}
    transport = httpx.MockTransport(
        lambda request: httpx.Response(
            503, json=problem, headers={"content-type": "application/problem+json"}
        )
    )
    assert PlannerClient("http://planner", transport=transport).is_ready() is False


@pytest.mark.parametrize("client", [PlannerClient, WorkerClient])
@pytest.mark.parametrize("given", ["tfk_1\n", " tfk_1\r\n", "", "\n", None])
def test_a_key_of_a_file_or_of_an_empty_variable_is_sent_as_it_was_meant(monkeypatch, client, given):
    """A line end would be refused by the HTTP library, in words that quote the key."""
    sent = []
    monkeypatch.setattr(
        httpx.HTTPTransport,
        "handle_request",
        lambda _self, request: sent.append(request) or httpx.Response(200, json={}),
    )
    name = "api_key" if client is PlannerClient else "token"
    client("http://127.0.0.1:1", **{name: given}).health()
    assert sent[0].headers.get("authorization") == ("Bearer tfk_1" if given and given.strip() else None)


def test_what_can_be_no_key_is_not_quoted():
    for wrong in ("tfk_secret\r\nX: y", "tfk_secr\u00e9t"):
        with pytest.raises(PlannerUnreachable, match="key") as caught:
            PlannerClient("http://127.0.0.1:1", api_key=wrong)
        assert "secr" not in str(caught.value)


def event(number: int, detail: str | None = None) -> str:
    """An event as the service writes it."""
    told = JobEvent(
        number=number,
        kind="state",
        at=datetime(2026, 1, 1, tzinfo=UTC),
        state="running",
        detail=detail,
        attempt=1,
        budget=1,
        iteration=0,
    )
    return f"id: {number}\nevent: state\ndata: {told.model_dump_json()}\n\n"


def events_of(*streams: str | None) -> tuple[list[JobEvent], list[str]]:
    """What a client reads of one stream after the other (None: 204), and after which events it asked."""
    asked, answers = [], list(streams)

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(request.headers["last-event-id"])
        stream = answers.pop(0)
        if stream is None:
            return httpx.Response(204)
        return httpx.Response(200, text=stream, headers={"content-type": "text/event-stream; charset=utf-8"})

    with PlannerClient("http://planner", transport=httpx.MockTransport(answer)) as client:
        return list(client.job_events("a")), asked


def test_a_job_may_be_silent_for_longer_than_a_call_may_take():
    """Comments come every fifteen seconds; other calls keep their limit"""
    limits = []

    def answer(request: httpx.Request) -> httpx.Response:
        limits.append(request.extensions["timeout"]["read"])
        return httpx.Response(204)

    with PlannerClient("http://p", transport=httpx.MockTransport(answer), timeout_seconds=5) as client:
        assert list(client.job_events("a")) == []
        client.forget_measurement("a")
    assert limits[0] > 2 * 15
    assert limits[1] == 5


def test_an_event_may_hold_what_unicode_calls_a_line_separator():
    """JSON leaves them as they are, and only a newline ends a line of the stream"""
    detail = "out of \u2028 memory \u2029 and \x85 luck"
    (told,), _ = events_of(event(1, detail), None)
    assert told.detail == detail


def test_events_go_on_where_a_stopping_service_ended_the_stream_until_the_job_is_over():
    told, asked = events_of(event(1) + event(2), event(3), None)
    assert [one.number for one in told] == [1, 2, 3]
    assert asked == ["0", "2", "3"]


def test_a_page_instead_of_events_is_no_planners():
    page = httpx.MockTransport(lambda _request: httpx.Response(200, html="<h1>Hello</h1>"))
    with PlannerClient("http://planner", transport=page) as client:
        for call in (client.job_events, client.schedule):
            with pytest.raises(PlannerUnreachable):
                next(call("a"))


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:{port}", "http://nosuchhost.invalid", "ftp://host", "nonsense", "http://[", ""]
)
def test_an_url_that_does_not_answer_is_named(url):
    url = url.format(port=free_port())
    with PlannerClient(url, timeout_seconds=5) as client:
        for call in (client.health, lambda: client.plan(CHAIN), lambda: next(client.schedule("a"))):
            with pytest.raises(PlannerUnreachable) as failed:
                call()
            assert failed.value.url == url
            assert f"no planner answers at {url}: " in str(failed.value)


PROXIES = ("ALL_PROXY", "HTTPS_PROXY", "HTTP_PROXY", "NO_PROXY")


def given_proxy(monkeypatch, url: str) -> None:
    for name in PROXIES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    monkeypatch.setenv("ALL_PROXY", url)


@pytest.mark.parametrize("proxy", ["http://127.0.0.1:9", "socks5://127.0.0.1:9"])
def test_a_service_on_this_machine_is_asked_past_the_environments_proxy(service, monkeypatch, proxy):
    given_proxy(monkeypatch, proxy)
    with PlannerClient(service.url) as client:
        assert client.health()["status"] == "ok"
    ray = RayEngine(service.url)
    assert ray.status("any").state == "missing"  # it answers 404, and is no Ray
    ray._http.close()  # the service keeps its own for as long as it lives


def test_a_proxy_that_cannot_be_used_is_named(monkeypatch):
    given_proxy(monkeypatch, "gopher://127.0.0.1:9")
    with pytest.raises(PlannerUnreachable, match=r"planner\.example: the environment's proxy: .*gopher"):
        PlannerClient("http://planner.example")


def test_a_planner_that_never_answers_is_given_up_at_the_time_limit():
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        with (
            PlannerClient(url, timeout_seconds=0.2) as client,
            pytest.raises(PlannerUnreachable, match="no answer in time"),
        ):
            client.plan(CHAIN)


class _SomethingElse(BaseHTTPRequestHandler):
    """A web server that is no planner."""

    status, media_type, body = 404, "text/html", b"<h1>Not here</h1>"

    def do_GET(self) -> None:
        self.send_response(self.status)
        self.send_header("content-type", self.media_type)
        self.send_header("content-length", str(len(self.body)))
        self.end_headers()
        self.wfile.write(self.body)

    def log_request(self, *_: object) -> None:
        """Keep quiet."""


@pytest.mark.parametrize(
    ("status", "media_type", "body"),
    [
        (404, "text/html", b"<h1>Not here</h1>"),
        (502, "text/plain", b"bad gateway"),
        (302, "text/plain", b""),
        (200, "application/json", b'{"hello": "world"}'),
        (200, "application/json", b"[1]"),
        (200, "text/html", b"<h1>Hello</h1>"),
        (422, "application/problem+json", b"not json"),
        (404, "application/problem+json", b'{"title": "No route", "status": 404}'),
        (409, "application/problem+json", b'{"type": "about:blank", "title": "Conflict"}'),
    ],
)
def test_a_server_that_is_no_planner_is_recognised(status, media_type, body):
    handler = type("Handler", (_SomethingElse,), {"status": status, "media_type": media_type, "body": body})
    with HTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        url = f"http://127.0.0.1:{server.server_address[1]}"
        with PlannerClient(url) as client, pytest.raises(PlannerUnreachable, match=url):
            client.get_plan("abc")
        server.shutdown()
        thread.join()


@pytest.mark.parametrize("answer", [b"{}", b"null", b"[]", b"<html>log in</html>"])
def test_an_answer_to_a_claim_that_cannot_be_read_is_no_planners(answer):
    """200 with anything else than a job: agents wait such an answer out"""
    said = type("Said", (_SomethingElse,), {"status": 200, "body": answer, "do_POST": _SomethingElse.do_GET})
    with HTTPServer(("127.0.0.1", 0), said) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        with WorkerClient(f"http://127.0.0.1:{server.server_address[1]}") as client:
            for call in (
                lambda: client.claim(ClaimRequest(node="a", memory_free_bytes=1)),
                lambda: client.claim_probe("a"),
            ):
                with pytest.raises(PlannerUnreachable, match="its answer is no"):
                    call()
        server.shutdown()
        thread.join()
