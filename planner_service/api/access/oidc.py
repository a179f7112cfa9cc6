"""Callers that an identity provider vouches for: JSON Web Tokens of one OpenID Connect issuer.

The library (PyJWT) is loaded only where an issuer is configured: extra `oidc`.
"""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from planner_service.api.errors import IdentityUnavailable
from planner_service.security import Scope
from planner_service.settings import InvalidSetting, Settings, variable

if TYPE_CHECKING:
    from collections.abc import Mapping

ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA")
"""Asymmetric ones only: with a shared secret the issuer's public key could be taken for it."""
KEYS_SECONDS = 300
FETCH_SECONDS = 5
THREADS = 4
LEEWAY_SECONDS = 30
SCOPE_PREFIX = "tightfit:"
"""A provider's scopes are for many services: `tightfit:read` is our `read`."""


class TokenVerifier:
    """Checks signature, issuer, audience and times.

    The issuer's keys are fetched in threads of its own: while it hangs, nobody else waits.
    """

    def __init__(self, settings: Settings) -> None:
        """Raises InvalidSetting where the library is missing."""
        try:
            import jwt
        except ImportError:
            reason = "needs the extra: pip install 'tightfit[oidc]'"
            raise InvalidSetting(f"{variable('oidc_issuer')}={settings.oidc_issuer} {reason}") from None
        self._jwt = jwt
        self._issuer = settings.oidc_issuer
        self._audience = settings.oidc_audience
        self._claim = settings.oidc_scope_claim
        self._keys = jwt.PyJWKClient(settings.oidc_jwks_url, lifespan=KEYS_SECONDS, timeout=FETCH_SECONDS)
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="oidc")

    async def verify(self, token: str) -> tuple[str, frozenset[Scope]] | None:
        """The subject and its scopes; None for a token that does not count. Raises IdentityUnavailable."""
        checking = asyncio.get_running_loop().run_in_executor(self._threads, self._verify, token)
        await asyncio.wait({checking}, timeout=FETCH_SECONDS)
        if not checking.done():
            checking.cancel()
            raise IdentityUnavailable
        return checking.result()

    def _verify(self, token: str) -> tuple[str, frozenset[Scope]] | None:
        try:
            key = self._keys.get_signing_key_from_jwt(token)
            claims = self._jwt.decode(
                token,
                key,
                algorithms=list(ALGORITHMS),
                issuer=self._issuer,
                audience=self._audience,
                leeway=LEEWAY_SECONDS,
                options={"require": ["exp", "iss", "aud", "sub"]},
            )
        except self._jwt.PyJWKClientConnectionError as error:
            raise IdentityUnavailable from error
        except (self._jwt.PyJWTError, ValueError):
            return None
        return str(claims["sub"]), _scopes_in(claims, self._claim)


def _scopes_in(claims: Mapping[str, Any], claim: str) -> frozenset[Scope]:
    """Ours among the words of the claim: a text with spaces, or a list."""
    given = claims.get(claim, ())
    words = given.split() if isinstance(given, str) else given if isinstance(given, list) else ()
    ours = {SCOPE_PREFIX + scope: scope for scope in Scope}
    return frozenset(ours[word] for word in words if isinstance(word, str) and word in ours)
