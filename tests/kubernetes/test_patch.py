"""Patches add what is missing, keep what is there, and leave a valid Job."""

from __future__ import annotations

import kubernetes_validate
import pytest

from planner_service.kubernetes.objects import PodResources, product_affinity
from planner_service.kubernetes.patch import annotations_patch, pointer, resources_patch, retry_patch
from tests.kubernetes.json_patch import applied
from tests.kubernetes.reviews_on_file import review

GPU = PodResources(limits={"nvidia.com/gpu": "1"}, node_affinity=product_affinity(["A100", "H100"]))


def job(**spec):
    found = review(**spec)["request"]["object"]
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


def test_disruptions_are_ignored_where_pods_do_not_restart_in_place():
    spec = valid(applied(job(), retry_patch(job())))["spec"]
    assert spec["podFailurePolicy"]["rules"][0]["action"] == "Ignore"
    assert spec["podReplacementPolicy"] == "Failed"
    assert retry_patch(job(restartPolicy="OnFailure")) == []


def test_a_job_without_annotations_gets_them_with_names_escaped():
    given = job()
    del given["metadata"]["annotations"]
    patched = applied(given, annotations_patch(given, {"tightfit/plan": "abc", "a~b": "c"}))
    assert patched["metadata"]["annotations"] == {"tightfit/plan": "abc", "a~b": "c"}


@pytest.mark.parametrize(("path", "text"), [(("a", 0, "b"), "/a/0/b"), (("x/y", "~"), "/x~1y/~0"), ((), "")])
def test_pointers_are_those_of_rfc_6901(path, text):
    assert pointer(path) == text
