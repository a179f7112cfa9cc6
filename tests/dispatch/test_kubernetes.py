"""The Kubernetes engine: what it makes is valid to the last field, made once, asked about and deleted."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import httpx
import kubernetes_validate
import pytest

from planner_service.dispatch import (
    EngineBusy,
    EngineRefused,
    EngineUnreachable,
    Launch,
    Resources,
    engine_of,
)
from planner_service.dispatch.kubernetes import KubernetesEngine, Server, Site, job_status
from planner_service.settings import Settings
from tests.dispatch.api_server import ApiServer, status_body

ROOT = Path(__file__).parent.parent.parent
VERSION = "1.37"
JOBS = "/apis/batch/v1/namespaces/research/jobs"
CLAIMS = "/apis/resource.k8s.io/v1/namespaces/research/resourceclaimtemplates"


def launch(number=1, **needs):
    given = {"request_bytes": 40 * 2**30, "limit_bytes": 42 * 2**30, **needs}
    return Launch(
        job_id="abc",
        number=number,
        command=("tightfit-worker", "attempt", "--job", "abc"),
        launch_token="token",
        work_dir="/work/abc",
        resources=Resources(**given),
    )


@pytest.fixture
def server():
    return ApiServer()


@pytest.fixture
def engine_for(server, tmp_path, monkeypatch):
    token_file = tmp_path / "token"
    token_file.write_text("secret\n")
    client = httpx.Client(base_url="https://api", transport=httpx.MockTransport(server))
    monkeypatch.setattr(Server, "client", lambda self: client)

    def make(**site):
        return KubernetesEngine(Server(token_file=token_file), Site(namespace="research", **site))

    yield make
    client.close()


def valid(manifest):
    kubernetes_validate.validate(manifest, VERSION, strict=True)
    return manifest


def test_a_launch_becomes_a_valid_job_that_replaces_only_what_nodes_lose(server, engine_for):
    engine = engine_for(queue="gpus", volume_claim="jobs")
    reference = engine.submit(launch(device_types=("NVIDIA-A100", "NVIDIA-H100")))
    job = valid(server.objects[f"{JOBS}/{reference}"])
    assert job["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "gpus"
    spec = job["spec"]
    assert spec["suspend"] is True
    assert spec["podReplacementPolicy"] == "Failed"
    assert spec["backoffLimit"] == 0
    (rule,) = spec["podFailurePolicy"]["rules"]
    assert rule == {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]}
    pod = spec["template"]["spec"]
    (container,) = pod["containers"]
    assert container["command"] == list(launch().command)
    assert container["env"] == [{"name": "TIGHTFIT_LAUNCH_TOKEN", "value": "token"}]
    assert container["resources"] == {"limits": {"nvidia.com/gpu": "1"}}
    affinity = pod["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
    (expression,) = affinity["nodeSelectorTerms"][0]["matchExpressions"]
    assert expression["values"] == ["NVIDIA-A100", "NVIDIA-H100"]


@pytest.mark.parametrize(
    ("claim", "source"),
    [("jobs", {"persistentVolumeClaim": {"claimName": "jobs"}}), ("", {"emptyDir": {}})],
)
def test_the_work_folder_is_mounted_where_the_command_looks_for_it_and_may_be_written(
    server, engine_for, claim, source
):
    moved = dataclasses.replace(launch(), work_dir="/var/lib/tightfit/abc")
    reference = engine_for(volume_claim=claim).submit(moved)
    pod = valid(server.objects[f"{JOBS}/{reference}"])["spec"]["template"]["spec"]
    assert pod["volumes"] == [{"name": "work", **source}]
    (mount,) = pod["containers"][0]["volumeMounts"]
    assert mount == {"name": "work", "mountPath": "/var/lib/tightfit"}
    assert pod["securityContext"] == {"fsGroup": worker_user()}


def worker_user():
    (user,) = re.findall(r"^USER (\d+)$", (ROOT / "deploy" / "Dockerfile.worker").read_text(), re.MULTILINE)
    return int(user)


def test_without_a_queue_the_job_starts_at_once(server, engine_for):
    reference = engine_for().submit(launch())
    job = valid(server.objects[f"{JOBS}/{reference}"])
    assert job["spec"]["suspend"] is False
    assert "affinity" not in job["spec"]["template"]["spec"]


def test_a_claim_asks_for_the_memory_of_each_device_and_goes_with_its_job(server, engine_for):
    reference = engine_for(claim="dra").submit(launch(processes=2))
    job, claim = valid(server.objects[f"{JOBS}/{reference}"]), valid(server.objects[f"{CLAIMS}/{reference}"])
    (request,) = claim["spec"]["spec"]["devices"]["requests"]
    assert request["exactly"]["count"] == 2
    assert "quantity('43008Mi')" in request["exactly"]["selectors"][0]["cel"]["expression"]
    assert claim["metadata"]["ownerReferences"][0]["uid"] == job["metadata"]["uid"]
    pod = job["spec"]["template"]["spec"]
    assert pod["resourceClaims"] == [{"name": "gpu", "resourceClaimTemplateName": reference}]
    assert pod["containers"][0]["resources"] == {"claims": [{"name": "gpu"}]}


@pytest.mark.parametrize(
    ("needs", "limits"),
    [
        ({"device": "cpu", "request_bytes": 5 * 2**20 + 1}, {"memory": "6Mi"}),
        ({"device": "cpu", "request_bytes": None}, None),
        ({"device_types": ("1g.10gb",)}, {"nvidia.com/mig-1g.10gb": "1"}),
        ({"device_types": ("1g.10gb+me", "2g.20gb")}, {"nvidia.com/mig-1g.10gb.me": "1"}),
        ({"device_types": ("3g.40gb", "NVIDIA-A100")}, {"nvidia.com/gpu": "1"}),
        ({"processes": 4}, {"nvidia.com/gpu": "4"}),
    ],
)
def test_limits_by_kind_of_device(server, engine_for, needs, limits):
    reference = engine_for().submit(launch(**needs))
    pod = valid(server.objects[f"{JOBS}/{reference}"])["spec"]["template"]["spec"]
    assert pod["containers"][0]["resources"].get("limits") == limits


def test_submitting_again_makes_no_second_job(server, engine_for):
    engine = engine_for(claim="dra")
    assert engine.submit(launch()) == engine.submit(launch())
    assert len(server.objects) == 2
    assert engine.submit(launch(number=2)) != engine.submit(launch())


def test_a_job_is_followed_and_deleted(server, engine_for):
    engine = engine_for(queue="gpus")
    reference = engine.submit(launch())
    assert engine.status(reference).state == "waiting"
    server.objects[f"{JOBS}/{reference}"]["status"] = {"active": 1, "ready": 1}
    assert engine.status(reference).state == "running"
    engine.cancel(reference)
    assert engine.status(reference).state == "missing"
    engine.cancel(reference)


@pytest.mark.parametrize(
    ("status", "state"),
    [
        ({}, "waiting"),
        ({"active": 1}, "running"),
        ({"conditions": [{"type": "Suspended", "status": "True"}]}, "waiting"),
        ({"conditions": [{"type": "Complete", "status": "True"}]}, "succeeded"),
        ({"active": 1, "conditions": [{"type": "FailureTarget", "status": "True"}]}, "running"),
        ({"conditions": [{"type": "Failed", "status": "True", "reason": "BackoffLimitExceeded"}]}, "failed"),
    ],
)
def test_states_by_the_jobs_conditions(status, state):
    assert job_status({"status": status}).state == state


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        (httpx.ConnectError("refused"), EngineUnreachable),
        (httpx.ReadTimeout("slow"), EngineUnreachable),
        (status_body(503, "ServiceUnavailable", "etcd"), EngineUnreachable),
        (status_body(403, "Forbidden", "no rights"), EngineUnreachable),
        (status_body(422, "Invalid", "spec.template: no"), EngineRefused),
        (status_body(403, "Forbidden", "exceeded quota: gpus, requested: 1, used: 8"), EngineBusy),
        (status_body(409, "Conflict", "object is being deleted"), EngineBusy),
        (httpx.Response(200, text="<html>"), EngineUnreachable),
        (httpx.Response(400, text="<html>"), EngineRefused),
    ],
)
def test_what_may_pass_is_unreachable_and_what_will_not_is_refused(server, engine_for, fault, error):
    server.fault = fault
    with pytest.raises(error):
        engine_for().submit(launch())


def test_a_job_whose_claim_cannot_be_made_does_not_stay(server, engine_for):
    """A cluster without resource.k8s.io: its pod would wait for the claim for ever"""
    server.unknown = CLAIMS
    with pytest.raises(EngineRefused, match="404"):
        engine_for(claim="dra").submit(launch())
    assert server.objects == {}


def test_a_claim_whose_answer_was_lost_is_made_when_the_launch_is_submitted_again(server, engine_for):
    engine = engine_for(claim="dra")
    server.unknown = httpx.ReadTimeout("slow")
    with pytest.raises(EngineUnreachable):
        engine.submit(launch())
    server.unknown = None
    engine.submit(launch())
    assert len(server.objects) == 2


def test_types_without_a_name_are_not_any_gpu_unless_they_are_claimed_by_memory(server, engine_for):
    unnamed = launch(any_type=False)
    with pytest.raises(EngineRefused, match="no name"):
        engine_for().submit(unnamed)
    assert engine_for(claim="dra").submit(unnamed)


def test_what_is_withdrawn_is_deleted_unless_it_is_over(server, engine_for):
    engine = engine_for()
    first, second = (engine.submit(launch(number=number)) for number in (1, 2))
    failed = {"conditions": [{"type": "Failed", "status": "True"}]}
    server.objects[f"{JOBS}/{first}"]["status"] = failed
    for name in (first, second, "tightfit-abc-3"):
        engine.withdraw(name)
    assert list(server.objects) == [f"{JOBS}/{first}"]


def test_a_wrong_token_and_a_missing_one_are_told(server, engine_for, tmp_path):
    engine = engine_for()
    server.token = "turned"
    with pytest.raises(EngineUnreachable, match="401"):
        engine.status("x")
    (tmp_path / "token").write_text("turned")
    assert engine.status("x").state == "missing"
    (tmp_path / "token").unlink()
    with pytest.raises(EngineUnreachable, match="token"):
        engine.status("x")


def test_the_settings_make_an_engine():
    assert engine_of("kubernetes", Settings(kubernetes_url="https://api:6443")).name == "kubernetes"
