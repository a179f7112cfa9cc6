"""API keys: `tfk_<id>_<secret>`, of which the service keeps the id and the secret's SHA-256.

The id is no secret: it finds the one hash that the secret is compared with, in constant time.
"""

from __future__ import annotations

import re
import secrets
from dataclasses import dataclass

from planner_service.jobs import is_token, new_token, token_hash
from planner_service.security.scopes import Scope

_PREFIX = "tfk"
_ID_BYTES = 6
_NAME = re.compile(r"[A-Za-z0-9._-]{1,64}")
"""No colon: names of other callers (`oidc:…`, `job:…`) have one, so that no key can be taken for them."""


class InvalidKeyName(ValueError):
    """A key's name is not a plain word."""

    def __init__(self, name: str) -> None:
        super().__init__(f"name={name!r} must be 1 to 64 letters, digits, dots, dashes or underscores")


@dataclass(frozen=True, kw_only=True)
class ApiKey:
    """What is kept of a key. Times are Unix seconds."""

    id: str
    name: str
    """Whose key it is; jobs and the audit log carry it. Several keys may share one, to be exchanged."""
    scopes: frozenset[Scope]
    secret_hash: str
    created_at: float
    expires_at: float | None = None
    revoked_at: float | None = None

    def is_valid(self, key: str, now: float) -> bool:
        """Whether `key` is this key and still counts at `now`."""
        secret = key.rpartition(f"{_PREFIX}_{self.id}_")[2]
        is_known = is_token(secret, self.secret_hash)
        is_over = self.expires_at is not None and self.expires_at <= now
        return is_known and not is_over and self.revoked_at is None


def new_api_key(
    name: str, scopes: frozenset[Scope], *, now: float, expires_at: float | None = None
) -> tuple[str, ApiKey]:
    """A key that nobody can guess (256 random bits), and what to keep of it. Raises InvalidKeyName."""
    if not _NAME.fullmatch(name):
        raise InvalidKeyName(name)
    key_id, secret = secrets.token_hex(_ID_BYTES), new_token()
    kept = ApiKey(
        id=key_id,
        name=name,
        scopes=scopes,
        secret_hash=token_hash(secret),
        created_at=now,
        expires_at=expires_at,
    )
    return f"{_PREFIX}_{key_id}_{secret}", kept


def key_id_of(credentials: str) -> str | None:
    """The id in what looks like a key, else None."""
    prefix, _, rest = credentials.partition("_")
    key_id, separator, _ = rest.partition("_")
    return key_id if prefix == _PREFIX and separator else None
