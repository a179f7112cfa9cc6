"""What reversible modules refuse, and why they say so."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

from executor.budget import InvalidBudget  # noqa: E402
from executor.errors import DoubleBackward, StateChanged  # noqa: E402
from executor.reversible import InvalidReversible, ReversalMismatch, RevGRU, RevLSTM  # noqa: E402

from .built import BATCH, HIDDEN, INPUT, Head, build, sequence  # noqa: E402


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ({"hidden_size": 7}, "hidden_size=7 must be even"),
        ({"hidden_size": 0}, "hidden_size=0 must be at least 1"),
        ({"input_size": -1}, "input_size=-1 must be at least 1"),
        ({"num_layers": 0}, "num_layers=0 must be at least 1"),
        ({"segment_steps": 0}, "segment_steps=0 must be at least 1"),
        ({"forget_bits": 0}, r"forget_bits=0 must be in 1\.\.10"),
        ({"forget_bits": 11}, r"forget_bits=11 must be in 1\.\.10: forget gates have 10 fractional bits"),
        ({"forget_bits": 2.5}, r"forget_bits=2\.5 must be a whole number"),
        ({"forget_bits": True}, "forget_bits=True must be a whole number"),
        ({"dropout": 1.0}, r"dropout=1\.0 must be in \[0, 1\)"),
        ({"coding": "zip"}, "coding='zip' must be"),
        ({"dtype": torch.float16}, r"dtype=torch\.float16 must be float32 or float64"),
    ],
)
def test_arguments_out_of_range_are_refused_with_the_reason(arguments, reason):
    chosen = {"input_size": INPUT, "hidden_size": HIDDEN, **arguments}
    with pytest.raises(InvalidReversible, match=reason):
        RevGRU(**chosen)


@pytest.mark.parametrize(
    ("x", "reason"),
    [
        (torch.zeros(3, 2, INPUT), r"inputs are torch\.float32"),
        (torch.zeros(3, 2, INPUT + 1, dtype=torch.float64), r"these layers need .*\[steps, batch, 5\]"),
        (torch.zeros(3, INPUT, dtype=torch.float64), "at least one step"),
        (torch.zeros(0, 2, INPUT, dtype=torch.float64), "at least one step"),
    ],
)
def test_inputs_of_another_shape_or_type_are_refused(x, reason):
    with pytest.raises(InvalidReversible, match=reason):
        build(RevGRU, 3)(x)


def test_states_of_another_shape_or_type_are_refused():
    module, x = build(RevLSTM, 3), sequence()
    good = torch.zeros(1, BATCH, HIDDEN, dtype=torch.float64)
    with pytest.raises(StateChanged, match=r"the state has 1 parts; it is \(h, c\)"):
        module(x, good)
    with pytest.raises(StateChanged, match=r"torch\.float32"):
        module(x, (good, good.float()))
    with pytest.raises(StateChanged, match=r"need torch\.float64 \[1, 3, 8\]"):
        module(x, (good, good[:, :2]))
    with pytest.raises(StateChanged, match="is no tensor but NoneType"):
        module(x, (good, None))


def test_a_state_may_be_a_tuple_or_a_list():
    module, x = build(RevGRU, 3), sequence()
    h = torch.rand(1, BATCH, HIDDEN, dtype=torch.float64)
    assert torch.equal(module(x, [h])[0], module(x, h)[0])
    assert torch.equal(module(x, (h,))[0], module(x, h)[0])


@pytest.mark.parametrize("kind", [RevGRU, RevLSTM])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_layers_converted_to_fewer_bits_are_refused(kind, dtype):
    module = build(kind, 3).to(dtype)
    with pytest.raises(InvalidReversible, match=f"the parameters are {dtype}, and must be float32"):
        module(torch.zeros(4, BATCH, INPUT, dtype=dtype))
    module.float()(torch.zeros(4, BATCH, INPUT))


@pytest.mark.parametrize("budget", ["bananas", 0, 1.5])
def test_a_budget_that_is_none_is_refused_at_once(budget):
    with pytest.raises(InvalidBudget, match="is not a budget"):
        RevGRU(INPUT, HIDDEN, budget=budget)


@pytest.mark.parametrize("value", [2.0**27, float("inf"), float("nan")])
def test_states_that_could_outgrow_exact_integers_are_refused(value):
    module, x = build(RevGRU, 3), sequence()
    state = torch.full((1, BATCH, HIDDEN), value, dtype=torch.float64)
    with pytest.raises(InvalidReversible, match="exact below 134217728"):
        module(x, state)


def test_targets_of_another_length_are_refused():
    module, x = build(RevGRU, 3), sequence()
    with pytest.raises(InvalidReversible, match="30 steps of inputs meet 29 steps of targets"):
        module.reduce(x, torch.zeros(29), Head())


def test_another_type_on_the_way_back_is_refused():
    module, x = build(RevGRU, 3), sequence()
    outputs, _ = module(x)
    module.float()
    with pytest.raises((InvalidReversible, RuntimeError), match=r"one type|modified"):
        outputs.sum().backward()


def test_weights_changed_in_place_before_backward_are_noticed():
    """By autograd's version counters, and where these are evaded, by the state that does not come back."""
    module, x = build(RevGRU, 3), sequence()
    outputs, _ = module(x)
    with torch.no_grad():
        module.weight_hh_l0.mul_(1.01)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        outputs.sum().backward()
    outputs, _ = module(x)
    module.weight_hh_l0.data.mul_(1.01)
    with pytest.raises(ReversalMismatch, match="other gates"):
        outputs.sum().backward()


def test_second_backward_is_refused():
    module, x = build(RevGRU, 3), sequence()
    outputs, _ = module(x)
    outputs.sum().backward(retain_graph=True)
    with pytest.raises(DoubleBackward, match="run it forward again"):
        outputs.sum().backward()
