"""A disk that takes no more costs what would be kept on it, not the training, and no attempt."""

import pytest

torch = pytest.importorskip("torch")

from executor.attempt.supervisor import Ending  # noqa: E402
from tests.executor.attempt.workers import JOB, Worker, claim, job_of, submit  # noqa: E402

SHORT = {**JOB, "training": {"iterations": 3}}

NO_ROOM = """
import os, resource, sys, tempfile
from executor.cli import main
tempfile.gettempdir()  # that one is a disk of its own
resource.setrlimit(resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))
os.dup2(os.open("/dev/full", os.O_WRONLY), 2)
sys.exit(main())
"""
"""A worker whose files take not a byte, and whose standard error has no room left."""


@pytest.fixture
def ended(url, tmp_path):
    """Submits a job of three iterations, runs a worker on it; its exit status, and the job afterwards."""

    def run(code):
        job_id = submit(url, SHORT)
        claimed, token = claim(url)
        assert claimed == job_id
        arguments = ("attempt", "--planner", url, "--job", job_id, "--work-dir", str(tmp_path / "work"))
        worker = Worker(tmp_path, *arguments, code=code, TIGHTFIT_LAUNCH_TOKEN=token)
        try:
            return worker.ended(), job_of(url, job_id)
        finally:
            worker.close()

    return run


@pytest.mark.skipif(torch.__version__ < "2.13", reason="2.6 to 2.8 write a file where an optimizer is made")
def test_a_result_arrives_though_nothing_of_it_can_be_kept(ended, tmp_path):
    """Neither weights, nor the log, nor the report, nor what the supervisor says: succeeded all the same"""
    status, done = ended(NO_ROOM)
    assert (done["state"], done["iteration"], done["detail"]) == ("succeeded", 3, None)
    assert status == Ending.SUCCEEDED
    (folder,) = (tmp_path / "work").iterdir()
    assert all(file.stat().st_size == 0 for file in folder.iterdir())


NO_PROCESS = """
import sys
from executor.attempt import supervisor
from executor.cli import main

def refuse(*_arguments, **_options):
    raise BlockingIOError(11, "Resource temporarily unavailable")

supervisor.Trainer = refuse
sys.exit(main())
"""
"""A machine that has no process left for the trainer."""


def test_a_fault_of_the_supervisor_is_reported_and_not_waited_out(ended):
    """Exit status 1, an error that counts: not 2, and no lease that runs out for free"""
    status, after = ended(NO_PROCESS)
    assert (after["state"], after["failures"]) == ("queued", 1)
    assert status == Ending.FAILED
