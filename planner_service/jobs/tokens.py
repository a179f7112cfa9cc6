"""Bearer tokens: 256 random bits, of which the service keeps only the hash."""

from __future__ import annotations

import hashlib
import hmac
import secrets

_TOKEN_BYTES = 32


def new_token() -> str:
    """A token nobody can guess."""
    return secrets.token_urlsafe(_TOKEN_BYTES)


def token_hash(token: str) -> str:
    """SHA-256 of a token, in hexadecimal. A token has enough entropy to need no salt."""
    return hashlib.sha256(token.encode("utf-8", "surrogateescape")).hexdigest()


def is_token(given: str | None, kept_hash: str | None) -> bool:
    """Whether `given` is the token whose hash was kept, in a time that does not depend on either."""
    matches = hmac.compare_digest(token_hash(given or ""), kept_hash or token_hash(new_token()))
    return matches and given is not None and kept_hash is not None
