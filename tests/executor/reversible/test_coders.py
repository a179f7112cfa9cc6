"""Buffers never overflow, come back exactly, and store what the bounds say."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

torch = pytest.importorskip("torch")

from executor.reversible.archive import Archive, Discard  # noqa: E402
from executor.reversible.choice import kernels_for  # noqa: E402
from executor.reversible.coders import (  # noqa: E402
    EntropyCoder,
    ScheduledCoder,
    entropy_bound_bytes,
    scheduled_bytes,
)
from executor.reversible.fixed_point import to_fixed  # noqa: E402
from executor.reversible.kernels import TorchKernels  # noqa: E402

CPU = torch.device("cpu")
UNITS = 200
KERNELS = {"torch": TorchKernels(), "fastest": kernels_for(CPU, torch.float32)}


def coder_of(coding, archive, kernels, forget_bits):
    if coding == "scheduled":
        return ScheduledCoder(archive, forget_bits=forget_bits)
    return EntropyCoder(archive, kernels)


def updates(steps, forget_bits, *, seed=0):
    """Factors and addends of `steps` steps; some units always forget the most, some nothing."""
    generator = torch.Generator().manual_seed(seed)
    least = 2 ** (10 - forget_bits)
    for _ in range(steps):
        gate = torch.sigmoid(3 * torch.randn(UNITS, generator=generator) + 1)
        factor = torch.round(gate * (1024 - least) + least)
        factor[:20], factor[20:40] = least, 1024
        yield factor, torch.randn(UNITS, generator=generator)


class Run:
    """A tensor of units taken forward and back."""

    def __init__(self, coding, kernels, forget_bits):
        self.archive = Archive(CPU)
        self.kernels = kernels
        self.coder = coder_of(coding, self.archive, kernels, forget_bits)
        self.fixed = self.start = to_fixed(torch.linspace(-3, 3, UNITS))
        self.fixed = self.start.clone()
        self.buffer = torch.full((UNITS,), self.coder.start, dtype=torch.float64)
        self.value = torch.empty(UNITS)

    def forward(self, updates):
        for step, (factor, addend) in enumerate(updates):
            self.coder.make_room(self.buffer, factor, step=step)
            assert float(self.buffer.max()) < 2**41  # what the exactness of the multiplication needs
            self.kernels.advance(self.fixed, self.buffer, factor, addend, self.value)

    def back(self, updates):
        for step, (factor, addend) in reversed(list(enumerate(updates))):
            self.kernels.reverse(self.fixed, self.buffer, factor, addend, self.value)
            self.coder.take_back(self.buffer, step=step)

    def assert_at_the_start(self):
        assert torch.equal(self.fixed, self.start)
        assert bool((self.buffer == self.coder.start).all())
        assert len(self.archive) == 0


@pytest.mark.parametrize("kernels", KERNELS)
@pytest.mark.parametrize("forget_bits", range(1, 11))
@pytest.mark.parametrize("coding", ["scheduled", "entropy"])
def test_state_and_buffer_come_back_bitwise(coding, forget_bits, kernels):
    steps = list(updates(300, forget_bits))
    run = Run(coding, KERNELS[kernels], forget_bits)
    run.forward(steps)
    assert len(run.archive) > 0
    run.back(steps)
    run.assert_at_the_start()


@given(
    st.sampled_from(["scheduled", "entropy"]), st.integers(1, 10), st.integers(1, 80), st.integers(0, 2**30)
)
def test_state_and_buffer_come_back_for_any_length(coding, forget_bits, length, seed):
    steps = list(updates(length, forget_bits, seed=seed))
    run = Run(coding, KERNELS["fastest"], forget_bits)
    run.forward(steps)
    run.back(steps)
    run.assert_at_the_start()


@pytest.mark.parametrize("coding", ["scheduled", "entropy"])
def test_both_kernels_compute_the_same_bits(coding):
    runs = [Run(coding, kernels, 3) for kernels in KERNELS.values()]
    steps = list(updates(200, 3))
    for run in runs:
        run.forward(steps)
    for name in ("fixed", "buffer", "value"):
        assert torch.equal(getattr(runs[0], name), getattr(runs[1], name))
    words = [run.archive.pop(len(run.archive)) for run in runs]
    assert torch.equal(words[0], words[1])


@pytest.mark.parametrize("forget_bits", [1, 2, 3, 5, 10])
@pytest.mark.parametrize("length", [1, 4, 5, 21, 22, 500])
def test_schedule_stores_exactly_the_bytes_foretold(forget_bits, length):
    run = Run("scheduled", KERNELS["fastest"], forget_bits)
    run.forward(updates(length, forget_bits))
    expected = scheduled_bytes(length, units=UNITS, forget_bits=forget_bits)
    assert expected == run.archive.stored_bytes
    assert expected * 8 <= UNITS * length * forget_bits


@pytest.mark.parametrize("forget_bits", [1, 2, 3, 5, 10])
def test_entropy_coder_stores_what_is_forgotten_and_no_more_than_the_bound(forget_bits):
    """Words that are not full stay in the buffer: up to 16 bits a unit."""
    steps = list(updates(1000, forget_bits))
    run = Run("entropy", KERNELS["fastest"], forget_bits)
    run.forward(steps)
    forgotten = -sum(float((factor.double() / 1024).log2().sum()) for factor, _ in steps)
    assert forgotten - 16 * UNITS <= run.archive.stored_bytes * 8 <= forgotten * 1.001
    assert run.archive.stored_bytes <= entropy_bound_bytes(1000, units=UNITS, forget_bits=forget_bits)


def test_units_that_forget_the_most_reach_the_bound():
    """The bound is tight: all factors at their least make it an equality, up to one word a unit."""
    steps = [(torch.full((UNITS,), 256.0), torch.zeros(UNITS))] * 800
    run = Run("entropy", KERNELS["fastest"], 2)
    run.forward(steps)
    bound = entropy_bound_bytes(800, units=UNITS, forget_bits=2)
    assert bound - 2 * UNITS <= run.archive.stored_bytes <= bound


def test_factors_of_one_store_nothing():
    run = Run("entropy", KERNELS["fastest"], 10)
    run.forward([(torch.full((UNITS,), 1024.0), torch.zeros(UNITS))] * 100)
    assert run.archive.stored_bytes == 0


def test_a_broken_factor_on_the_way_back_does_not_pass_unnoticed():
    """The empty buffer and the start state are the evidence that reversal was exact."""
    steps = list(updates(100, 3))
    run = Run("entropy", KERNELS["fastest"], 3)
    run.forward(steps)
    steps[50][0][100] -= 1
    with pytest.raises((AssertionError, IndexError)):  # noqa: PT012 - either may notice first
        run.back(steps)
        run.assert_at_the_start()


@given(st.lists(st.integers(0, 24), min_size=1, max_size=6), st.data())
def test_archive_gives_words_back_last_in_first_out(sizes, data):
    words = torch.arange(sum(sizes)).to(torch.int16)
    archive = Archive(CPU, block_words=8)
    for part in words.split(sizes):
        archive.push(part)
    assert archive.stored_bytes == 2 * sum(sizes)
    assert archive.stored_bytes <= archive.allocated_bytes < archive.stored_bytes + 2 * 8
    end = sum(sizes)
    while end:
        count = data.draw(st.integers(1, end))
        assert torch.equal(archive.pop(count), words[end - count : end])
        end -= count
    assert archive.allocated_bytes == 0


def test_an_archive_that_keeps_its_blocks_takes_no_others_for_as_many_words():
    words = torch.arange(20).to(torch.int16)
    archive = Archive(CPU, block_words=8)
    archive.keep_blocks()
    found = []
    for _ in range(2):
        archive.push(words)
        found.append(sorted(block.data_ptr() for block in archive._blocks))
        assert torch.equal(archive.pop(20), words)
        assert len(archive) == 0
        assert archive.allocated_bytes == 3 * 8 * 2
    assert found[0] == found[1]


def test_archive_refuses_to_give_more_than_it_holds():
    with pytest.raises(IndexError, match="1 words were asked of an archive that holds 0"):
        Archive(CPU).pop(1)


def test_discard_keeps_nothing():
    archive = Discard(CPU)
    archive.push(torch.ones(10, dtype=torch.int16))
    assert archive.allocated_bytes == 0
