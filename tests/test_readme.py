"""What the README shows works: its commands run, its code runs, its figures are what the planner says."""

import json
import os
import re
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parent.parent
TEXT = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language, text=TEXT):
    """The code blocks of a language, in order."""
    return re.findall(rf"^```{language}\n(.*?)^```", text, flags=re.DOTALL | re.MULTILINE)


COMMANDS = [
    line.removeprefix("$ ")
    for block in blocks("console")
    for line in block.splitlines()
    if line.startswith("$ ")
]


@pytest.fixture
def folder(tmp_path):
    """An empty folder with the files that the commands read."""
    for name in ("examples", "openapi", "Makefile", "pyproject.toml", "constraints.txt"):
        (tmp_path / name).symlink_to(ROOT / name)
    return tmp_path


def run(script, folder):
    """Run a shell script with this environment's commands first in the path."""
    environ = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    return subprocess.run(["bash", "-c", script], cwd=folder, env=environ, capture_output=True, text=True)


@pytest.mark.parametrize(
    "command", [each for each in COMMANDS if each.startswith("tightfit") and "serve" not in each]
)
def test_a_command_succeeds(command, folder):
    """Every tightfit command ends with status 0 and says something"""
    finished = run(command, folder)
    assert finished.returncode == 0, finished.stderr
    assert finished.stdout + finished.stderr


@pytest.mark.parametrize("command", [each for each in COMMANDS if each.startswith("make")])
def test_a_target_exists(command, folder):
    """`make -n` knows every target"""
    assert run(command.replace("make", "make --dry-run", 1), folder).returncode == 0


@pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")
def test_the_service_answers_the_request_that_is_shown(folder):
    """The commands that start the service and ask it print a plan with the figures of the reply shown"""
    (block,) = [each for each in blocks("console") if "serve" in each]
    # The service's own line would land before, after or behind the reply, whenever its kernels are warm.
    lines = [line.removeprefix("$ ").replace("8080 &", "8080 >&2 &") for line in block.splitlines()]
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = str(listener.getsockname()[1])
    script = "\n".join(["trap 'kill $(jobs -p)' EXIT", *lines]).replace("8080", port)
    finished = run(script, folder)
    reply = json.loads(finished.stdout)
    _, shown = (json.loads(each) for each in blocks("json"))
    for name, value in shown.items():
        found = {key: reply[name][key] for key in value} if isinstance(value, dict) else reply[name]
        assert found == value


def test_the_request_that_is_shown_is_the_file():
    """The JSON block and openapi/examples/plans/lstm.json are the same request"""
    shown = json.loads(blocks("json")[0])
    assert shown == json.loads((ROOT / "openapi/examples/plans/lstm.json").read_text())


@pytest.mark.parametrize("code", blocks("python"), ids=["unroll", "drop-in"])
def test_the_code_runs(code, capsys):
    """The Python examples run, and the measured peak is within the budget that they name"""
    exec(compile(code, "README.md", "exec"), {})  # noqa: S102 - our own document
    printed = capsys.readouterr().out.strip()
    if "2MiB" in code:
        assert 0 < int(printed) <= 2 * 2**20


def executors_page():
    """Its examples, compiled"""
    codes = blocks("python", (ROOT / "docs/executor.md").read_text(encoding="utf-8"))
    return [compile(code, "executor.md", "exec") for code in codes]


def test_the_executors_page_shows_a_loop_that_runs(capsys):
    """Its prediction fits the budget of the example, and full BPTT would not"""
    code, _ = executors_page()
    found = {}
    exec(code, found)  # noqa: S102 - our own document
    prediction = found["prediction"]
    assert prediction.projected_peak_bytes <= 128 * 2**10 < prediction.full_bptt_peak_bytes
    assert capsys.readouterr().out == f"{prediction}\n"


def test_the_executors_page_brings_a_layer_along_that_keeps_its_state():
    """With the gradients of the loop that anybody would write"""
    _, code = executors_page()
    found = {}
    torch.manual_seed(1)
    exec(code, found)  # noqa: S102 - our own document
    layer, gradients = found["layer"], [each.grad for each in found["layer"].parameters()]
    torch.manual_seed(1)
    twin = found["Leaky"]()
    assert torch.equal(twin.linear.weight, layer.linear.weight)
    rate = sum(twin(x).mean() for x in torch.randn(200, 4, 8))
    torch.testing.assert_close(gradients, [*torch.autograd.grad(rate, [*twin.parameters()])])
