"""Kernels that need Triton are used where they run, and nowhere else; who goes without is told why."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

from executor.native import triton_library  # noqa: E402
from executor.native.triton_library import kernels_that_run  # noqa: E402

CUDA = torch.device("cuda", 7)


@pytest.fixture
def with_triton(monkeypatch):
    monkeypatch.setattr(triton_library, "find_spec", lambda name: name)


def test_kernels_that_ran_are_used_on_their_device(with_triton):
    assert kernels_that_run(str, CUDA, switch="TRIAL_SWITCH") == "cuda:7"


def test_kernels_that_fail_are_not_used_and_a_warning_says_why(with_triton):
    with pytest.warns(UserWarning, match="do not run on cuda:7, torch's do: division by zero"):
        assert kernels_that_run(lambda _: 1 / 0, CUDA, switch="TRIAL_SWITCH") is None


def test_other_devices_have_none(with_triton):
    assert kernels_that_run(str, torch.device("cpu"), switch="TRIAL_SWITCH") is None


def test_the_switch_keeps_them_away(with_triton, monkeypatch):
    monkeypatch.setenv("TRIAL_SWITCH", "OFF")
    assert kernels_that_run(str, CUDA, switch="TRIAL_SWITCH") is None


def test_without_triton_nothing_is_tried(monkeypatch):
    monkeypatch.setattr(triton_library, "find_spec", lambda _: None)
    assert kernels_that_run(lambda _: 1 / 0, CUDA, switch="TRIAL_SWITCH") is None
