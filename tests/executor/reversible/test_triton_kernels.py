"""Triton's kernels compute the bits of the torch kernels, forward and back, alone and inside every cell."""

from __future__ import annotations

from typing import Any

import pytest

torch = pytest.importorskip("torch")

from tests.executor.triton_devices import DEVICES, INTERPRETER  # noqa: E402, I001 - first: it sets the scene

from executor.reversible import NFRevGRU, NFRevLSTM, RevGRU, RevLSTM, choice  # noqa: E402
from executor.reversible.archive import Archive  # noqa: E402
from executor.reversible.coders import ENTROPY_GATE, ENTROPY_START  # noqa: E402
from executor.reversible.kernels import Kernels, TorchKernels  # noqa: E402
from executor.reversible.triton_kernels import TritonKernels  # noqa: E402

RAGGED = [(1,), (3, 5), (7, 73), (511,), (512,), (4, 129)]
LIMITS = [1, 2, 3, 5, None]
CELLS = [(kind, n) for kind in (RevGRU, RevLSTM) for n in LIMITS] + [(NFRevGRU, 0), (NFRevLSTM, 0)]
STEPS = 6


class Units:
    """Registers and buffers near their limits, taken forward and back by some kernels."""

    def __init__(self, kernels: Kernels, shape: tuple[int, ...], dtype: Any, device: str) -> None:
        self.kernels, self.archive = kernels, Archive(torch.device(device), block_words=64)
        self.random = torch.Generator().manual_seed(len(shape))
        self.fixed = torch.round((self.drawn(shape) - 0.5) * 2.0**40).to(device)
        self.buffer = torch.floor(ENTROPY_START + self.drawn(shape) * (2.0**40 - ENTROPY_START)).to(device)
        self.value = torch.empty(shape, dtype=dtype, device=device)
        self.updates = [self.update(shape, dtype, device) for _ in range(STEPS)]

    def drawn(self, shape: tuple[int, ...]) -> Any:
        return torch.rand(shape, generator=self.random, dtype=torch.float64)

    def update(self, shape: tuple[int, ...], dtype: Any, device: str) -> tuple[Any, Any]:
        """Factors of 1 and 1024 among others, as saturated gates give, and addends that lie between two
        fixed-point numbers.
        """
        factor = (self.drawn(shape) * 1400 - 200).round().clamp(1, 1024)
        addend = torch.round((self.drawn(shape) * 4 - 2) * 2.0**24) / 2.0**24
        return factor.to(device, dtype), addend.to(device, dtype)

    def forward(self) -> tuple[Any, ...]:
        for factor, addend in self.updates:
            self.kernels.move_full(self.buffer, factor, ENTROPY_GATE, self.archive)
            self.kernels.advance(self.fixed, self.buffer, factor, addend, self.value)
        return self.seen()

    def back(self) -> tuple[Any, ...]:
        for factor, addend in reversed(self.updates):
            self.kernels.reverse(self.fixed, self.buffer, factor, addend, self.value)
            self.kernels.refill(self.buffer, ENTROPY_START, self.archive)
        return self.seen()

    def seen(self) -> tuple[Any, ...]:
        words = self.archive.pop(len(self.archive)).clone()
        self.archive.push(words)
        return self.fixed.clone(), self.buffer.clone(), self.value.clone(), words


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("shape", RAGGED, ids=str)
@pytest.mark.parametrize("device", DEVICES)
def test_states_buffers_and_archives_are_those_of_the_torch_kernels(device, shape, dtype):
    """After every pass, bit for bit; the passes begin at the same place and end there."""
    ours, theirs = (Units(kernels, shape, dtype, device) for kernels in (TritonKernels(), TorchKernels()))
    start = ours.fixed.clone(), ours.buffer.clone()
    for passed in (Units.forward, Units.back):
        for one, other in zip(passed(ours), passed(theirs), strict=True):
            assert torch.equal(one, other)
    assert torch.equal(ours.fixed, start[0])
    assert torch.equal(ours.buffer, start[1])


@pytest.mark.parametrize("device", DEVICES)
def test_one_reverses_what_the_other_advanced(device):
    units = Units(TritonKernels(), (3, 50), torch.float32, device)
    start = units.fixed.clone()
    units.forward()
    units.kernels = TorchKernels()
    units.back()
    assert torch.equal(units.fixed, start)


@pytest.mark.parametrize("device", DEVICES)
def test_addends_are_rounded_to_nearest_ties_to_even(device):
    """Every quarter between two fixed-point numbers, on both sides of zero, small and large."""
    quarters = torch.arange(-64, 65, dtype=torch.float64, device=device) / 4
    addend = torch.cat([quarters, quarters + 2.0**40, quarters - 2.0**40]) / 2.0**23
    kernels: tuple[Kernels, ...] = (TritonKernels(), TorchKernels())
    found = []
    for each in kernels:
        fixed, buffer = torch.zeros_like(addend), torch.zeros_like(addend)
        each.advance(fixed, buffer, torch.ones_like(addend), addend, torch.empty_like(addend))
        found.append(fixed)
    assert torch.equal(*found)
    assert torch.equal(found[1], torch.round(addend * 2.0**23))


def iteration(kind: Any, forget_bits: int | None, device: str, *, scale: float, coding: str) -> list[Any]:
    """Outputs, last state and all gradients; weights `scale` times as large as usual.

    Two layers and many steps on a device, few under the interpreter, where a launch takes milliseconds.
    """
    layers, steps = (1, 7) if device == "cpu" else (2, 100)
    torch.manual_seed(5)
    limit = {} if kind in (NFRevGRU, NFRevLSTM) else {"forget_bits": forget_bits}
    module = kind(3, 6, layers, **limit, coding=coding, segment_steps=3).to(device)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.mul_(scale)
    x = torch.randn(steps, 3, 3).to(device).requires_grad_()
    outputs, state = module(x)
    outputs.square().sum().backward()
    last = state if isinstance(state, tuple) else (state,)
    return [outputs, *last, x.grad, *(parameter.grad for parameter in module.parameters())]


@pytest.mark.parametrize(("scale", "coding"), [(2.0, "scheduled"), (40.0, "entropy")])
@pytest.mark.parametrize(("kind", "forget_bits"), CELLS, ids=lambda part: getattr(part, "__name__", part))
@pytest.mark.parametrize("device", DEVICES)
def test_every_cell_trains_to_the_same_bits(device, kind, forget_bits, scale, coding, monkeypatch):
    """Reversal proves itself on the way back; at 40 times the usual weights gates are saturated."""
    found = []
    for kernels in (TritonKernels(), TorchKernels()):
        monkeypatch.setattr("executor.reversible.trajectory.kernels_for", lambda *_, chosen=kernels: chosen)
        found.append(iteration(kind, forget_bits, device, scale=scale, coding=coding))
    for one, other in zip(*found, strict=True):
        assert torch.equal(one, other)


@pytest.mark.gpu
def test_modules_on_a_cuda_device_use_them():
    assert isinstance(choice.kernels_for(torch.device("cuda", 0), torch.float32), TritonKernels)


@pytest.mark.parametrize("device", [INTERPRETER])
def test_the_trial_accepts_kernels_that_work(device):
    assert isinstance(choice.tried(torch.device(device)), TritonKernels)


@pytest.mark.parametrize("device", [INTERPRETER])
def test_the_trial_refuses_kernels_that_do_not(device, monkeypatch):
    monkeypatch.setattr(TritonKernels, "advance", lambda *_: None)
    with pytest.raises(RuntimeError, match=r"computed to be 0\.0"):
        choice.tried(torch.device(device))
