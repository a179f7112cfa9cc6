"""Ray Jobs by REST: what is sent, what the answers mean. The cluster suite talks to a real head."""

from __future__ import annotations

import dataclasses
import json

import httpx
import pytest

from planner_service.dispatch import EngineBusy, EngineRefused, EngineUnreachable, Launch, Resources
from planner_service.dispatch.ray import RayEngine, place

GIB = 2**30
LAUNCH = Launch(
    job_id="j1",
    number=1,
    command=("tightfit-worker", "attempt"),
    launch_token="secret",
    work_dir="/shared/j1",
    resources=Resources(device="cpu"),
)
CPU_NODE = {"CPU": 4.0, "memory": 8.0 * GIB}
ONE_DEVICE = {"CPU": 4.0, "GPU": 1.0, "gpu_mem_mib": 24_576.0, "accelerator_type:A10": 1.0}
TWO_DEVICES = {"CPU": 4.0, "GPU": 2.0, "gpu_mem_mib": 163_840.0, "accelerator_type:A100": 1.0}


class Head:
    """A dashboard with one node; `jobs` are those that were submitted."""

    def __init__(self, node=CPU_NODE):
        self.node = node
        self.jobs = {}
        self.requests = []

    def __call__(self, request):
        self.requests.append(request)
        path = request.url.path
        if path == "/nodes":
            # The dashboard renames resources, and reports dead nodes too.
            resources = {{"gpu_mem_mib": "gpuMemMib"}.get(name, name): x for name, x in self.node.items()}
            alive = {"raylet": {"state": "ALIVE", "resourcesTotal": resources}}
            dead = {"raylet": {"state": "DEAD", "resourcesTotal": {"CPU": 1e6, "memory": 1e18}}}
            return httpx.Response(200, json={"data": {"summary": [alive, dead]}})
        if request.method == "POST" and path == "/api/jobs/":
            job = json.loads(request.content)
            self.jobs[job["submission_id"]] = job | {"status": "PENDING", "message": None}
            return httpx.Response(200, json={})
        job = self.jobs.get(path.split("/")[3])
        return httpx.Response(404, text="no such job") if job is None else httpx.Response(200, json=job)


def engine(head, **options):
    return RayEngine("http://head:8265", transport=httpx.MockTransport(head), **options)


def test_a_launch_is_submitted_once_under_its_own_name():
    head = Head()
    ray = engine(head, token="cluster-token", setup=". env/bin/activate")
    assert ray.submit(LAUNCH) == ray.submit(LAUNCH) == "tightfit-j1-1"
    (job,) = head.jobs.values()
    assert job["entrypoint"] == ". env/bin/activate && exec tightfit-worker attempt"
    assert job["runtime_env"] == {"env_vars": {"TIGHTFIT_LAUNCH_TOKEN": "secret"}}
    assert all(request.headers["authorization"] == "Bearer cluster-token" for request in head.requests)
    assert sum(request.method == "POST" for request in head.requests) == 1


@pytest.mark.parametrize(
    ("told", "state"),
    [
        ("PENDING", "waiting"),
        ("RUNNING", "running"),
        ("SUCCEEDED", "succeeded"),
        ("STOPPED", "cancelled"),
        ("FAILED", "failed"),
    ],
)
def test_rays_states_are_understood(told, state):
    head = Head()
    ray = engine(head)
    ray.submit(LAUNCH)
    head.jobs["tightfit-j1-1"]["status"] = told
    assert ray.status("tightfit-j1-1").state == state


def test_an_unknown_job_is_missing():
    assert engine(Head()).status("tightfit-j1-1").state == "missing"


def test_what_no_living_node_could_run_is_refused_and_not_submitted():
    head = Head()
    too_large = Launch(
        job_id="j2",
        number=1,
        command=("true",),
        launch_token="secret",
        work_dir="/shared",
        resources=Resources(device="cpu", request_bytes=9 * GIB),
    )
    with pytest.raises(EngineRefused, match=r"none of 1 nodes could ever run it: 9663676416 bytes"):
        engine(head).submit(too_large)
    assert not head.jobs


def test_the_first_acceptable_type_that_a_node_has_is_asked_for():
    asked = place(Resources(device_types=("H100", "A10", "A100")), [CPU_NODE, ONE_DEVICE, TWO_DEVICES])
    assert (asked.gpus, asked.custom) == (1.0, {"accelerator_type:A10": 0.001})


