"""A message that the service will not take is no fence: the result arrives with less in it."""

import pytest

pytest.importorskip("torch")

from executor.attempt.refusals import FENCES, require_no_fence, without_what_may_be_refused
from executor.attempt.supervisor import Ending
from executor.attempt.trainer import MOST_LOSSES, _timings
from executor.service.link import Refused
from tests.executor.attempt.workers import JOB, LEASES, attempt, job_of, report_of, submit
from tests.serving import start_service


def test_a_report_that_is_too_large_for_the_service_is_sent_without_its_losses(tmp_path):
    """413 to the whole report: the job succeeds all the same, and its detail says what is missing"""
    service = start_service(tmp_path / "service", **LEASES, TIGHTFIT_MAX_BODY_BYTES="6000")
    try:
        short = {"sequence": {"length": 4, "batch_size": 1}, "training": {"iterations": 500}}
        job_id = submit(service.url, {**JOB, **short})
        worker, _ = attempt(service.url, tmp_path)
        assert worker.ended() == Ending.SUCCEEDED
        done = job_of(service.url, job_id)
        assert (done["state"], done["iteration"], done["failures"]) == ("succeeded", 500, 0)
        assert "reported without losses" in done["detail"]
        assert done["measurement_id"] is not None
        assert len(report_of(tmp_path, job_id, 1)["measurement"]["losses"]) == 500  # kept where it trained
    finally:
        service.kill()


def test_only_statuses_about_the_attempt_are_fences():
    for status in (400, 403, 413, 415, 422):
        require_no_fence(Refused(status, "any", "any"))
    for status in FENCES:
        with pytest.raises(Refused):
            require_no_fence(Refused(status, "any", "any"))


def test_a_refused_report_loses_its_losses_then_its_measurement_and_says_so():
    report = {"outcome": "error", "detail": "boom", "measurement": {"job": "j", "losses": [1.0]}}
    first = without_what_may_be_refused(report, "422")
    assert first is not None
    assert first["measurement"] == {"job": "j", "losses": []}
    second = without_what_may_be_refused(first, "again")
    assert second is not None
    assert set(second) == {"outcome", "detail"}
    assert second["detail"].startswith("boom; reported without losses")
    assert second["detail"].endswith(
        "reported without the measurement, which the service did not take: again"
    )
    assert without_what_may_be_refused(second, "422") is None


def test_a_million_losses_are_thinned_evenly():
    told = _timings([float(number) for number in range(1, 1_000_001)], [1.0])
    assert told["losses_every"] == 100
    assert told["losses"] == [float(number) for number in range(100, 1_000_001, 100)]
    few = _timings([float("nan")] * MOST_LOSSES, [1.0])
    assert few["losses"] == [None] * MOST_LOSSES
    assert "losses_every" not in few
