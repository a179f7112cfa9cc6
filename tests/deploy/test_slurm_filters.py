"""The two filters in a Lua interpreter: what they ask, what they fill in, what they refuse.

`curl` is a script that keeps what it was told and gives a prepared answer. The cluster suite runs the same
files inside Slurm.
"""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from planner_service.contract import PlacementRequest
from planner_service.dispatch import Launch
from planner_service.dispatch.slurm import sbatch_arguments
from planner_service.planning import Planner

lua = pytest.importorskip("lupa.lua53")

ROOT = Path(__file__).parent.parent.parent
DEPLOY = ROOT / "deploy" / "slurm"
JOB = json.loads((ROOT / "examples" / "jobs" / "small.json").read_text())
HOLES = [
    {"name": "g1", "device": "h100", "memory_total_bytes": "80GiB"},
    {"name": "g2", "device": "t4", "memory_total_bytes": "15GiB"},
    {"name": "c1", "device_kind": "cpu", "memory_total_bytes": "8GiB"},
]
CURL = """#!/bin/sh
for word in "$@"; do case "$word" in @*) cp "${word#@}" {folder}/asked;; esac; done
cat {folder}/answer
printf '\\n%s' "$(cat {folder}/status)"
"""


POPEN = """
function io.popen(command)
   local text = run(command)
   return {read = function() return text end, close = function() end}
end
"""
"""The interpreter's own is built without it."""


def run(command: str) -> str:
    """What a line of shell prints."""
    return subprocess.run(["/bin/sh", "-c", command], capture_output=True, text=True, check=False).stdout


class Filter:
    """A filter's file in an interpreter of its own, with what Slurm gives it."""

    def __init__(self, name: str) -> None:
        self.said: list[str] = []
        self._lua = lua.LuaRuntime(unpack_returned_tuples=True)
        slurm = self._lua.table(SUCCESS=0, ERROR=-1, NO_VAL=2**32 - 2, NO_VAL64=2**63 - 2)
        slurm.log_error = slurm.log_user = self._say
        self._lua.globals().slurm = slurm
        self._lua.globals().run = run
        self._lua.execute(POPEN)
        self._lua.execute((DEPLOY / name).read_text())

    def _say(self, words: str, *values: object) -> None:
        self.said.append(self._lua.globals().string.format(words, *values))

    def __call__(self, function: str, **told: object) -> tuple[bool, dict[str, object]]:
        """Whether the submission passes, and its options or fields afterwards."""
        table = self._lua.table(**{name.replace("_dash_", "-"): value for name, value in told.items()})
        result = self._lua.globals()[function](table, None if "submit" in function else 0, 0)
        return result == 0, dict(table.items())


@pytest.fixture
def planner(tmp_path, monkeypatch):
    """Files as the page on Slurm says, and a planner behind `curl` that answers what a test wants."""
    (tmp_path / "job.json").write_text(json.dumps(JOB))
    (tmp_path / "holes.json").write_text(json.dumps(HOLES))
    (tmp_path / "tightfit.conf").write_text(f"planner_url=http://head:1\nholes={tmp_path}/holes.json\n")
    curl = tmp_path / "curl"
    curl.write_text(CURL.replace("{folder}", str(tmp_path)))
    curl.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("SLURM_CONF", f"{tmp_path}/slurm.conf")
    monkeypatch.chdir(tmp_path)

    def answers(status=200, body=None, device="cuda"):
        if body is None:
            asked = {"jobs": [{"name": "job", "device": device, "job": JOB}], "holes": HOLES}
            request = PlacementRequest.model_validate({**asked, "most_offers": 1, "planned_offers": 0})
            body = Planner().place(request).model_dump_json()
        (tmp_path / "status").write_text(str(status))
        (tmp_path / "answer").write_text(body)
        return tmp_path

    return answers


def asked_of(folder):
    return json.loads((folder / "asked").read_text())


def submitted(**options):
    cli_filter = Filter("cli_filter.lua")
    passes, after = cli_filter("slurm_cli_pre_submit", **options)
    return passes, after, cli_filter.said


def test_a_job_file_is_sent_as_it_stands_and_its_devices_are_filled_in(planner):
    """`report` and all: the worker's job file is what the planner takes"""
    folder = planner()
    passes, after, said = submitted(comment="tightfit:job.json")
    assert (passes, said) == (True, [])
    assert "report" in JOB
    assert PlacementRequest.model_validate(asked_of(folder))
    assert after["gres"].startswith("gpu:")
    assert "types=" in after["comment"]
    assert "request_mib=" in after["comment"]


def test_jobs_of_the_services_own_engine_pass_both_filters_untouched():
    launch = Launch(job_id="j1", number=2, command=("x",), launch_token="t", work_dir="/w")
    (comment,) = [
        word.partition("=")[2] for word in sbatch_arguments(launch) if word.startswith("--comment=")
    ]
    assert launch.name in comment
    assert submitted(comment=comment) == (True, {"comment": comment}, [])
    passes, after = Filter("job_submit.lua")("slurm_job_submit", comment=comment)
    assert (passes, after) == (True, {"comment": comment})


