"""What reversible modules refuse, and why they say so."""

from __future__ import annotations

import re

import pytest

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402

from executor.errors import DoubleBackward, StateChanged  # noqa: E402
from executor.memory.budget import InvalidBudget  # noqa: E402
from executor.reversible import InvalidReversible, NFRevLSTM, ReversalMismatch, RevGRU, RevLSTM  # noqa: E402

from .built import BATCH, HIDDEN, INPUT, Head, build, sequence  # noqa: E402


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ({"hidden_size": 7}, "hidden_size=7 must be even"),
        ({"hidden_size": 0}, "hidden_size=0 must be at least 1"),
        ({"input_size": -1}, "input_size=-1 must be at least 1"),
        ({"num_layers": 0}, "num_layers=0 must be at least 1"),
        ({"segment_steps": 0}, "segment_steps=0 must be at least 1"),
        ({"segment_steps": 2.5}, r"segment_steps=2\.5 must be a whole number"),
        ({"num_layers": True}, "num_layers=True must be a whole number"),
        ({"forget_bits": 0}, r"forget_bits=0 must be in 1\.\.10"),
        ({"forget_bits": 11}, r"forget_bits=11 must be in 1\.\.10: forget gates have 10 fractional bits"),
        ({"forget_bits": 2.5}, r"forget_bits=2\.5 must be a whole number"),
        ({"forget_bits": True}, "forget_bits=True must be a whole number"),
        ({"dropout": 1.0}, r"dropout=1\.0 must be a number in \[0, 1\)"),
        ({"dropout": None}, "dropout=None must be a number"),
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


@pytest.mark.parametrize("of", ["packed", "list"])
def test_inputs_that_are_no_tensor_are_refused_by_every_way_in(of):
    """What torch.nn.GRU takes besides tensors is named, with what to do instead."""
    module, x = build(RevGRU, 3), sequence(steps=4)
    given = [x] if of == "list" else nn.utils.rnn.pack_padded_sequence(x, torch.tensor([4, 3, 2]))
    state = module.initial_state(BATCH)
    calls = [
        lambda: module(given),
        lambda: module.segment(state, given),
        lambda: module.step(state, given),
        lambda: module.reduce(given, torch.zeros(4), Head(), before=nn.Identity()),
        lambda: module.collect(given, nn.Identity(), before=nn.Identity()),
    ]
    for call in calls:
        with pytest.raises(InvalidReversible, match=r"inputs are a (PackedSequence|list); .* pad packed"):
            call()


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


@pytest.mark.parametrize("coding", ["entropy", "scheduled"])
@pytest.mark.parametrize("kind", [RevGRU, RevLSTM, NFRevLSTM])
def test_plain_states_that_other_layers_made_are_refused(kind, coding):
    """Before any part of them reaches a kernel, which trusts sizes: another batch, width, type, number."""
    module, x = build(kind, 3, coding=coding), sequence().detach()
    state = module.initial_state(BATCH)
    wrong = [
        (state[0][:1], *state[1:]),
        (*state[:1], state[1][:, :1], *state[2:]),
        (state[0].float(), *state[1:]),
        (state[0].tolist(), *state[1:]),
        build(kind, 3, layers=2, coding=coding).initial_state(BATCH),
        kind(INPUT, 2 * HIDDEN, coding=coding).initial_state(BATCH),
        state[0],
        None,
    ]
    for given in wrong:
        with pytest.raises(StateChanged, match="start from initial_state"):
            module.segment(given, x)
        with pytest.raises(StateChanged, match="start from initial_state"):
            module.step(given, x[0])


@pytest.mark.parametrize("way_in", ["forward", "plain_state"])
def test_states_handed_to_plain_state_are_refused_like_those_of_forward(way_in):
    """Shapes, types and ranges, those of the second part of a state too."""
    module, x = build(RevLSTM, 3), sequence(steps=3)
    good = torch.zeros(1, BATCH, HIDDEN, dtype=torch.float64)
    take = module.plain_state if way_in == "plain_state" else lambda state: module(x, state)
    for given, reason in [
        ((good,), "has 1 parts"),
        ((good, good.float()), "float32"),
        ((good, None), "no tensor"),
    ]:
        with pytest.raises(StateChanged, match=reason):
            take(given)
    for given in [(good.expand(2, -1, -1),) * 2, (good, good[..., :2]), (good[0], good[0])]:
        with pytest.raises(StateChanged, match=r"need torch\.float64 \[1,"):
            take(given)
    for value in [2.0**27, float("inf"), float("nan")]:
        with pytest.raises(InvalidReversible, match="exact below 134217728"):
            take((good, good + value))
    take((good, good + 2.0**26))


def test_weights_of_other_layers_are_refused_before_they_reach_a_kernel():
    """Six units where four are: the gates would be read beyond their end."""
    module, x = build(RevLSTM, 3), sequence()
    module.weight_ih_l0 = nn.Parameter(torch.randn(60, INPUT, dtype=torch.float64))
    module.weight_hh_l0 = nn.Parameter(torch.randn(60, HIDDEN // 2, dtype=torch.float64))
    module.bias_l0 = nn.Parameter(torch.randn(60, dtype=torch.float64))
    with pytest.raises(InvalidReversible, match="the weights are those of other layers"):
        module(x)


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


@pytest.mark.parametrize("budget", ["bananas", 0, 1.5, "30%", "free", 0.5])
def test_a_budget_that_is_none_is_refused_at_once(budget):
    """Shares are for drop-ins, whose full BPTT can be measured"""
    with pytest.raises(InvalidBudget, match=re.escape(f"budget={budget!r}: ")):
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


@pytest.mark.parametrize(
    ("targets", "given"),
    [([torch.zeros(30)], "of type list"), (None, "of type NoneType"), (torch.zeros(()), "one number")],
)
def test_targets_that_are_no_tensor_along_time_are_refused(targets, given):
    with pytest.raises(InvalidReversible, match=f"targets are {given}, and must be a tensor, time first"):
        build(RevGRU, 3).reduce(sequence(), targets, Head())


def test_another_type_on_the_way_back_is_refused():
    module, x = build(RevGRU, 3), sequence()
    outputs, _ = module(x)
    module.float()
    with pytest.raises((InvalidReversible, RuntimeError), match=r"one type|modified"):
        outputs.sum().backward()


def test_random_numbers_of_another_thread_are_named_where_bits_are_missing_too():
    """Dropout was another one on the way back, and weights, inputs and threads of torch were blamed."""
    module, x = build(RevLSTM, 3, layers=2, dropout=0.5), sequence(steps=200)
    outputs, _ = module(x)
    work = outputs.grad_fn.work
    object.__setattr__(work.recipe, "seed", work.recipe.seed + 1)
    with pytest.raises(ReversalMismatch, match=r"never archived .* random numbers that another thread drew"):
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
