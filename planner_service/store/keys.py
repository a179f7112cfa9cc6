"""API keys in the database: made and revoked by an operator's command, read by every service."""

from __future__ import annotations

import hmac
import time

from sqlalchemy import Engine, insert, select, update

from planner_service.jobs import InvalidToken, JobNotAssigned, UnknownJob
from planner_service.security import ApiKey, scopes_of
from planner_service.store.database import writing
from planner_service.store.job_records import JobRow
from planner_service.store.job_tables import attempts, jobs
from planner_service.store.security_tables import api_keys


class KeyStore:
    """Keys. Every method is one transaction."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def add(self, key: ApiKey) -> None:
        """Keep a new key."""
        values = {**vars(key), "scopes": " ".join(sorted(key.scopes))}
        with writing(self._engine) as connection:
            connection.execute(insert(api_keys).values(values))

    def all(self) -> list[ApiKey]:
        """Every key, the oldest first, revoked ones too."""
        with self._engine.connect() as connection:
            rows = connection.execute(select(api_keys).order_by(api_keys.c.created_at, api_keys.c.id)).all()
        return [_key_of(row) for row in rows]

    def revoke(self, key_id: str, *, now: float | None = None) -> ApiKey | None:
        """The key, worth nothing from now on; None when there is none of this id."""
        at = time.time() if now is None else now
        with writing(self._engine) as connection:
            is_it = api_keys.c.id == key_id
            valid = is_it & api_keys.c.revoked_at.is_(None)
            connection.execute(update(api_keys).where(valid).values(revoked_at=at))
            row = connection.execute(select(api_keys).where(is_it)).one_or_none()
        return None if row is None else _key_of(row)

    def attempt_of(self, token_hash: str) -> str | None:
        """`job/number` of the open attempt that has this token, if no newer one was opened."""
        query = (
            select(jobs.c.id, attempts.c.number)
            .join(jobs, jobs.c.number == attempts.c.job)
            .where(
                attempts.c.token_hash == token_hash,
                attempts.c.number == jobs.c.attempt,
                attempts.c.ended_at.is_(None),
            )
        )
        with self._engine.connect() as connection:
            row = connection.execute(query).one_or_none()
        return None if row is None else f"{row.id}/{row.number}"

    def require_token_of(self, job_id: str, hashed: str, *, opens: bool) -> None:
        """Raises InvalidToken unless a token with that hash is the job's: the launch token, or an attempt's.

        Attempts that have ended or were replaced count: what is said to them is not said here. A job that
        nobody was given is JobNotAssigned, whatever the token. Raises UnknownJob.
        """
        job = select(jobs.c.number, jobs.c.state, jobs.c.launch_hash).where(jobs.c.id == job_id)
        with self._engine.connect() as connection:
            found = connection.execute(job).one_or_none()
            if found is None:
                raise UnknownJob(job_id)
            is_one = (attempts.c.job == found.number) & (attempts.c.token_hash == hashed)
            is_known = connection.execute(select(attempts.c.number).where(is_one)).first() is not None
        if opens and found.launch_hash is None:
            raise JobNotAssigned(state=found.state)
        if not (hmac.compare_digest(hashed, found.launch_hash or "") if opens else is_known):
            raise InvalidToken


def _key_of(row: JobRow) -> ApiKey:
    fields = row._asdict()
    return ApiKey(**{**fields, "scopes": scopes_of(fields["scopes"].split())})
