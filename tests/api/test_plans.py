"""/v1/plans over real HTTP: made once, read for ever, streamed action by action."""

from __future__ import annotations

import asyncio
import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import httpx
import pytest

from planner_service.api.app import create_app
from planner_service.chain import (
    Tier,
    action_from_record,
    simulate,
    simulate_tiers,
    tiered_action_from_record,
)
from planner_service.contract import PlanReply
from planner_service.settings import Settings
from planner_service.store import PlanStore
from tests.serving import CHAIN, chain_request


def test_a_plan_is_made_once_and_then_known(http):
    request = chain_request(budget_bytes=61)
    made, known = (http.post("/v1/plans", json=request) for _ in range(2))
    assert (made.status_code, known.status_code) == (201, 200)
    assert made.content == known.content
    assert made.headers["location"] == f"/v1/plans/{made.json()['id']}"
    assert made.headers["etag"] == f'"{made.json()["id"]}"'


def test_the_reply_is_a_plan_within_the_budget(http):
    reply = PlanReply.model_validate_json(http.post("/v1/plans", json=CHAIN).content)
    assert reply.memory.projected_peak_bytes <= 60 < reply.memory.store_all_peak_bytes
    assert reply.exact_gradient


def test_requests_that_mean_the_same_are_one_plan(http):
    ids = {
        http.post("/v1/plans", json=chain_request(budget_bytes=budget)).json()["id"]
        for budget in (1024, 1024.0, "1KiB", "1024 B")
    }
    assert len(ids) == 1


def test_a_plan_is_read_by_its_location_and_never_changes(http):
    made = http.post("/v1/plans", json=CHAIN)
    read = http.get(made.headers["location"])
    assert (read.status_code, read.content) == (200, made.content)
    assert {"private", "immutable"} <= set(read.headers["cache-control"].split(", "))  # no proxy's to answer
    assert http.head(made.headers["location"]).status_code == 200


def test_a_plan_in_memory_is_answered_as_its_route_answers_it(http):
    location = http.post("/v1/plans", json=CHAIN).headers["location"]
    before = counted_reads(http)
    ready = http.get(location)
    routed = http.get(location, headers={"if-none-match": '"other"'})
    told = [
        {name: answer.headers[name] for name in ("content-type", "content-length", "etag", "cache-control")}
        for answer in (ready, routed)
    ]
    assert told[0] == told[1]
    assert (ready.status_code, ready.content) == (routed.status_code, routed.content)
    assert ready.headers["x-request-id"] != routed.headers["x-request-id"]
    assert counted_reads(http) == before + 2


def counted_reads(http):
    """Plans that were read, as the service counts them."""
    line = 'tightfit_request_seconds_count{route="read_plan",status="200"} '
    found = [text for text in http.get("/metrics").text.splitlines() if text.startswith(line)]
    return float(found[0].removeprefix(line)) if found else 0.0


@pytest.mark.parametrize("tag", ['"{id}"', 'W/"{id}"', '"other", "{id}"', "*"])
def test_whoever_has_the_plan_gets_304_without_a_body(http, tag):
    plan_id = http.post("/v1/plans", json=CHAIN).json()["id"]
    answer = http.get(f"/v1/plans/{plan_id}", headers={"if-none-match": tag.format(id=plan_id)})
    assert (answer.status_code, answer.content) == (304, b"")
    assert answer.headers["etag"] == f'"{plan_id}"'


def test_another_tag_gets_the_plan(http):
    plan_id = http.post("/v1/plans", json=CHAIN).json()["id"]
    answer = http.get(f"/v1/plans/{plan_id}", headers={"if-none-match": '"other"'})
    assert answer.status_code == 200


