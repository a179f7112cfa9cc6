"""The keys that count, in memory: the database is asked every few seconds, not for every request."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Sequence

from sqlalchemy.exc import SQLAlchemyError

from planner_service.api.errors import StorageStalled
from planner_service.api.storage import within
from planner_service.security import ApiKey, key_id_of
from planner_service.store import KeyStore

log = logging.getLogger(__name__)

REFRESH_SECONDS = 5.0
"""A key that was revoked stops working within this, in every process of the service."""
READ_SECONDS = 2.0
"""All requests with keys wait for a read."""
UNKNOWN_REFRESH_SECONDS = 1.0
"""How soon a key that was just made is looked for; guesses must not ask the database each time."""


class KeyRing:
    """Finds keys. While the database does not answer, those that were read last go on counting."""

    def __init__(self, store: KeyStore, *, own: Sequence[ApiKey] = ()) -> None:
        """`own` keys count without being in the database: the embedded worker's."""
        self._store = store
        self._own = {key.id: key for key in own}
        self._keys: dict[str, ApiKey] = {}
        self._read_at = float("-inf")
        self._reading = asyncio.Lock()

    async def find(self, credentials: str) -> ApiKey | None:
        """The key that `credentials` are, if it counts now. Raises SQLAlchemyError and StorageStalled
        before the first read.
        """
        key_id = key_id_of(credentials)
        if key_id is None:
            return None
        await self._refresh(REFRESH_SECONDS if key_id in self._keys else UNKNOWN_REFRESH_SECONDS)
        key = self._own.get(key_id) or self._keys.get(key_id)
        return key if key is not None and key.is_valid(credentials, time.time()) else None

    async def _refresh(self, after_seconds: float) -> None:
        if time.monotonic() - self._read_at < after_seconds:
            return
        async with self._reading:
            if time.monotonic() - self._read_at < after_seconds:
                return
            try:
                found = await within(READ_SECONDS, self._store.all)
            except (SQLAlchemyError, StorageStalled) as error:
                if self._read_at == float("-inf"):
                    raise
                log.warning("keys not read: %s", error, extra={"action": "keys_not_read"})
            else:
                self._keys = {key.id: key for key in found}
            self._read_at = time.monotonic()
