"""Patches add what is missing, keep what is there, and leave a valid Job."""

from __future__ import annotations

import kubernetes_validate
import pytest

from planner_service.kubernetes.objects import PodResources, product_affinity
from planner_service.kubernetes.patch import annotations_patch, pointer, resources_patch, retry_patch
from tests.kubernetes.json_patch import applied
from tests.kubernetes.reviews_on_file import DEFAULTED, RECORDED, review

GPU = PodResources(limits={"nvidia.com/gpu": "1"}, node_affinity=product_affinity(["A100", "H100"]))


def job(*, of=RECORDED, **spec):
    found = review(of=of, **spec)["request"]["object"]
    found.pop("status")
    found["metadata"].pop("managedFields")
    found["metadata"].pop("creationTimestamp")
    found["spec"]["template"]["metadata"].pop("creationTimestamp")
    return found


def valid(manifest):
    kubernetes_validate.validate(manifest, "1.37", strict=True)
    return manifest


def pod_of(manifest):
    return manifest["spec"]["template"]["spec"]


def test_devices_and_nodes_are_added_to_a_valid_job():
    pod = pod_of(valid(applied(job(), resources_patch(job(), GPU))))
    assert pod["containers"][0]["resources"]["limits"] == {"nvidia.com/gpu": "1"}
    required = pod["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
    assert required == GPU.node_affinity


def test_what_the_job_says_itself_stays():
    own = {"limits": {"nvidia.com/gpu": "4", "memory": "8Gi"}}
    container = {"name": "main", "image": "i", "resources": own}
    affinity = {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": []}}}
    given = job(containers=[container], affinity=affinity)
    assert resources_patch(given, GPU) == []


def test_parents_that_are_there_are_not_replaced():
    container = {"name": "main", "image": "i", "resources": {"limits": {"memory": "8Gi"}}}
    given = job(containers=[container], affinity={"podAntiAffinity": {}})
    pod = pod_of(valid(applied(given, resources_patch(given, GPU))))
    assert pod["containers"][0]["resources"]["limits"] == {"memory": "8Gi", "nvidia.com/gpu": "1"}
    assert set(pod["affinity"]) == {"podAntiAffinity", "nodeAffinity"}


def test_a_claim_is_added_once_and_beside_others():
    claim = PodResources(claim_template="gpu-40gib")
    pod = pod_of(valid(applied(job(), resources_patch(job(), claim))))
    assert pod["resourceClaims"] == [{"name": "gpu", "resourceClaimTemplateName": "gpu-40gib"}]
    assert pod["containers"][0]["resources"]["claims"] == [{"name": "gpu"}]
    other = job(resourceClaims=[{"name": "nic", "resourceClaimTemplateName": "nic"}])
    both = pod_of(valid(applied(other, resources_patch(other, claim))))
    assert [each["name"] for each in both["resourceClaims"]] == ["nic", "gpu"]
    again = job(resourceClaims=[{"name": "gpu", "resourceClaimTemplateName": "mine"}])
    assert resources_patch(again, claim) == []


@pytest.mark.parametrize("recorded", [RECORDED, DEFAULTED])
def test_disruptions_are_ignored_where_pods_do_not_restart_in_place(recorded):
    """With a failure policy the API server takes Failed for replacements alone, and its default is another"""
    given = job(of=recorded)
    spec = valid(applied(given, retry_patch(given)))["spec"]
    assert spec["podFailurePolicy"]["rules"][0]["action"] == "Ignore"
    assert spec["podReplacementPolicy"] == "Failed"
    assert retry_patch(job(of=recorded, restartPolicy="OnFailure")) == []


def test_a_failure_policy_of_the_jobs_own_stays_with_its_replacements():
    given = job(of=DEFAULTED)
    given["spec"] |= {"podFailurePolicy": {"rules": []}, "podReplacementPolicy": "Failed"}
    assert retry_patch(given) == []


@pytest.mark.parametrize(
    "resources",
    [
        {"limits": {"nvidia.com/mig-1g.10gb": "1"}},
        {"limits": {"nvidia.com/gpu.shared": "1"}},
        {"limits": {"amd.com/gpu": "1"}},
        {"claims": [{"name": "my-gpu"}]},
    ],
)
def test_a_job_that_asks_for_devices_itself_gets_no_others(resources):
    given = job(of=DEFAULTED, containers=[{"name": "main", "image": "i", "resources": resources}])
    assert resources_patch(given, GPU) == []


def test_gpus_that_a_job_counts_itself_are_of_products_that_hold_it():
    own = {"name": "main", "image": "i", "resources": {"limits": {"nvidia.com/gpu": "4"}}}
    pod = pod_of(valid(applied(job(containers=[own]), resources_patch(job(containers=[own]), GPU))))
    assert pod["containers"][0]["resources"]["limits"] == {"nvidia.com/gpu": "4"}
    assert "affinity" in pod


def test_a_limit_of_memory_is_not_put_below_what_the_job_requests():
    memory = PodResources(limits={"memory": "1Gi"})
    own = {"name": "main", "image": "i", "resources": {"requests": {"memory": "8Gi"}}}
    assert resources_patch(job(containers=[own]), memory) == []
    pod = pod_of(valid(applied(job(), resources_patch(job(), memory))))
    assert pod["containers"][0]["resources"]["limits"] == {"memory": "1Gi"}


def test_a_job_without_annotations_gets_them_with_names_escaped():
    given = job()
    del given["metadata"]["annotations"]
    patched = applied(given, annotations_patch(given, {"tightfit/plan": "abc", "a~b": "c"}))
    assert patched["metadata"]["annotations"] == {"tightfit/plan": "abc", "a~b": "c"}


@pytest.mark.parametrize(("path", "text"), [(("a", 0, "b"), "/a/0/b"), (("x/y", "~"), "/x~1y/~0"), ((), "")])
def test_pointers_are_those_of_rfc_6901(path, text):
    assert pointer(path) == text
