"""Every file under deploy/kubernetes is valid against the schemas of Kubernetes 1.37, to the last field."""

from __future__ import annotations

import base64
import json
import re
import shutil
import subprocess
from pathlib import Path

import jsonschema
import kubernetes_validate
import pytest
import yaml

FOLDER = Path(__file__).parents[2] / "deploy" / "kubernetes"
KUEUE = "kueue.x-k8s.io/v1beta2"
KUEUE_KINDS = json.loads((Path(__file__).parent / "kueue_v1beta2.json").read_text())["kinds"]
"""Names, types and bounds of Kueue's fields; unknown ones are errors."""


def documents():
    for path in sorted(FOLDER.glob("*.yaml")):
        for document in yaml.safe_load_all(path.read_text()):
            yield pytest.param(document, id=f"{path.stem}-{document['kind']}-{document['metadata']['name']}")


@pytest.mark.parametrize("document", list(documents()))
def test_an_object_is_valid(document):
    if document["apiVersion"] == KUEUE:
        jsonschema.validate(document, KUEUE_KINDS[document["kind"]])
    else:
        kubernetes_validate.validate(document, "1.37", strict=True)


def test_kueues_fields_catch_a_typing_error():
    with pytest.raises(jsonschema.ValidationError, match="clusterQueu"):
        jsonschema.validate({"spec": {"clusterQueu": "tightfit"}}, KUEUE_KINDS["LocalQueue"])


def test_the_schemas_catch_a_typing_error():
    document = yaml.safe_load((FOLDER / "webhook.yaml").read_text())
    document["webhooks"][0]["failurePolcy"] = "Ignore"
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(document, "1.37", strict=True)


def test_the_webhook_is_in_nobodys_way():
    (webhook,) = yaml.safe_load((FOLDER / "webhook.yaml").read_text())["webhooks"]
    assert (webhook["failurePolicy"], webhook["timeoutSeconds"]) == ("Ignore", 2)
    (condition,) = webhook["matchConditions"]
    assert "'tightfit/plan' in object.metadata.annotations" in condition["expression"]


def test_the_holes_in_the_service_are_holes():
    from planner_service.contract.holes import HoleRecord

    (holes,) = [
        document
        for document in yaml.safe_load_all((FOLDER / "service.yaml").read_text())
        if document["metadata"]["name"] == "tightfit-holes"
    ]
    records = [HoleRecord.model_validate(each) for each in yaml.safe_load(holes["data"]["holes.yaml"])]
    assert records


def test_the_pages_commands_name_files_and_images_that_are_there():
    """What `sed` replaces on the page is every image, so that none is looked for as `latest`"""
    root = FOLDER.parents[1]
    page = (root / "docs" / "kubernetes.md").read_text()
    manifest = (FOLDER / "service.yaml").read_text()
    replaced = re.findall(r"s#(tightfit[a-z-]*:latest)#", page)
    assert len(replaced) == 2
    for image in replaced:
        assert image in manifest
        manifest = manifest.replace(image, "x:1")
    assert ":latest" not in manifest
    for path in re.findall(r"(?:deploy/(?!tightfit)|examples/)[\w./-]+", page):
        assert (root / path.rstrip("./")).exists(), path


def test_the_settings_in_the_service_are_settings():
    from planner_service.settings import Settings, variable

    names = set(re.findall(r"TIGHTFIT_[A-Z_]+", (FOLDER / "service.yaml").read_text()))
    assert names <= {variable(name) for name in Settings.__dataclass_fields__}


@pytest.mark.skipif(shutil.which("openssl") is None, reason="needs openssl")
def test_the_certificate_is_for_the_service_and_the_webhook_trusts_it(tmp_path):
    done = subprocess.run(["sh", str(FOLDER / "certificate.sh")], capture_output=True, text=True, check=True)
    secret, webhook = yaml.safe_load_all(done.stdout)
    for document in (secret, webhook):
        kubernetes_validate.validate(document, "1.37", strict=True)
    authority = base64.b64decode(webhook["webhooks"][0]["clientConfig"]["caBundle"])
    (tmp_path / "ca.crt").write_bytes(authority)
    (tmp_path / "tls.crt").write_bytes(base64.b64decode(secret["data"]["tls.crt"]))
    checked = subprocess.run(
        ["openssl", "verify", "-CAfile", "ca.crt", "-verify_hostname", "tightfit.tightfit.svc", "tls.crt"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert checked.returncode == 0, checked.stderr
