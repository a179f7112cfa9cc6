"""Of the ways to multiply what is kept, the fastest is taken; and none where the dense product is faster."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

from executor.sparse import choice, faster, repeated, timing  # noqa: E402
from executor.sparse.gathered import GatheredProducts  # noqa: E402

CPU = torch.device("cpu")
WAYS = (GatheredProducts(), GatheredProducts())
CHOICES = (faster.fastest_columns, faster.fastest_sequences, faster.fastest_rows)


@pytest.fixture
def timed(monkeypatch):
    """Every product runs once; two ways and then the dense product take the seconds that a test sets."""
    taken = []

    def least_seconds(*functions):
        for function in functions:
            assert function() is not None
        return taken[: len(functions)]

    monkeypatch.setattr(faster, "candidates", lambda *_: WAYS)
    monkeypatch.setattr(faster, "seconds_to_choose_by", least_seconds)
    for function in (*CHOICES, faster.fastest_outer_columns):
        function.cache_clear()
    yield taken
    for function in (*CHOICES, faster.fastest_outer_columns):
        function.cache_clear()


@pytest.mark.parametrize(
    ("seconds", "way", "pays"),
    [((1.0, 2.0, 3.0), 0, True), ((2.0, 1.0, 3.0), 1, True), ((3.0, 2.0, 1.0), 1, False)],
)
@pytest.mark.parametrize("choose", CHOICES)
def test_the_fastest_way_is_compared_with_the_dense_product(timed, choose, seconds, way, pays):
    timed[:] = seconds
    found = choose(6, 5, 4, 3, device=CPU, dtype=torch.float32)
    assert found.products is WAYS[way]
    assert found.pays is pays


def test_columns_of_a_sum_are_added_in_the_fastest_way(timed):
    timed[:] = [2.0, 1.0]
    assert faster.fastest_outer_columns(6, 5, 4, 3, device=CPU, dtype=torch.float32) is WAYS[1]


def test_where_there_is_one_way_to_add_nothing_is_timed(timed, monkeypatch):
    monkeypatch.setattr(faster, "candidates", lambda *_: WAYS[:1])
    assert faster.fastest_outer_columns(6, 5, 4, 3, device=CPU, dtype=torch.float32) is WAYS[0]


def test_where_torch_is_deterministic_nothing_is_decided_by_times(timed, monkeypatch):
    """Whatever was decided before: `mixed` samples rows, or takes them all, and gradients differ by that"""
    sizes = {"device": CPU, "dtype": torch.float32}
    timed[:] = (3.0, 2.0, 1.0)
    assert not faster.fastest_rows(6, 5, 4, 3, **sizes).pays
    monkeypatch.setattr(faster, "seconds_to_choose_by", timing.seconds_to_choose_by)
    monkeypatch.setattr(timing, "least_seconds", None)
    torch.use_deterministic_algorithms(True)
    try:
        assert faster.fastest_rows(6, 5, 4, 3, **sizes) == (WAYS[0], True)
        assert repeated.packing_pays(6, 5, 4, steps=repeated.LEAST_STEPS)
    finally:
        torch.use_deterministic_algorithms(False)
    assert not faster.fastest_rows(6, 5, 4, 3, **sizes).pays


def test_on_the_cpu_copies_are_gathered():
    (only,) = choice.candidates(CPU, torch.float32)
    assert isinstance(only, GatheredProducts)


@pytest.mark.gpu
def test_on_a_cuda_device_triton_competes_for_float32():
    pytest.importorskip("triton")
    device = torch.device("cuda", 0)
    assert len(choice.candidates(device, torch.float32)) > 1
    assert len(choice.candidates(device, torch.float64)) == 1
    found = faster.fastest_columns(16, 64, 16, 32, device=device, dtype=torch.float32)
    assert found.products in choice.candidates(device, torch.float32)