@pytest.mark.parametrize("status", [401, 403, 413, 429, 500, 503])
def test_what_is_not_about_the_job_lets_it_pass_with_a_word(planner, status):
    planner(status, '{"title": "x", "detail": "not now"}')
    passes, after, said = submitted(comment="tightfit:job.json")
    assert (passes, after) == (True, {"comment": "tightfit:job.json"})
    assert "submitted as it stands" in said[0]


def test_what_is_about_the_job_is_refused_with_the_planners_words(planner):
    planner(422, '{"detail": "jobs[0].job.sequence.length must be positive"}')
    passes, _, said = submitted(comment="tightfit:job.json")
    assert not passes
    assert said == ["tightfit: jobs[0].job.sequence.length must be positive"]


def test_a_job_file_in_yaml_is_refused_as_such(planner, tmp_path):
    planner()
    (tmp_path / "job.yaml").write_text("budget: free\n")
    passes, _, said = submitted(comment="tightfit:job.yaml")
    assert not passes
    assert said == ["tightfit: job.yaml is not in JSON, the only notation that this filter passes on"]


@pytest.mark.parametrize("option", ["gres", "gpus", "gpus_dash_per_dash_node", "gpus_dash_per_dash_task"])
def test_devices_that_were_asked_for_in_any_option_get_no_others_beside_them(planner, option):
    planner()
    passes, after, _ = submitted(comment="tightfit:job.json", **{option: "gpu:t4:1"})
    assert passes
    assert [name for name in after if name.startswith("g")] == [option.replace("_dash_", "-")]


def test_other_resources_stay_beside_the_devices(planner):
    planner()
    _, after, _ = submitted(comment="tightfit:job.json", gres="nvme:1")
    assert after["gres"].startswith("nvme:1,gpu:")


def test_memory_is_filled_in_unless_it_was_asked_for_in_any_option(planner):
    planner(device="cpu")
    _, after, _ = submitted(comment="tightfit-cpu:job.json")
    assert after["mem"].endswith("M")
    _, after, _ = submitted(comment="tightfit-cpu:job.json", mem_dash_per_dash_cpu="2G")
    assert "mem" not in after


def checked(**fields):
    job_submit = Filter("job_submit.lua")
    comment = "tightfit:job.json request_mib=600 types=h100,1g.10gb"
    passes, after = job_submit("slurm_job_submit", **{"comment": comment, **fields})
    return passes, after, job_submit.said


@pytest.mark.parametrize("place", ["tres_per_node", "tres_per_job", "tres_per_task", "tres_per_socket"])
@pytest.mark.parametrize(
    ("entries", "unfit"),
    [
        ("gres:gpu:h100:1", None),
        ("gres/gpu:h100=2", None),
        ("gpu:1g.10gb:1", None),
        ("gres:gpu:t4:1", "t4"),
        ("gres:gpu:h100:1,gres:gpu:t4:1", "t4"),
        ("gres:gpu:2g.20gb", "2g.20gb"),
        ("nvme:2,gpu:h100", None),
    ],
)
def test_every_entry_of_every_place_is_checked(place, entries, unfit):
    passes, after, said = checked(**{place: entries})
    assert passes == (unfit is None)
    assert after[place] == entries
    assert passes or f"a GPU of type {unfit} does not hold the plan; these do: h100,1g.10gb" in said[0]


def test_two_places_are_both_checked():
    passes, _, said = checked(tres_per_node="gres:gpu:h100:1", tres_per_job="gres:gpu:t4:1")
    assert not passes
    assert "type t4" in said[0]


@pytest.mark.parametrize(
    ("untyped", "typed"),
    [
        ("gres:gpu:2", "gres:gpu:h100:2"),
        ("gres/gpu=2", "gres/gpu:h100=2"),
        ("gpu", "gpu:h100:1"),
        ("nvme:1,gpu:1", "nvme:1,gpu:h100:1"),
    ],
)
def test_gpus_without_a_type_get_the_quickest_that_holds_the_plan(untyped, typed):
    passes, after, said = checked(tres_per_node=untyped)
    assert (passes, after["tres_per_node"]) == (True, typed)
    assert "names no type of GPU" in said[0]


def test_features_choose_the_type_where_they_are_of_types_that_hold_it():
    passes, after, said = checked(tres_per_node="gres:gpu:1", features="h100|1g.10gb")
    assert (passes, after["tres_per_node"], said) == (True, "gres:gpu:1", [])
    _, after, _ = checked(tres_per_node="gres:gpu:1", features="h100|t4")
    assert after["tres_per_node"] == "gres:gpu:h100:1"


@pytest.mark.parametrize("asked", ["", "gres:shard:4", "gres:nvme:1", "gres:gpumem:40"])
def test_what_asks_for_no_gpu_is_refused(asked):
    passes, _, said = checked(tres_per_node=asked)
    assert not passes
    assert "asks for no GPU" in said[0]
