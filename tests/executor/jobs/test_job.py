"""Job files: what is accepted, and by which name the rest is refused."""

import copy
import dataclasses
import json
import re
from pathlib import Path

import pytest
import yaml

from executor.jobs.job import (
    DataSpec,
    InvalidJob,
    Job,
    ModelSpec,
    ReportSpec,
    SequenceSpec,
    TrainingSpec,
    job_from_record,
    read_job,
)
from planner_service.contract.jobs import JobRequest

EXAMPLES = sorted((Path(__file__).parents[3] / "examples" / "jobs").iterdir())

MINIMAL = {
    "model": {"kind": "lstm", "hidden_size": 8},
    "sequence": {"length": 10, "batch_size": 2},
    "training": {"iterations": 1},
    "budget": "1MiB",
}
YAML = """\
model: {kind: lstm, hidden_size: 8}
sequence: {length: 10, batch_size: 2}
training: {iterations: 1}
budget: 1MiB
"""
"""The same."""


def changed(path, value):
    """MINIMAL with the field at `path` set to `value`, or removed when it is ...."""
    record = copy.deepcopy(MINIMAL)
    *sections, name = path.split(".")
    place = record
    for section in sections:
        place = place.setdefault(section, {})
    if value is ...:
        del place[name]
    else:
        place[name] = value
    return record


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_every_example_is_a_job(path):
    """The job files that the documentation shows are accepted"""
    assert read_job(path).sequence.length >= 1


def test_the_example_explains_every_field():
    """characters.yaml names all that a job file may say, to a worker and to a service, with true defaults"""
    text = (EXAMPLES[0].parent / "characters.yaml").read_text(encoding="utf-8")
    kinds = (Job, ModelSpec, DataSpec, SequenceSpec, TrainingSpec, ReportSpec)
    own = {field.name.removesuffix("_bytes") for kind in kinds for field in dataclasses.fields(kind)}
    assert [name for name in {*own, *JobRequest.model_fields} if f"{name}:" not in text] == []
    whole = re.sub(r"^( *)# (\w+:)", r"\1\2", text, flags=re.MULTILINE)  # with what it leaves out
    record = yaml.safe_load(whole)
    job = job_from_record(record)
    assert job.model == ModelSpec(kind="lstm", hidden_size=256)
    assert job.report.gradient_check_steps == ReportSpec().gradient_check_steps
    assert JobRequest.model_validate({name: given for name, given in record.items() if name != "report"})


def test_what_is_left_out_has_a_stated_default():
    """The four required sections make a job"""
    job = job_from_record(MINIMAL)
    assert (job.data.text, job.training.optimizer, job.report.output) == ("python", "adam", None)


def test_a_job_file_of_the_service_is_one_of_the_workers():
    """What only a queue heeds is skipped; the most time that a plan may take is kept"""
    queued = {"name": "night", "priority": 5, "maximum_failures": 0, "engine": "slurm", "strategy": "auto"}
    job = job_from_record({**MINIMAL, **queued, "maximum_slowdown_ratio": 1.5})
    assert job == dataclasses.replace(job_from_record(MINIMAL), maximum_slowdown_ratio=1.5)
    own = {field.name.removesuffix("_bytes") for field in dataclasses.fields(job)}
    assert set(JobRequest.model_fields) == own - {"report"} | set(queued)


def test_a_job_in_yaml_equals_the_same_job_in_json(tmp_path):
    """The two notations mean the same"""
    (tmp_path / "job.json").write_text(json.dumps(MINIMAL))
    (tmp_path / "job.yaml").write_text(YAML)
    assert read_job(tmp_path / "job.json") == read_job(tmp_path / "job.yaml")
    marked = tmp_path / "marked.json"  # as editors on Windows write it
    marked.write_text((tmp_path / "job.json").read_text(), encoding="utf-8-sig")
    assert read_job(marked) == read_job(tmp_path / "job.json")


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("model.kind", "transformer"),
        ("model.dtype", "int8"),
        ("model.hidden_size", 0),
        ("model.hidden_size", "256"),
        ("model.num_layers", -1),
        ("model.hidden_size", ...),
        ("model.colour", "red"),
        ("sequence.length", 0),
        ("sequence.length", -5),
        ("sequence.length", 1.5),
        ("sequence.length", True),
        ("sequence.batch_size", ...),
        ("sequence", [1, 2]),
        ("training.iterations", 0),
        ("training.optimizer", "lion"),
        ("training.learning_rate", 0),
        ("training.learning_rate", float("nan")),
        ("training.learning_rate", float("inf")),
        ("training.learning_rate", 10**400),
        ("training.seed", -1),
        ("data.text", ""),
        ("data.text", "a\0b"),
        ("data.characters", 0),
        ("report.output", 5),
        ("report.gradient_check_steps", -1),
        ("budget", 0),
        ("host_budget", "5%"),
        ("host_budget", 0),
        ("budget", "200%"),
        ("strategy", "sqrt"),
        ("maximum_slowdown_ratio", 0.5),
        ("maximum_slowdown_ratio", "2"),
        ("budget", ...),
        ("model", ...),
        ("extra", {}),
    ],
)
def test_a_wrong_field_is_named(path, value):
    """The error carries the path of the field that is wrong"""
    with pytest.raises(InvalidJob) as caught:
        job_from_record(changed(path, value))
    assert caught.value.field == path
    assert str(caught.value).startswith(f"{path}: ")


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("job.json", "{", "is not JSON"),
        ("job.yaml", "model: [", "is not YAML"),
        ("job.yaml", "name: 2026-02-30", "is not YAML: day"),
        ("job.yaml", "[" * 9999, "is not YAML"),
        ("job.yaml", "just a text", "mapping"),
        ("job.json", "[]", "mapping"),
        ("job.json", "[" * 100_000, "recursion|overflow"),
        (
            "job.yaml",
            YAML.replace("iterations: 1", "iterations: 1, learning_rate: 1e-3"),
            "'1e-3' is a text; YAML takes",
        ),
    ],
)
def test_a_malformed_file_is_refused(tmp_path, name, content, reason):
    """A file that cannot be parsed is an error about the job, not a traceback of the parser"""
    (tmp_path / name).write_text(content)
    with pytest.raises(InvalidJob, match=reason):
        read_job(tmp_path / name)


def test_a_missing_file_is_refused(tmp_path):
    """The error names the file that cannot be read"""
    with pytest.raises(InvalidJob, match=r"absent\.yaml: .*cannot be read"):
        read_job(tmp_path / "absent.yaml")


def test_text_is_looked_up_next_to_the_job_file(tmp_path):
    """A relative data.text is meant from the job file's folder"""
    (tmp_path / "job.json").write_text(json.dumps(changed("data.text", "book.txt")))
    assert read_job(tmp_path / "job.json").data.text == str(tmp_path / "book.txt")
