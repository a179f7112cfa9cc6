"""The caller's hooks on saved tensors are off within the context and back after it, also where torch cannot
hand them out (before 2.8).
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch.autograd.graph import disable_saved_tensors_hooks, saved_tensors_hooks

from executor import UnsupportedHook, unroll
from executor.rules import saved_tensor_hooks
from executor.rules.saved_tensor_hooks import own_hooks, without_saved_tensor_hooks


@pytest.fixture(params=["read", "only silenced"])
def ways(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both ways, whichever this torch would take."""
    if request.param == "only silenced":
        monkeypatch.setattr(saved_tensor_hooks, "_top_hooks", None)
    elif saved_tensor_hooks._top_hooks is None:
        pytest.skip("this torch cannot hand its hooks out")


def counting(calls: list[str], name: str) -> Callable[[torch.Tensor], torch.Tensor]:
    def pack(saved: torch.Tensor) -> torch.Tensor:
        calls.append(name)
        return saved

    return pack


def tape() -> torch.Tensor:
    return torch.ones(1, requires_grad=True).exp()  # saves one tensor, its result


@pytest.mark.usefixtures("ways")
def test_hooks_are_off_within_and_in_their_order_after() -> None:
    calls: list[str] = []
    with saved_tensors_hooks(counting(calls, "outer"), lambda saved: saved):
        with saved_tensors_hooks(counting(calls, "inner"), lambda saved: saved):
            with without_saved_tensor_hooks():
                tape()
            assert calls == []
            tape()
        tape()
    tape()
    assert calls == ["inner", "outer"]


@pytest.mark.usefixtures("ways")
def test_hooks_that_a_step_sets_itself_are_called_where_the_caller_has_set_none() -> None:
    calls: list[str] = []
    with without_saved_tensor_hooks(), saved_tensors_hooks(counting(calls, "step's"), lambda saved: saved):
        tape()
    assert calls == ["step's"]


@pytest.mark.usefixtures("ways")
def test_hooks_that_the_caller_forbids_stay_forbidden() -> None:
    with disable_saved_tensors_hooks("not here"):
        with without_saved_tensor_hooks():
            pass
        with (
            pytest.raises(RuntimeError, match="not here"),
            saved_tensors_hooks(lambda saved: saved, lambda saved: saved),
        ):
            tape()


def test_a_call_within_hooks_that_cannot_be_read_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """They would see its tapes, whatever the budget; the executor's own hooks know theirs"""
    monkeypatch.setattr(saved_tensor_hooks, "_top_hooks", None)
    x = torch.randn(8, 4)

    def iteration() -> None:
        weight = torch.ones(4, requires_grad=True)
        total, _ = unroll(lambda h, x_t: (h * weight + x_t, None), x[0], x, captured=[weight], budget="1MiB")
        del total

    iteration()
    with saved_tensors_hooks(lambda saved: saved, lambda saved: saved):
        with pytest.raises(UnsupportedHook, match="Call it outside of them"):
            iteration()
        with torch.no_grad():
            iteration()
    with own_hooks(lambda saved: saved, lambda saved: saved):
        iteration()
