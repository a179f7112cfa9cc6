"""Bearer tokens: what each kind is good for, and the refusal to start where nobody could have one."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import Engine

from planner_service.api.access.access import Access
from planner_service.api.access.key_ring import KeyRing
from planner_service.api.access.oidc import TokenVerifier
from planner_service.api.storage import stored
from planner_service.jobs import InvalidToken, token_hash
from planner_service.security import ApiKey
from planner_service.security import Scope as Right
from planner_service.settings import Settings
from planner_service.store import KeyStore


class KeysNeeded(Exception):
    """Other machines may reach the service, and there is no key that it could ask them for."""

    def __init__(self, host: str) -> None:
        super().__init__(
            f"other machines can reach {host}, and nobody has a key: make one with `tightfit keys create "
            f"NAME --scope admin` on the same database, or listen on 127.0.0.1"
        )


@dataclass(frozen=True)
class Grant:
    """What credentials are good for."""

    caller: str
    rights: frozenset[Right]
    is_attempt: bool = False
    is_key: bool = False
    """It costs next to nothing to ask about it again."""

    def allows(self, access: Access) -> bool:
        """Whether a route with this rule may be called."""
        if self.is_attempt:
            return access.for_attempts
        return access.scope in self.rights or Right.ADMIN in self.rights


class Credentials:
    """Finds out what a bearer token is: an API key, an identity provider's, or an attempt's."""

    def __init__(self, settings: Settings, engine: Engine, own_keys: Sequence[ApiKey] = ()) -> None:
        """Raises InvalidSetting where OpenID Connect is configured and its library is missing."""
        self._store = KeyStore(engine)
        self._ring = KeyRing(self._store, own=own_keys)
        self._verifier = TokenVerifier(settings) if settings.oidc_issuer else None

    async def of_key(self, token: str) -> Grant | None:
        """What an API key is good for; None where `token` is none. Raises SQLAlchemyError."""
        key = await self._ring.find(token)
        return None if key is None else Grant(key.name, key.scopes, is_key=True)

    async def of_token(self, token: str) -> Grant | None:
        """The same for tokens that are no keys. Raises SQLAlchemyError and IdentityUnavailable."""
        if self._verifier is not None and token.count(".") == 2:
            found = await self._verifier.verify(token)
            return None if found is None else Grant(f"oidc:{found[0]}", found[1])
        attempt = await stored(self._store.attempt_of, token_hash(token)) if token else None
        return None if attempt is None else Grant(f"job:{attempt}", frozenset(), is_attempt=True)

    async def require_token_of(self, job_id: str, token: str, *, opens: bool) -> None:
        """Raises InvalidToken unless `token` is one of the job's: its launch token, or an attempt's.

        Raises UnknownJob and JobNotAssigned as the store does, and SQLAlchemyError.
        """
        if not token:
            raise InvalidToken
        await stored(self._store.require_token_of, job_id, token_hash(token), opens=opens)


def require_keys(settings: Settings, engine: Engine) -> None:
    """Raises KeysNeeded where everybody would be asked for a key and nobody could have one."""
    if not settings.asks_who or settings.oidc_issuer:
        return
    now = time.time()
    keys = KeyStore(engine).all()
    if not any(key.revoked_at is None and (key.expires_at or now + 1) > now for key in keys):
        raise KeysNeeded(settings.host)
