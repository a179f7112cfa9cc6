"""Many claims at once give every job to exactly one; `python -m benchmarks.service.claims` does 10,000."""

from __future__ import annotations

from tests.store.claimers import claim_all, fill_queue

JOBS = 400


def test_two_processes_that_claim_at_once_are_given_every_job_once(database_url):
    fill_queue(database_url, JOBS)
    claimed = claim_all(database_url, processes=2)
    together = [job_id for mine in claimed for job_id in mine]
    assert len(together) == len(set(together)) == JOBS
    assert all(claimed)  # both were given some
