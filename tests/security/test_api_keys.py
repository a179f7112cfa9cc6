"""Keys are compared by their hashes, expire, and can be revoked; limits let through what they should."""

from __future__ import annotations

from dataclasses import replace

import pytest

from planner_service.api.access.rate_limit import MOST_CALLERS, RateLimit
from planner_service.security import InvalidKeyName, Scope, UnknownScope, key_id_of, new_api_key, scopes_of

READ = frozenset({Scope.READ})


def test_a_key_is_valid_until_it_expires_or_is_revoked():
    text, key = new_api_key("ada", READ, now=100, expires_at=200)
    assert key_id_of(text) == key.id
    assert key.is_valid(text, 199)
    assert not key.is_valid(text, 200)
    assert not replace(key, revoked_at=150.0).is_valid(text, 160)


def test_a_key_has_256_random_bits_of_which_none_are_kept():
    text, key = new_api_key("ada", READ, now=0)
    secret = text.split("_", 2)[2]
    assert len(secret) == 43
    assert secret not in repr(key)
    other, _ = new_api_key("ada", READ, now=0)
    assert other != text


@pytest.mark.parametrize("damage", [lambda text: text[:-1], lambda text: text + "x", str.upper, lambda _: ""])
def test_a_damaged_key_is_not_valid(damage):
    text, key = new_api_key("ada", READ, now=0)
    assert not key.is_valid(damage(text), 0)


@pytest.mark.parametrize("name", ["", "oidc:ada", "job:1", "a b", "a" * 65, "ä"])
def test_a_name_that_could_be_another_callers_is_refused(name):
    with pytest.raises(InvalidKeyName):
        new_api_key(name, READ, now=0)


def test_an_unknown_scope_is_refused_by_name():
    assert scopes_of(["read", "plan"]) == {Scope.READ, Scope.PLAN}
    with pytest.raises(UnknownScope, match="write"):
        scopes_of(["read", "write"])


@pytest.mark.parametrize("text", ["", "x", "tfk", "tfk_1", "abc_1_2", "a.b.c"])
def test_what_is_no_key_has_no_id(text):
    assert key_id_of(text) is None


def test_a_bucket_lets_its_rate_through_whatever_the_rhythm():
    limit = RateLimit(10)
    times = [step / 40 for step in range(4000)]  # forty a second for 100 s
    admitted = sum(limit.wait_seconds("a", at) == 0 for at in times)
    assert 1000 <= admitted <= 1000 + 20
    assert limit.wait_seconds("b", times[-1]) == 0


def test_a_refused_caller_is_told_when_to_come_back_and_that_is_true():
    limit = RateLimit(2)
    while not (seconds := limit.wait_seconds("a", 0.0)):
        pass
    assert 0 < seconds <= 0.5
    assert limit.wait_seconds("a", seconds * 0.9) > 0
    assert limit.wait_seconds("a", seconds * 1.001) == 0


def test_no_rate_is_no_limit_and_callers_are_forgotten():
    assert not any(RateLimit(0).wait_seconds("a", 0.0) for _ in range(1000))
    limit = RateLimit(1)
    for number in range(MOST_CALLERS + 10):
        limit.wait_seconds(str(number), 0.0)
    assert len(limit._buckets) == MOST_CALLERS
