"""The webhook over TLS: recorded AdmissionReviews in, patches out, within the API server's two seconds."""

from __future__ import annotations

import json
import os
import select
import signal
import sqlite3
import ssl
import time
from contextlib import closing
from dataclasses import dataclass

import httpx
import kubernetes_validate
import pytest
import trustme

from planner_service.chain.quantities import parse_bytes
from tests.kubernetes.json_patch import applied
from tests.kubernetes.reviews_on_file import DEFAULTED, RECORDED, patch_of, review
from tests.serving import READY_SECONDS, chain_request, endless_request, launch

PATH = "/v1/kubernetes/admission"
API_SERVER_SECONDS = 2.0
HOLES = [
    {"name": "a", "device": "NVIDIA-A100-SXM4-80GB", "memory_total_bytes": "80GiB"},
    {"name": "t", "device": "Tesla-T4", "memory_total_bytes": "15GiB"},
]
LSTM = {
    "model": {"kind": "lstm", "input_size": 256, "hidden_size": 1024, "head": {"output_size": 10000}},
    "sequence": {"length": 1000, "batch_size": 64},
}


@dataclass
class Webhook:
    """A running service that speaks HTTPS, and a client that trusts its authority and nothing else."""

    http: httpx.Client
    data_dir: object
    process: object

    def answer(self, asked):
        """The response to a review, as the API server reads it."""
        reply = self.http.post(PATH, json=asked)
        assert reply.status_code == 200, reply.text
        document = reply.json()
        assert (document["apiVersion"], document["kind"]) == ("admission.k8s.io/v1", "AdmissionReview")
        assert document["response"]["uid"] == asked["request"]["uid"]
        return document["response"]

    def plan(self, request):
        """Make a plan; its id."""
        return self.http.post("/v1/plans", json=request).json()["id"]


@pytest.fixture(scope="module")
def webhook(tmp_path_factory):
    folder = tmp_path_factory.mktemp("webhook")
    authority = trustme.CA()
    certificate = authority.issue_cert("127.0.0.1")
    certificate.private_key_pem.write_to_path(folder / "tls.key")
    certificate.cert_chain_pems[0].write_to_path(folder / "tls.crt")
    (folder / "holes.json").write_text(json.dumps(HOLES))
    process = launch(
        *("--port", "0", "--data-dir", str(folder / "data")),
        TIGHTFIT_TLS_CERTIFICATE_FILE=str(folder / "tls.crt"),
        TIGHTFIT_TLS_KEY_FILE=str(folder / "tls.key"),
        TIGHTFIT_HOLES_FILE=str(folder / "holes.json"),
    )
    ready, _, _ = select.select([process.stdout], [], [], READY_SECONDS)
    line = process.stdout.readline() if ready else ""
    if "https://" not in line:
        process.kill()
        raise AssertionError(f"the service did not start: {process.communicate()}")
    trusted = ssl.create_default_context()
    authority.configure_trust(trusted)
    with httpx.Client(base_url=line.split()[-1], verify=trusted, timeout=10) as http:
        yield Webhook(http, folder / "data", process)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=20)


def patched(asked, response):
    """The Job after the answer, checked against the schema but for what the API server writes itself."""
    job = applied(asked["request"]["object"], patch_of(response))
    checked = json.loads(json.dumps(job))
    checked.pop("status")
    for name in ("managedFields", "creationTimestamp"):
        checked["metadata"].pop(name)
    checked["spec"]["template"]["metadata"].pop("creationTimestamp")
    kubernetes_validate.validate(checked, "1.37", strict=True)
    return job


def test_a_job_without_our_annotations_is_admitted_as_it_is(webhook):
    assert webhook.answer(RECORDED) == {"uid": RECORDED["request"]["uid"], "allowed": True}