def test_the_streamed_schedule_replays_to_the_plans_own_numbers(http, chain_of):
    reply = http.post("/v1/plans", json=CHAIN).json()
    answer = http.get(f"/v1/plans/{reply['id']}/schedule")
    assert answer.headers["content-type"] == "application/x-ndjson"
    actions = [action_from_record(json.loads(line)) for line in answer.text.splitlines()]
    verdict = simulate(chain_of(CHAIN), actions, budget_bytes=60)
    assert verdict.legal
    assert verdict.makespan == reply["cost"]["makespan"]
    assert verdict.peak_bytes == reply["memory"]["projected_peak_bytes"]


def test_the_streamed_schedule_of_a_tiered_plan_replays_to_its_makespan_and_peaks(http, chain_of):
    host = {"name": "host", "budget_bytes": 12, "write_seconds_per_byte": 1, "read_seconds_per_byte": 2}
    request = {**CHAIN, "memory": {**CHAIN["memory"], "tiers": [host]}}
    reply = http.post("/v1/plans", json=request).json()
    answer = http.get(f"/v1/plans/{reply['id']}/schedule")
    actions = [tiered_action_from_record(json.loads(line)) for line in answer.text.splitlines()]
    tiers = [Tier(**host, overlapped=True)]
    verdict = simulate_tiers(chain_of(CHAIN), tiers, actions, budget_bytes=60)
    assert verdict.legal
    assert verdict.makespan == reply["cost"]["makespan"]
    assert verdict.peak_bytes == reply["memory"]["projected_peak_bytes"]
    (use,) = reply["memory"]["tiers"]
    assert 0 < verdict.tiers[0].peak_bytes == use["peak_bytes"] <= 12


@pytest.mark.parametrize("path", ["/v1/plans/none", "/v1/plans/none/schedule"])
def test_an_unknown_plan_is_a_problem(http, path):
    answer = http.get(path)
    assert answer.status_code == 404
    assert answer.json()["type"] == "/problems/unknown-plan"
    assert answer.json()["plan_id"] == "none"


def test_a_budget_below_the_minimum_names_the_minimum_and_that_works(http):
    refused = http.post("/v1/plans", json=chain_request(budget_bytes=3))
    problem = refused.json()
    assert refused.status_code == 422
    assert problem["type"].endswith("/budget-too-small")
    assert problem["field"] == "memory.device_budget_bytes"
    least = problem["minimum_budget_bytes"]
    assert http.post("/v1/plans", json=chain_request(budget_bytes=least)).is_success
    assert http.post("/v1/plans", json=chain_request(budget_bytes=least - 1)).status_code == 422


def test_the_same_question_from_many_clients_at_once_has_one_answer(service):
    request = chain_request(count=2_000, budget_bytes=300)
    with ThreadPoolExecutor(16) as threads:
        answers = list(
            threads.map(lambda _: httpx.post(f"{service.url}/v1/plans", json=request, timeout=60), range(16))
        )
    assert {answer.status_code for answer in answers} <= {200, 201}
    assert len({answer.content for answer in answers}) == 1


def test_a_plan_whose_retention_is_over_is_made_and_kept_again_though_it_was_in_memory(tmp_path):
    """Else this service answers with the id of a plan that no other one on its database can find"""

    async def statuses() -> list[int]:
        app = create_app(Settings(data_dir=tmp_path))
        transport = httpx.ASGITransport(app=app)
        async with (
            app.router.lifespan_context(app),
            httpx.AsyncClient(transport=transport, base_url="http://localhost") as client,
        ):
            service = app.state.service
            service.settings = replace(service.settings, plan_retention_days=1e-9)
            store, found = PlanStore(service.engine), []
            for _ in range(2):
                found += [(await client.post("/v1/plans", json=CHAIN)).status_code for _ in range(2)]
                plan_id = (await client.post("/v1/plans", json=CHAIN)).json()["id"]
                assert store.reply(plan_id) is not None
                forgetting = asyncio.create_task(service.forget_what_is_old())
                while store.reply(plan_id) is not None:
                    await asyncio.sleep(0.01)
                await asyncio.sleep(0.05)
                forgetting.cancel()
            return found

    assert asyncio.run(statuses()) == [201, 200, 201, 200]
