"""The cache of answers holds its bound and drops what was not used longest."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from planner_service.api.answers.reply_cache import ReplyCache


def test_the_least_recently_used_answer_is_dropped():
    cache = ReplyCache(capacity_bytes=6)
    cache.put("a", b"aa")
    cache.put("b", b"bb")
    cache.put("c", b"cc")
    assert cache.get("a") == b"aa"
    cache.put("d", b"dd")
    assert [cache.get(plan_id) for plan_id in "abcd"] == [b"aa", None, b"cc", b"dd"]


def test_an_answer_that_is_larger_than_the_cache_drops_nothing():
    cache = ReplyCache(capacity_bytes=3)
    cache.put("a", b"aa")
    cache.put("b", b"bbbb")
    assert (cache.get("a"), cache.get("b")) == (b"aa", None)


@given(st.lists(st.tuples(st.sampled_from("abcdef"), st.integers(0, 9))))
def test_the_cache_never_holds_more_than_its_capacity(puts):
    cache = ReplyCache(capacity_bytes=12)
    for plan_id, size in puts:
        cache.put(plan_id, bytes(size))
        held = [cache.get(known) for known in "abcdef"]
        assert sum(len(reply) for reply in held if reply is not None) == cache.used_bytes <= 12
