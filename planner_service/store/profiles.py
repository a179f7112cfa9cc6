"""Profiles: what probes measured, each kept once."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any, NamedTuple

from sqlalchemy import Engine, Row, Select, delete, select

from planner_service.contract import ProfileRecord, canonical_json
from planner_service.contract.newer import as_far_as_known
from planner_service.store.database import writing
from planner_service.store.pages import latest_rows
from planner_service.store.profile_tables import profiles
from planner_service.store.residuals import Family, Residual, residuals_of
from planner_service.store.upsert import insert_into

MOST_PROFILES = 200
"""Of one family that an estimate rests on: the latest."""

Clock = Callable[[], float]


class KeptProfile(NamedTuple):
    """A profile as it is kept."""

    number: int
    id: str
    received_at: datetime
    device_name: str
    record: ProfileRecord
    is_readable: bool
    """False: a newer service took it, and this version would plan with less than was measured."""

    @property
    def family(self) -> Family:
        """What it calibrates."""
        return family_of(self.record)


def device_name_of(record: ProfileRecord) -> str:
    """The device by name; where nobody told it, as torch calls it."""
    return record.device_name or record.device


def family_of(record: ProfileRecord) -> Family:
    """What a profile is one of."""
    return Family(device_name_of(record), record.cell, record.implementation, record.dtype)


class ProfileStore:
    """Profiles in the database. Every method is one transaction, committed before it returns."""

    def __init__(self, engine: Engine, *, clock: Clock = time.time) -> None:
        self._engine = engine
        self._clock = clock

    def add(self, record: ProfileRecord, *, subject: str) -> tuple[KeptProfile, bool]:
        """Keep `record`, once however often it is sent; return it and whether it is new.

        `subject` names what was probed: profiles of equal subjects fit the same requests.
        """
        document = canonical_json(record)
        row = {
            **family_of(record)._asdict(),
            "id": hashlib.sha256(document).hexdigest()[:32],
            "torch": record.torch,
            "subject": subject,
            "received_at": self._clock(),
            "record": document,
        }
        with writing(self._engine) as connection:
            kept = (
                insert_into(connection, profiles)
                .values(row)
                .on_conflict_do_nothing()
                .returning(profiles.c.id)
            )
            is_new = connection.execute(kept).first() is not None
            found = connection.execute(select(profiles).where(profiles.c.id == row["id"])).one()
        return _profile(found), is_new

    def get(self, profile_id: str) -> KeptProfile | None:
        """The profile, or None."""
        with self._engine.connect() as connection:
            row = connection.execute(select(profiles).where(profiles.c.id == profile_id)).first()
        return None if row is None else _profile(row)

    def forget(self, profile_id: str) -> bool:
        """Delete the profile; whether there was one. Plans made with it have it in their requests."""
        with writing(self._engine) as connection:
            return bool(connection.execute(delete(profiles).where(profiles.c.id == profile_id)).rowcount)

    def latest_of(self, subject: str, *, device_name: str) -> KeptProfile | None:
        """The latest readable profile of that subject on that device, or None."""
        is_one = (profiles.c.subject == subject, profiles.c.device_name == device_name)
        latest = select(profiles).where(*is_one).order_by(profiles.c.number.desc()).limit(MOST_PROFILES)
        return next(self._readable(latest), None)

    def latest_on(self, device_name: str) -> KeptProfile | None:
        """The latest readable profile of any model on that device, or None."""
        is_there = profiles.c.device_name == device_name
        latest = select(profiles).where(is_there).order_by(profiles.c.number.desc()).limit(MOST_PROFILES)
        return next(self._readable(latest), None)

    def of_family(self, family: Family) -> list[KeptProfile]:
        """The latest readable profiles of the family, of the torch version of the very latest."""
        is_one = [profiles.c[name] == value for name, value in family._asdict().items()]
        latest = select(profiles.c.torch).where(*is_one).order_by(profiles.c.number.desc()).limit(1)
        with self._engine.connect() as connection:
            version = connection.execute(latest).scalar()
        query = select(profiles).where(*is_one, profiles.c.torch == version)
        return [*self._readable(query.order_by(profiles.c.number.desc()).limit(MOST_PROFILES))]

    def residuals(self, family: Family) -> list[Residual]:
        """How the peaks of the family's runs came out: of each segment length the largest."""
        with self._engine.connect() as connection:
            return residuals_of(connection, family)

    def page(
        self, *, limit: int, before: int | None, device_name: str | None, cell: str | None
    ) -> tuple[list[KeptProfile], str | None]:
        """The latest `limit` profiles, or those before the row numbered `before`; and the next cursor."""
        wanted = {"device_name": device_name, "cell": cell}
        rows, cursor = latest_rows(
            self._engine, select(profiles), profiles, limit=limit, before=before, **wanted
        )
        return [_profile(row) for row in rows], cursor

    def _readable(self, query: Select[Any]) -> Iterator[KeptProfile]:
        with self._engine.connect() as connection:
            rows = connection.execute(query).all()
        return (kept for kept in map(_profile, rows) if kept.is_readable)


def _profile(row: Row[Any]) -> KeptProfile:
    received_at = datetime.fromtimestamp(row.received_at, UTC)
    try:
        record, is_readable = ProfileRecord.model_validate_json(row.record), True
    except ValueError:
        record, is_readable = as_far_as_known(ProfileRecord, row.record), False
    return KeptProfile(row.number, row.id, received_at, row.device_name, record, is_readable)
