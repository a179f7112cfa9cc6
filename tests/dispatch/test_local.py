"""The local engine starts, watches and stops real processes."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import pytest

from planner_service.dispatch import EngineRefused, Launch, attempt_command
from planner_service.dispatch.local import LocalEngine
from tests.serving import eventually

WAIT_SECONDS = 10.0


def launch(folder, script, *, number=1):
    return Launch(
        job_id="j1",
        number=number,
        command=(sys.executable, "-c", script),
        launch_token="secret",
        work_dir=str(folder),
    )


def ended(engine, reference):
    return eventually(lambda: engine.status(reference).state != "running", WAIT_SECONDS)


def test_the_worker_has_the_token_in_its_environment_and_its_output_in_a_file(tmp_path, monkeypatch):
    """Of the service's own variables it has none, of the switches of its kernels all"""
    monkeypatch.setenv("TIGHTFIT_PORT", "1")
    monkeypatch.setenv("TIGHTFIT_API_KEY", "the service's")
    monkeypatch.setenv("TIGHTFIT_FUSED_KERNELS", "off")
    engine = LocalEngine()
    script = "import os; print(*sorted(k for k in os.environ if k.startswith('TIGHTFIT_')))"
    reference = engine.submit(launch(tmp_path / "work", script))
    assert ended(engine, reference)
    assert engine.status(reference).state == "succeeded"
    assert (tmp_path / "work" / "worker.log").read_text() == "TIGHTFIT_FUSED_KERNELS TIGHTFIT_LAUNCH_TOKEN\n"


def test_a_failing_worker_is_told_with_its_exit_status(tmp_path):
    engine = LocalEngine()
    reference = engine.submit(launch(tmp_path, "raise SystemExit(3)"))
    assert ended(engine, reference)
    assert engine.status(reference) == type(engine.status(reference))("failed", "exit status 3")


def test_submitting_a_launch_again_starts_nothing(tmp_path):
    engine = LocalEngine()
    again = launch(tmp_path, f"open({str(tmp_path / 'ran')!r}, 'a').write('x')")
    reference = engine.submit(again)
    assert engine.submit(again) == reference
    assert ended(engine, reference)
    assert engine.submit(again) == reference
    assert (tmp_path / "ran").read_text() == "x"


def test_the_next_launch_of_a_job_is_another_process(tmp_path):
    engine = LocalEngine()
    references = {engine.submit(launch(tmp_path, "", number=number)) for number in (1, 2)}
    assert len(references) == 2
    assert all(ended(engine, reference) for reference in references)


def test_cancelling_reaches_the_whole_process_group(tmp_path):
    engine = LocalEngine()
    script = (
        "import subprocess, sys, time\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])\n"
        f"open({str(tmp_path / 'child')!r}, 'w').write(str(child.pid))\n"
        "time.sleep(60)"
    )
    reference = engine.submit(launch(tmp_path, script))
    assert eventually(lambda: (tmp_path / "child").exists() and _child(tmp_path), WAIT_SECONDS)
    engine.cancel(reference)
    assert ended(engine, reference)
    assert eventually(lambda: not _runs(_child(tmp_path)), WAIT_SECONDS)
    engine.cancel(reference)  # over already: nothing happens


def _child(folder: Path) -> int:
    text = (folder / "child").read_text()
    return int(text) if text else 0


def _runs(process_id: int) -> bool:
    try:
        state = Path(f"/proc/{process_id}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


def test_a_restarted_service_still_finds_and_stops_its_worker(tmp_path):
    former = LocalEngine()
    reference = former.submit(launch(tmp_path, "import time; time.sleep(60)"))
    engine = LocalEngine()
    assert engine.status(reference).state == "running"
    engine.cancel(reference)
    assert ended(former, reference)
    assert engine.status(reference).state == "missing"


def test_another_process_of_the_same_id_is_not_mistaken_for_the_worker():
    engine = LocalEngine()
    assert engine.status(f"{os.getpid()}:0").state == "missing"
    engine.cancel(f"{os.getpid()}:0")  # would have sent SIGTERM to this very test
    assert signal.SIGTERM not in signal.sigpending()


def test_a_worker_on_another_machine_is_left_to_its_own_service(tmp_path):
    """Services of two machines on one database: to the other one the process is not missing, nor its own"""
    engine, elsewhere = LocalEngine(machine="a"), LocalEngine(machine="b")
    reference = engine.submit(launch(tmp_path, "import time; time.sleep(60)"))
    assert elsewhere.status(reference).state == "running"
    elsewhere.cancel(reference)  # there, the id may be anybody's
    assert not eventually(lambda: engine.status(reference).state != "running", 0.2)
    engine.cancel(reference)
    assert ended(engine, reference)
    assert elsewhere.status(reference).state == "running"  # its silence will tell


def test_a_command_that_is_not_there_is_refused(tmp_path):
    missing = Launch(job_id="j", number=1, command=("no-such",), launch_token="t", work_dir=str(tmp_path))
    with pytest.raises(EngineRefused, match="no-such cannot be started"):
        LocalEngine().submit(missing)


def test_the_command_is_that_of_every_engine_and_hides_the_token(tmp_path):
    command = attempt_command(planner_url="http://h:1", job_id="j", work_dir="w")
    assert (
        " ".join(command)
        == "tightfit-worker attempt --planner http://h:1 --job j --work-dir w --save-seconds 60"
    )
    assert "secret" not in repr(launch(tmp_path, ""))


def test_an_ended_worker_that_nobody_asks_about_leaves_no_zombie(tmp_path):
    engine = LocalEngine()
    reference = engine.submit(launch(tmp_path, ""))
    process_id = int(reference.partition(":")[0])
    assert eventually(lambda: not Path(f"/proc/{process_id}").exists(), WAIT_SECONDS)
    assert engine.status(reference).state == "succeeded"


def test_a_worker_is_withdrawn_by_the_name_of_its_launch(tmp_path):
    engine = LocalEngine()
    running = launch(tmp_path, "import time; time.sleep(60)")
    reference = engine.submit(running)
    engine.withdraw("tightfit-j1-9")
    assert engine.status(reference).state == "running"
    engine.withdraw(running.name)
    assert ended(engine, reference)
