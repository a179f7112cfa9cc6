"""Tokens of an identity provider: a real issuer's keys over a real socket, checked by a running service."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpx
import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa

from planner_service.api.access import oidc
from planner_service.api.errors import IdentityUnavailable
from planner_service.settings import InvalidSetting, Settings
from tests.serving import Serving, start_service

ISSUER = "https://issuer.example"
Claims = dict[str, Any]


@pytest.fixture(scope="module")
def private_key() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


@pytest.fixture(scope="module")
def jwks_url(private_key: rsa.RSAPrivateKey) -> Iterator[str]:
    public = json.loads(jwt.algorithms.RSAAlgorithm.to_jwk(private_key.public_key()))
    document = json.dumps({"keys": [{**public, "kid": "k1", "use": "sig", "alg": "RS256"}]}).encode()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("content-length", str(len(document)))
            self.end_headers()
            self.wfile.write(document)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}/keys"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture(scope="module")
def trusting(tmp_path_factory: pytest.TempPathFactory, jwks_url: str) -> Iterator[Serving]:
    running = start_service(
        tmp_path_factory.mktemp("oidc"),
        TIGHTFIT_AUTHENTICATION="always",
        TIGHTFIT_OIDC_ISSUER=ISSUER,
        TIGHTFIT_OIDC_JWKS_URL=jwks_url,
    )
    yield running
    running.kill()


@pytest.fixture
def ask(trusting: Serving) -> Callable[[str], httpx.Response]:
    """GET /v1/jobs with a token."""
    return lambda token: httpx.get(
        f"{trusting.url}/v1/jobs", headers={"authorization": f"Bearer {token}"}, timeout=60
    )


def claims(**changes: Any) -> Claims:
    """What the issuer says of somebody who may read; a change to None leaves the claim out."""
    now = int(time.time())
    said = {"iss": ISSUER, "aud": "tightfit", "sub": "ada", "exp": now + 600, "scope": "tightfit:read mail"}
    return {name: value for name, value in (said | changes).items() if value is not None}


def signed(private_key: rsa.RSAPrivateKey, said: Claims) -> str:
    return jwt.encode(said, private_key, algorithm="RS256", headers={"kid": "k1"})


@pytest.mark.parametrize("scope", ["tightfit:read mail", ["tightfit:read"], "tightfit:admin"])
def test_a_token_of_the_issuer_opens_what_its_scopes_say(ask, private_key, scope):
    assert ask(signed(private_key, claims(scope=scope))).is_success


@pytest.mark.parametrize("scope", ["read", "tightfit:plan", None, 7, "tightfit:"])
def test_without_our_scope_it_is_403(ask, private_key, scope):
    assert ask(signed(private_key, claims(scope=scope))).status_code == 403


@pytest.mark.parametrize(
    "change",
    [
        {"iss": "https://other.example"},
        {"aud": "other"},
        {"exp": 1_000_000_000},
        {"exp": None},
        {"sub": None},
        {"nbf": 4_000_000_000},
    ],
)
def test_a_claim_that_does_not_hold_is_401(ask, private_key, change):
    assert ask(signed(private_key, claims(**change))).status_code == 401


def test_a_token_of_another_key_or_of_none_is_401(ask, private_key):
    other = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    assert ask(signed(other, claims())).status_code == 401
    assert ask(jwt.encode(claims(), None, algorithm="none", headers={"kid": "k1"})).status_code == 401
    shared = jwt.encode(claims(), "x" * 32, algorithm="HS256", headers={"kid": "k1"})
    assert ask(shared).status_code == 401
    head, _, signature = signed(private_key, claims()).split(".")
    forged = signed(other, claims(scope="tightfit:admin")).split(".")[1]
    assert ask(f"{head}.{forged}.{signature}").status_code == 401


def test_tokens_that_name_keys_which_there_are_not_do_not_ask_the_provider_each_time(private_key, jwks_url):
    """Anybody can make them up, hundreds a second, and nobody else's token is checked while it is asked"""
    verifier = oidc.TokenVerifier(Settings(oidc_issuer=ISSUER, oidc_jwks_url=jwks_url))
    fetch, fetched = verifier._keys.fetch_data, []
    verifier._keys.fetch_data = lambda: fetched.append(1) or fetch()
    guesses = [
        jwt.encode(claims(), private_key, algorithm="RS256", headers={"kid": f"made up {number}"})
        for number in range(20)
    ]

    async def verified() -> list[object]:
        return [await verifier.verify(token) for token in (signed(private_key, claims()), *guesses)]

    known, *unknown = asyncio.run(verified())
    assert known is not None
    assert unknown == [None] * 20
    assert len(fetched) == 1


def test_a_provider_that_hangs_holds_up_nobody_but_its_own_callers(private_key, monkeypatch):
    monkeypatch.setattr(oidc, "FETCH_SECONDS", 0.5)
    token = signed(private_key, claims())

    async def ask_while_it_hangs(url: str) -> tuple[list[object], float]:
        settings = Settings(oidc_issuer=ISSUER, oidc_jwks_url=url)
        verifier = oidc.TokenVerifier(settings)
        asked = [asyncio.create_task(verifier.verify(token)) for _ in range(40)]
        await asyncio.sleep(0.05)
        begin = time.monotonic()
        await asyncio.to_thread(time.monotonic)  # the threads that read bodies and look at leases
        waited_seconds = time.monotonic() - begin
        return await asyncio.gather(*asked, return_exceptions=True), waited_seconds

    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/keys"
        answers, waited_seconds = asyncio.run(ask_while_it_hangs(url))
    assert {type(answer) for answer in answers} == {IdentityUnavailable}
    assert waited_seconds < 0.3


def test_an_issuer_without_its_keys_url_is_refused():
    with pytest.raises(InvalidSetting, match="TIGHTFIT_OIDC_JWKS_URL"):
        Settings(oidc_issuer=ISSUER)