def test_a_plan_becomes_devices_that_hold_it(webhook):
    plan_id = webhook.plan({**LSTM, "device": "cuda", "memory": {"device_budget_bytes": "20GiB"}})
    asked = review({"tightfit/plan": plan_id}, of=DEFAULTED)
    job = patched(asked, webhook.answer(asked))
    pod = job["spec"]["template"]["spec"]
    assert pod["containers"][0]["resources"]["limits"] == {"nvidia.com/gpu": "1"}
    terms = pod["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
    (expression,) = terms["nodeSelectorTerms"][0]["matchExpressions"]
    assert expression["values"] == ["NVIDIA-A100-SXM4-80GB"], "20 GiB are too much for a T4"
    annotations = job["metadata"]["annotations"]
    assert annotations["tightfit/budget-bytes"] == str(parse_bytes("20GiB"))
    assert int(annotations["tightfit/limit-bytes"]) > int(annotations["tightfit/request-bytes"])
    assert job["spec"]["podReplacementPolicy"] == "Failed"


def test_a_plan_for_processors_asks_for_main_memory_and_no_gpu(webhook):
    plan_id = webhook.plan({**LSTM, "device": "cpu", "memory": {"device_budget_bytes": "20GiB"}})
    asked = review({"tightfit/plan": plan_id}, of=DEFAULTED)
    pod = patched(asked, webhook.answer(asked))["spec"]["template"]["spec"]
    assert pod["containers"][0]["resources"]["limits"] == {"memory": f"{20 * 1024 + 512}Mi"}
    assert "affinity" not in pod


def test_a_request_is_placed_and_its_plan_named(webhook):
    asked = review({"tightfit/request": json.dumps({**LSTM, "maximum_slowdown_ratio": 1.0})})
    job = patched(asked, webhook.answer(asked))
    annotations = job["metadata"]["annotations"]
    budget = {"device_budget_bytes": int(annotations["tightfit/budget-bytes"])}
    plan_id = webhook.plan({**LSTM, "device": "cuda", "memory": budget})
    assert annotations["tightfit/plan"] == plan_id


def test_a_claim_is_used_where_the_job_names_one(webhook):
    asked = review({"tightfit/request": json.dumps(LSTM), "tightfit/claim-template": "gpu-40gib"})
    pod = patched(asked, webhook.answer(asked))["spec"]["template"]["spec"]
    assert pod["resourceClaims"][0]["resourceClaimTemplateName"] == "gpu-40gib"
    assert "limits" not in pod["containers"][0]["resources"]


def test_what_no_device_holds_is_refused_with_the_missing_bytes(webhook):
    huge = {**LSTM, "sequence": {"length": 10_000, "batch_size": 4096}, "maximum_slowdown_ratio": 1.0}
    response = webhook.answer(review({"tightfit/request": json.dumps(huge)}))
    assert response["allowed"] is False
    assert "no device of this cluster holds the job" in response["status"]["message"]
    plan_id = webhook.plan({**chain_request(budget_bytes=parse_bytes("90GiB")), "device": "cuda"})
    response = webhook.answer(review({"tightfit/plan": plan_id}))
    assert (response["allowed"], "bytes are missing" in response["status"]["message"]) == (False, True)


def test_too_few_devices_in_a_node_are_refused_as_such(webhook):
    response = webhook.answer(review({"tightfit/request": json.dumps({**LSTM, "devices": 64})}))
    assert response["allowed"] is False
    assert "no node has so many" in response["status"]["message"]


@pytest.mark.parametrize(
    ("annotations", "warning"),
    [
        ({"tightfit/plan": "unknown"}, "no plan has the id 'unknown'"),
        ({"tightfit/request": "{"}, "the Job is admitted as it is: tightfit/request is no JSON: "),
        ({"tightfit/request": "[" * 20_000}, "the Job is admitted as it is: tightfit/request is no JSON: "),
        (
            {"tightfit/request": '{"model": {"kind": "lstm"}}'},
            "the Job is admitted as it is: tightfit/request: model.input_size: this field is needed",
        ),
    ],
)
def test_what_cannot_be_read_is_admitted_as_it_is_with_a_warning(webhook, annotations, warning):
    response = webhook.answer(review(annotations))
    assert response["allowed"] is True
    assert "patch" not in response
    assert warning in response["warnings"][0]


def test_a_review_that_is_none_is_a_problem_document(webhook):
    reply = webhook.http.post(PATH, json={"kind": "Pod"})
    assert (reply.status_code, reply.headers["content-type"]) == (422, "application/problem+json")


def timed(webhook, asked):
    started = time.perf_counter()
    response = webhook.answer(asked)
    return response, time.perf_counter() - started


def test_a_planner_that_is_busy_keeps_no_job_waiting(webhook):
    """All planning threads work on what takes minutes; a placement has threads of its own"""
    endless = [endless_request(seed) for seed in range(2)]
    with httpx.Client(verify=False, timeout=0.2) as impatient:  # noqa: S501
        streams = []
        for request in endless:
            with pytest.raises(httpx.TimeoutException):
                impatient.post(f"{webhook.http.base_url}/v1/plans", json=request)
        asked = review({"tightfit/request": json.dumps(LSTM)})
        response, seconds = timed(webhook, asked)
        del streams
    assert seconds < API_SERVER_SECONDS
    assert response["allowed"]


def test_a_planner_that_hangs_keeps_no_job_waiting(webhook):
    """A request that no threads finish: a chain of thousands of different stages"""
    hanging = {"model": endless_request()["model"]}
    response, seconds = timed(webhook, review({"tightfit/request": json.dumps(hanging)}))
    assert seconds < API_SERVER_SECONDS
    assert response["allowed"] is True
    assert "no answer in time" in response["warnings"][0]


def test_a_database_that_is_locked_keeps_no_job_waiting(webhook):
    """Readers of SQLite in WAL mode do not wait; a plan is found while another process writes"""
    plan_id = webhook.plan(chain_request())
    with closing(sqlite3.connect(webhook.data_dir / "tightfit.sqlite3")) as writer:
        writer.execute("BEGIN IMMEDIATE")
        response, seconds = timed(webhook, review({"tightfit/plan": plan_id}))
        writer.rollback()
    assert seconds < API_SERVER_SECONDS
    assert response["allowed"]


def test_a_stopped_process_is_what_the_api_server_ignores(webhook):
    """SIGSTOP: no answer at all; a client with the API server's patience goes on after its two seconds"""
    os.kill(webhook.process.pid, signal.SIGSTOP)
    try:
        started = time.perf_counter()
        with pytest.raises(httpx.TimeoutException):
            webhook.http.post(PATH, json=RECORDED, timeout=API_SERVER_SECONDS)
        assert time.perf_counter() - started < API_SERVER_SECONDS + 0.5
    finally:
        os.kill(webhook.process.pid, signal.SIGCONT)
    assert webhook.answer(RECORDED)["allowed"]