def test_a_job_that_ran_before_waits_for_a_node_like_the_one_that_was_lost():
    large = Resources(device="cpu", request_bytes=9 * GIB)
    with pytest.raises(EngineRefused):
        place(large, [CPU_NODE])
    assert place(large, [CPU_NODE], ran_before=True).memory_bytes == 9 * GIB


def test_ranks_of_one_job_share_a_node():
    two = Resources(device_types=("A10", "A100"), processes=2)
    assert place(two, [ONE_DEVICE, TWO_DEVICES]).custom == {"accelerator_type:A100": 0.001}
    with pytest.raises(EngineRefused):
        place(two, [ONE_DEVICE, ONE_DEVICE])


def test_a_memory_resource_is_used_only_where_it_is_that_of_one_device():
    fits = Resources(request_bytes=19 * GIB, limit_bytes=20 * GIB)
    assert place(fits, [ONE_DEVICE, CPU_NODE]).custom == {"gpu_mem_mib": 20_480}, (
        "nominal memory, as nodes tell"
    )
    with pytest.raises(EngineRefused):
        place(Resources(limit_bytes=140 * GIB), [TWO_DEVICES])  # a sum of 160, of two devices of 80


def test_a_job_that_shares_a_device_is_shown_it_and_leaves_no_room_for_one_that_wants_it_whole():
    """To a job of no GPUs at all Ray sets CUDA_VISIBLE_DEVICES to nothing"""
    asked = place(Resources(limit_bytes=GIB), [ONE_DEVICE])
    assert 0 < asked.gpus < 0.01
    with pytest.raises(EngineRefused):
        place(Resources(limit_bytes=GIB), [CPU_NODE | {"gpu_mem_mib": 24_576.0}])


def test_types_without_a_name_are_not_any_gpu():
    with pytest.raises(EngineRefused, match="no name"):
        place(Resources(any_type=False), [ONE_DEVICE])


def test_a_job_that_never_ran_does_not_wait_for_nodes_however_often_it_was_handed_over():
    """A head that did not answer raises the number too"""
    large = Resources(device="cpu", request_bytes=9 * GIB)
    again = dataclasses.replace(LAUNCH, number=3, resources=large)
    with pytest.raises(EngineRefused):
        engine(Head()).submit(again)
    ran = dataclasses.replace(again, ran_before=True)
    assert engine(Head()).submit(ran) == "tightfit-j1-3"


@pytest.mark.parametrize(
    ("status", "error"),
    [(500, EngineBusy), (503, EngineBusy), (429, EngineBusy), (400, EngineRefused), (422, EngineRefused)],
)
def test_only_what_will_stay_ends_a_job(status, error):
    head = Head()

    def answering(request):
        if request.method == "POST":
            return httpx.Response(status, text="No available agent to submit job, please try again later.")
        return head(request)

    with pytest.raises(error):
        engine(answering).submit(LAUNCH)


def test_a_cluster_without_a_node_is_waited_for():
    with pytest.raises(EngineBusy):
        place(Resources(device="cpu"), [])


def test_a_page_of_a_proxy_is_no_answer():
    def proxy(_request):
        return httpx.Response(200, text="<html>Please sign in</html>")

    with pytest.raises(EngineUnreachable, match="none of its own"):
        engine(proxy).statuses(["tightfit-j1-1"])


@pytest.mark.parametrize("status", [500, 502])
def test_a_stop_that_was_not_taken_is_asked_for_again(status):
    with pytest.raises(EngineUnreachable, match=f"stop: status {status}"):
        engine(lambda _request: httpx.Response(status)).cancel("tightfit-j1-1")
    engine(lambda _request: httpx.Response(404)).withdraw("tightfit-j1-1")


@pytest.mark.parametrize(
    ("answer", "reason"),
    [(httpx.Response(401), "another token"), (httpx.ConnectError("refused"), "refused")],
)
def test_a_head_that_is_down_or_locked_is_not_a_refusal(answer, reason):
    def head(_request):
        if isinstance(answer, Exception):
            raise answer
        return answer

    with pytest.raises(EngineUnreachable, match=reason):
        engine(head).submit(LAUNCH)
