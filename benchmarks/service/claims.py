"""Ten thousand claims by two processes at once, on SQLite and PostgreSQL: each job to exactly one.

python -m benchmarks.service.claims [--jobs 10000]
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.machine import RESULTS, description
from tests.databases import missing_for_postgres, running_postgres
from tests.store.claimers import claim_all, fill_queue


def measure(url: str, jobs: int) -> dict[str, object]:
    """Claim `jobs` jobs by two processes; what each was given, and how long it took in all."""
    fill_queue(url, jobs)
    started = time.perf_counter()
    claimed = claim_all(url, processes=2)
    seconds = time.perf_counter() - started
    together = [job_id for mine in claimed for job_id in mine]
    return {
        "jobs": jobs,
        "claimed": len(together),
        "claimed_twice": len(together) - len(set(together)),
        "never_claimed": jobs - len(set(together)),
        "by_each": [len(mine) for mine in claimed],
        "seconds": round(seconds, 1),
        "claims_per_second": round(len(together) / seconds),
    }


def main() -> int:
    """Measure both databases, print and keep the result; 1 when a job was claimed twice or not at all."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.service.claims", description=__doc__)
    parser.add_argument("--jobs", type=int, default=10_000)
    jobs = parser.parse_args().jobs
    rows = {}
    with tempfile.TemporaryDirectory() as folder:
        rows["sqlite"] = measure(f"sqlite:///{Path(folder) / 'tightfit.sqlite3'}", jobs)
    if reason := missing_for_postgres():
        print(f"PostgreSQL {reason}", file=sys.stderr)
    else:
        with running_postgres() as server:
            rows["postgresql"] = measure(server.create_database(), jobs)
    for name, row in rows.items():
        print(f"{name:12}", json.dumps(row))
    result = {"machine": description("sqlalchemy", "psycopg"), "claims": rows}
    (RESULTS / "service-claims.json").write_text(json.dumps(result, indent=2) + "\n")
    return int(any(row["claimed_twice"] or row["never_claimed"] for row in rows.values()))


if __name__ == "__main__":
    sys.exit(main())
