"""The drop-ins are the torch modules, inside a budget."""

import copy
import pickle
import traceback
import warnings
import weakref

import pytest
import torch
from torch import nn
from torch.func import functional_call
from torch.nn.utils import prune
from torch.nn.utils.rnn import pack_sequence, pad_packed_sequence

from executor import GRU, LSTM, RNN, BudgetTooSmall, measure, unroll
from executor.errors import UnsupportedTransform
from executor.memory.activations import activation_bytes
from executor.memory.budget import InvalidBudget
from executor.plan import tape_everything
from executor.probe import probe_loop

KINDS = {"lstm": (nn.LSTM, LSTM), "gru": (nn.GRU, GRU), "rnn": (nn.RNN, RNN)}
STEPS, BATCH, INPUT, HIDDEN = 30, 3, 4, 8


def initial_state(module, batch=BATCH):
    """A random initial state that needs a gradient, as the torch module takes it."""
    layers = module.num_layers * (2 if module.bidirectional else 1)
    sizes = [module.proj_size or module.hidden_size] + ([module.hidden_size] if module.mode == "LSTM" else [])
    dtype = module.weight_ih_l0.dtype
    state = tuple(torch.randn(layers, batch, size, dtype=dtype, requires_grad=True) for size in sizes)
    return state if module.mode == "LSTM" else state[0]


def tight(drop_in_class, module, x, hx=None):
    """A drop-in with a tenth more than the least budget for `x`: little is stored, much is run again."""
    with pytest.raises(BudgetTooSmall) as caught:
        drop_in_class.from_torch(module, budget=1)(x, hx)
    budget_bytes = caught.value.minimum_budget_bytes * 11 // 10
    return drop_in_class.from_torch(module, budget=budget_bytes), budget_bytes


def loss_of(output, state):
    """A loss that uses every output and every final state with weights of its own."""
    parts = [output, *(state if isinstance(state, tuple) else (state,))]
    return sum((part.flatten() * torch.linspace(0.5, 1.5, part.numel()).to(part)).sum() for part in parts)


def results(call, module, x, state):
    """Output, final state and gradients of parameters, input and initial state of one call."""
    x = x.clone().requires_grad_()
    output, final = call(x, state)
    leaves = [x, *module.parameters(), *(state if isinstance(state, tuple) else (state,))]
    gradients = torch.autograd.grad(loss_of(output, final), leaves)
    return output, final, gradients


def close(found, expected):
    """Equal to the rounding of float64 sums: segments add gradients in another order."""
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-13)


OPTIONS = [
    {},
    {"num_layers": 2},
    {"bias": False},
    {"batch_first": True},
    {"bidirectional": True},
    {"bidirectional": True, "num_layers": 2, "batch_first": True},
]
# Options act alike on the three kinds: all of them on one kind, the two ends on the others.
CASES = [("gru", options) for options in OPTIONS]
CASES += [(kind, options) for kind in ("lstm", "rnn") for options in (OPTIONS[0], OPTIONS[-1])]


@pytest.mark.parametrize(
    ("kind", "options"), CASES, ids=["-".join([kind, *options]) for kind, options in CASES]
)
def test_outputs_and_gradients_are_those_of_the_torch_module(kind, options):
    """Whatever the options: output, final state and all gradients agree to the rounding of float64"""
    torch_class, drop_in_class = KINDS[kind]
    module = torch_class(INPUT, HIDDEN, dtype=torch.float64, **options)
    shape = (BATCH, STEPS, INPUT) if module.batch_first else (STEPS, BATCH, INPUT)
    x, state = torch.randn(shape, dtype=torch.float64), initial_state(module)
    drop_in, _ = tight(drop_in_class, module, x.requires_grad_(), state)
    close(results(drop_in, drop_in, x, state), results(module, module, x, state))


def test_a_projected_lstm_agrees():
    """Projections have no cell in torch and still run in segments of any length"""
    module = nn.LSTM(INPUT, HIDDEN, proj_size=5, num_layers=2, dtype=torch.float64)
    x, state = torch.randn(STEPS, BATCH, INPUT, dtype=torch.float64), initial_state(module)
    drop_in = LSTM.from_torch(module, budget="80kB")
    close(results(drop_in, drop_in, x, state), results(module, module, x, state))


@pytest.mark.parametrize("kind", KINDS)
def test_a_call_stays_within_its_budget(kind):
    """The measured peak of forward and backward is within a budget that full BPTT exceeds"""
    torch_class, drop_in_class = KINDS[kind]
    module = torch_class(INPUT, HIDDEN, dtype=torch.float64)
    x = torch.randn(STEPS, BATCH, INPUT, dtype=torch.float64)
    drop_in, budget_bytes = tight(drop_in_class, module, x)

    def iteration(call):
        output, _ = call(x)
        output.backward(torch.ones_like(output))

    iteration(drop_in)
    drop_in.zero_grad()
    full = measure(lambda: iteration(module)).peak_bytes
    module.zero_grad()
    within = measure(lambda: iteration(drop_in)).peak_bytes
    assert within <= budget_bytes < full


@pytest.mark.parametrize("bidirectional", [False, True])
def test_states_may_move_to_host_memory(bidirectional):
    """Within both budgets, and with the gradients of the torch module"""
    module = nn.GRU(INPUT, HIDDEN, bidirectional=bidirectional, dtype=torch.float64)
    x = torch.randn(3 * STEPS, BATCH, INPUT, dtype=torch.float64)
    state = initial_state(module)
    _, budget_bytes = tight(GRU, module, x.requires_grad_(), state)
    drop_in = GRU.from_torch(module, budget=budget_bytes, host_budget="20kB")
    close(results(drop_in, drop_in, x, state), results(module, module, x, state))

    def iteration():
        drop_in(x)[0].sum().backward()

    iteration()
    drop_in.zero_grad()
    measured = measure(iteration)
    assert measured.peak_bytes <= budget_bytes
    assert measured.tier_peak_bytes.get("host", 0) <= 20_000


def test_bidirectional_layers_share_the_budget():
    """Four chains, their joined outputs and the turned sequences together stay within the budget"""
    module = nn.GRU(INPUT, HIDDEN, num_layers=2, bidirectional=True, dtype=torch.float64)
    x = torch.randn(STEPS, BATCH, INPUT, dtype=torch.float64)
    drop_in, budget_bytes = tight(GRU, module, x)

    def iteration():
        output, _ = drop_in(x)
        output.backward(torch.ones_like(output))

    iteration()
    drop_in.zero_grad()
    assert measure(iteration).peak_bytes <= budget_bytes


def test_a_direction_counts_the_gradients_of_its_own_parameters():
    """Of a module whose weights outweigh all else: each direction's share holds its own gradients and
    the workspace of torch's kernel, as large again; with all parameters in both it was 3.1 times their size
    """
    module = nn.GRU(4, 64, bidirectional=True, dtype=torch.float64)
    with pytest.raises(BudgetTooSmall) as caught:
        GRU.from_torch(module, budget=1)(torch.randn(6, 1, 4, dtype=torch.float64))
    assert caught.value.minimum_budget_bytes < 2.5 * sum(p.nbytes for p in module.parameters())


@pytest.mark.parametrize(
    ("kind", "enforce_sorted", "bidirectional"),
    [
        ("lstm", True, False),
        ("lstm", False, False),
        ("lstm", True, True),
        ("lstm", False, True),
        ("gru", False, True),
        ("rnn", False, False),
    ],
)
def test_packed_sequences_agree(kind, enforce_sorted, bidirectional):
    """Sequences of different lengths give the packed outputs, states and gradients of the torch module"""
    torch_class, drop_in_class = KINDS[kind]
    module = torch_class(INPUT, HIDDEN, dtype=torch.float64, bidirectional=bidirectional)
    lengths = (24, 13, 13, 7) if enforce_sorted else (13, 7, 24, 13)
    sequences = [torch.randn(length, INPUT, dtype=torch.float64, requires_grad=True) for length in lengths]
    packed = pack_sequence(sequences, enforce_sorted=enforce_sorted)
    state = initial_state(module, batch=len(lengths))
    drop_in = drop_in_class.from_torch(module, budget="200kB")

    def packed_results(call):
        output, final = call(packed, state)
        padded, output_lengths = pad_packed_sequence(output)
        leaves = [*sequences, *module.parameters(), *(state if isinstance(state, tuple) else (state,))]
        gradients = torch.autograd.grad(loss_of(padded, final), leaves, retain_graph=True)
        return padded, output_lengths, final, gradients

    close(packed_results(drop_in), packed_results(module))


def test_more_steps_than_the_fused_kernels_of_cudnn_take():
    """70,000 steps train like any other number: output and gradient are those of the closed form"""
    module = nn.RNN(1, 1, nonlinearity="relu", dtype=torch.float64)
    with torch.no_grad():
        for parameter, value in zip(module.parameters(), (0.0, 0.5, 1.0, 0.0), strict=True):
            parameter.fill_(value)
    steps = 70_000
    drop_in = RNN.from_torch(module, budget="3MB")
    output, final = drop_in(torch.zeros(steps, 1, 1, dtype=torch.float64))
    output.sum().backward()
    # h_t = 1 + h_{t-1} / 2, so h_t and its derivative by the bias are both 2 - 2**-(t-1).
    expected = 2.0 * steps - 2.0
    assert float(final.detach()) == 2.0
    assert float(output.detach().sum()) == pytest.approx(expected, rel=1e-12)
    assert float(drop_in.bias_ih_l0.grad) == pytest.approx(expected, rel=1e-12)


def test_unbatched_input_agrees():
    """[T, input] without a batch dimension works as in torch"""
    module = nn.LSTM(INPUT, HIDDEN, dtype=torch.float64)
    x = torch.randn(STEPS, INPUT, dtype=torch.float64)
    drop_in = LSTM.from_torch(module, budget="200kB")
    close(drop_in(x), module(x))


def test_parameters_are_shared_under_the_same_names():
    """The drop-in holds the very parameters, and state dicts go both ways"""
    module = nn.LSTM(INPUT, HIDDEN, num_layers=2, bidirectional=True)
    drop_in = LSTM.from_torch(module, budget="1MB")
    named = dict(drop_in.named_parameters())
    assert all(named[name] is parameter for name, parameter in module.named_parameters())
    nn.LSTM(INPUT, HIDDEN, num_layers=2, bidirectional=True).load_state_dict(drop_in.state_dict())


def test_a_copy_uses_its_own_parameters():
    """Deep copies are independent: changing the copy's weights changes only its outputs"""
    module = nn.GRU(INPUT, HIDDEN, dtype=torch.float64)
    drop_in = GRU.from_torch(module, budget="100kB")
    x = torch.randn(STEPS, BATCH, INPUT, dtype=torch.float64)
    twin = copy.deepcopy(drop_in)
    with torch.no_grad():
        for parameter in twin.parameters():
            parameter.zero_()
    assert twin(x)[0].abs().max() == 0
    close(drop_in(x)[0], module(x)[0])


def test_calls_alike_are_probed_once(monkeypatch):
    """Each call has weights of its own, parameters or computed, and is known all the same"""
    probed = []
    monkeypatch.setattr("executor.known.probe_loop", lambda *a, **k: probed.append(a) or probe_loop(*a, **k))
    module = nn.GRU(INPUT, HIDDEN, num_layers=2, bidirectional=True, dtype=torch.float64)
    drop_in = GRU.from_torch(module, budget="1MiB")
    x = torch.randn(STEPS, BATCH, INPUT, dtype=torch.float64, requires_grad=True)
    for call in (drop_in, lambda x: functional_call(drop_in, scaled(drop_in, 0.5), (x,))):
        call(x)
        count = len(probed)
        call(x)
        assert len(probed) == count > 0
        probed.clear()
    turned = {name: weight.t().contiguous().t() for name, weight in scaled(drop_in, 0.5).items()}
    functional_call(drop_in, turned, (x,))
    assert probed  # torch's kernels run transposed weights, and need other bytes


def test_a_call_keeps_its_mode_until_its_backward_pass():
    """A call in evaluation between forward and backward, of a teacher say, changes no gradient"""
    module = nn.LSTM(INPUT, HIDDEN, num_layers=2, dropout=0.5, dtype=torch.float64)
    x = torch.randn(STEPS, BATCH, INPUT, dtype=torch.float64)
    drop_in = LSTM.from_torch(module, budget="75kB")

    def gradients(*, evaluates):
        torch.manual_seed(1)
        output, _ = drop_in(x)
        if evaluates:
            with torch.no_grad():
                drop_in.eval()(x)
            drop_in.train()
        return torch.autograd.grad(output.square().sum(), list(drop_in.parameters()))

    close(gradients(evaluates=True), gradients(evaluates=False))


def scaled(module, factor):
    """Weights to call `module` with: its own times `factor`, which gets a gradient."""
    return {name: parameter.detach() * factor for name, parameter in module.named_parameters()}


@pytest.mark.parametrize("bidirectional", [False, True])
def test_calls_with_other_weights_keep_them_until_their_backward_pass(bidirectional):
    """Two calls before one backward pass, each with weights of its own, as with the torch module"""
    module = nn.LSTM(INPUT, HIDDEN, bidirectional=bidirectional, dtype=torch.float64)
    x = torch.randn(STEPS, BATCH, INPUT, dtype=torch.float64)
    _, budget_bytes = tight(LSTM, module, x.requires_grad_())
    drop_in = LSTM.from_torch(module, budget=budget_bytes * 11 // 10)  # gradients of other weights are more

    def gradients(call):
        factor = torch.ones((), dtype=torch.float64, requires_grad=True)
        outputs = [functional_call(call, scaled(module, k * factor), (x,))[0] for k in (1, 2)]
        loss = sum(output.square().sum() for output in outputs)
        return torch.autograd.grad(loss, [factor, x])

    close(gradients(drop_in), gradients(module))


def test_a_pruned_drop_in_may_be_called_twice_before_backward():
    """Each call computes its weights anew: gradients are those of the pruned torch module"""
    module = nn.GRU(INPUT, HIDDEN, dtype=torch.float64)
    drop_in = GRU.from_torch(copy.deepcopy(module), budget="60kB")
    mask = (torch.rand_like(module.weight_hh_l0) < 0.5).double()
    for each in (module, drop_in):
        prune.custom_from_mask(each, "weight_hh_l0", mask)
    x = torch.randn(2, STEPS, BATCH, INPUT, dtype=torch.float64)

    def gradients(call):
        loss = sum(call(part)[0].square().sum() for part in x)
        names, parameters = zip(*call.named_parameters(), strict=True)
        return dict(zip(names, torch.autograd.grad(loss, parameters), strict=True))

    close(gradients(drop_in), gradients(module))


def test_a_drop_in_may_be_a_part_of_an_unrolled_step():
    """The weights of an inner call are those that the outer loop put in place for it"""
    drop_in = LSTM.from_torch(nn.LSTM(INPUT, INPUT, dtype=torch.float64), budget="20kB")  # runs steps again
    x = torch.randn(6, STEPS, BATCH, INPUT, dtype=torch.float64)
    zeros = torch.zeros(1, BATCH, INPUT, dtype=torch.float64)

    def step(state, x_t):
        y, state = drop_in(x_t, state)
        return state, y.square().sum()

    def plain():
        state, total = (zeros, zeros), 0
        for x_t in x:
            state, y = step(state, x_t)
            total = total + y
        return total

    def unrolled():
        return unroll(step, (zeros, zeros), x, module=drop_in, reduce="sum", plan=tape_everything(6, 2))[0]

    found, expected = (torch.autograd.grad(run(), [*drop_in.parameters()]) for run in (unrolled, plain))
    close(found, expected)


@pytest.mark.parametrize(("bidirectional", "budget"), [(False, "25kB"), (True, "100kB")])
def test_nothing_of_a_call_stays_after_its_backward_pass(bidirectional, budget):
    """Computed weights are gone, and the drop-in can be copied and pickled before and after"""
    module = nn.GRU(INPUT, HIDDEN, bidirectional=bidirectional, dtype=torch.float64)
    drop_in = GRU.from_torch(module, budget=budget, host_budget="200kB")
    x = torch.randn(STEPS, BATCH, INPUT, dtype=torch.float64)
    weights = scaled(module, torch.ones((), dtype=torch.float64, requires_grad=True))
    computed = [weakref.ref(weight) for weight in weights.values()]
    output, _ = functional_call(drop_in, weights, (x,))
    copies = [copy.deepcopy(drop_in), pickle.loads(pickle.dumps(drop_in))]  # noqa: S301 - our own
    output.sum().backward()
    del weights, output
    assert [weight() for weight in computed] == [None] * len(computed)
    copies += [copy.deepcopy(drop_in), pickle.loads(pickle.dumps(drop_in))]  # noqa: S301 - our own
    with torch.no_grad():
        for twin in copies:
            close(twin(x)[0], module(x)[0])


def test_dropout_is_that_of_the_time_of_the_call():
    """As torch's modules read it: switched off after the first call it drops nothing, then everything"""
    module = nn.GRU(INPUT, HIDDEN, num_layers=2, dropout=0.5, dtype=torch.float64)
    x = torch.randn(STEPS, BATCH, INPUT, dtype=torch.float64)
    drop_in = GRU.from_torch(module, budget="200kB")
    drop_in(x)
    for probability in (0.0, 1.0):
        drop_in.dropout = module.dropout = probability
        state = initial_state(module)
        close(results(drop_in, drop_in, x, state), results(module, module, x, state))


def test_dropout_is_drawn_once_and_replayed():
    """With dropout the gradient is that of the masks that the outputs show, in training only"""
    module = nn.GRU(INPUT, HIDDEN, num_layers=2, dropout=0.5, dtype=torch.float64)
    x = torch.randn(STEPS, BATCH, INPUT, dtype=torch.float64)
    drop_in, _ = tight(GRU, module, x)

    def output_sum():
        torch.manual_seed(1)
        return drop_in(x)[0].sum()

    weight = drop_in.weight_ih_l1
    (gradient,) = torch.autograd.grad(output_sum(), weight)
    step = 1e-6 * torch.randn_like(weight)

    def moved_by(move):
        with torch.no_grad():
            weight.add_(move)
        return output_sum().item()  # with a tape: torch 2.6 draws other masks for segments of other lengths

    above, below = moved_by(step), moved_by(-2 * step)
    # Central differences: the error is that of the third derivative and of rounding, about 1e-8.
    assert float((gradient * step).sum() * 2) == pytest.approx(above - below, rel=1e-5)
    drop_in.eval()
    close(drop_in(x)[0], module.eval()(x)[0])


@pytest.mark.parametrize("share", [0.5, "50%"])
def test_a_share_of_the_activations_is_a_budget(share):
    """A share means that part of what full BPTT keeps for this very input"""
    module = nn.GRU(INPUT, HIDDEN, dtype=torch.float64)
    x = torch.randn(4 * STEPS, BATCH, INPUT, dtype=torch.float64)
    kept = activation_bytes(lambda steps: module(x[:steps]), 4 * STEPS, held=[x, *module.parameters()])
    drop_in = GRU.from_torch(module, budget=share)

    def iteration():
        drop_in(x)[0].sum().backward()

    iteration()
    drop_in.zero_grad()
    assert measure(iteration).peak_bytes <= kept / 2


def test_settling_a_share_draws_no_random_numbers():
    """With dropout, finding out what a share means leaves the random stream alone"""
    module = nn.GRU(INPUT, HIDDEN, num_layers=2, dropout=0.5)
    drop_in = GRU.from_torch(module, budget=1.0)
    x = torch.randn(STEPS, BATCH, INPUT)
    before = torch.get_rng_state()
    drop_in._budget_bytes(drop_in._chains(), drop_in._initial_state(x, None, is_batched=True), x)
    assert torch.equal(before, torch.get_rng_state())


def test_what_is_free_is_settled_once_per_shape(monkeypatch):
    """Later calls alike keep the plan although other bytes are free by then"""
    amounts = iter([10**9, 10])
    monkeypatch.setattr("executor.modules.free_for_plans", lambda _device: next(amounts))
    drop_in = GRU.from_torch(nn.GRU(INPUT, HIDDEN), budget="free")
    x = torch.randn(STEPS, BATCH, INPUT)
    assert torch.equal(drop_in(x)[0], drop_in(x)[0])


def test_what_is_free_is_a_budget():
    """With what the device has left a small module trains without recomputation"""
    module = nn.LSTM(INPUT, HIDDEN, dtype=torch.float64)
    x, state = torch.randn(STEPS, BATCH, INPUT, dtype=torch.float64), initial_state(module)
    drop_in = LSTM.from_torch(module, budget="free")
    close(results(drop_in, drop_in, x, state), results(module, module, x, state))


@pytest.mark.parametrize("bidirectional", [False, True])
def test_a_budget_that_is_too_small_names_one_that_is_not(bidirectional):
    """The refusal carries the least budget, and that budget works"""
    module = nn.GRU(INPUT, HIDDEN, dtype=torch.float64, bidirectional=bidirectional)
    x = torch.randn(STEPS, BATCH, INPUT, dtype=torch.float64)
    with pytest.raises(BudgetTooSmall) as caught:
        GRU.from_torch(module, budget=100)(x)
    minimum = caught.value.minimum_budget_bytes
    output, _ = GRU.from_torch(module, budget=minimum)(x)
    output.sum().backward()


@pytest.mark.parametrize(
    ("module", "x", "hx"),
    [
        (nn.GRU(INPUT, HIDDEN), torch.randn(5, 2, INPUT + 1), None),
        (nn.GRU(INPUT, HIDDEN), torch.randn(5), None),
        (nn.GRU(INPUT, HIDDEN), torch.randn(5, 2, INPUT), torch.zeros(1, 3, HIDDEN)),
    ],
)
def test_wrong_shapes_are_refused_with_both_shapes(module, x, hx):
    """The error shows what was given and what is expected"""
    with pytest.raises(ValueError, match=r"\[.*(must be|expected)"):
        GRU.from_torch(module, budget="1MB")(x, hx)


def test_tied_layers_are_one_parameter_under_two_names():
    """Outputs and gradients are those of the torch module, the shared weight's gradient once"""
    module = nn.LSTM(INPUT, HIDDEN, num_layers=2, dtype=torch.float64)
    module.weight_hh_l1 = module.weight_hh_l0
    x, state = torch.randn(STEPS, BATCH, INPUT, dtype=torch.float64), initial_state(module)
    drop_in, _ = tight(LSTM, module, x.requires_grad_(), state)
    close(results(drop_in, drop_in, x, state), results(module, module, x, state))


def test_weights_that_a_hook_computes_are_refused():
    """The hook would stay with the torch module; the drop-in itself may be pruned or normed"""
    pruned, normed = nn.LSTM(INPUT, HIDDEN), nn.LSTM(INPUT, HIDDEN)
    prune.random_unstructured(pruned, "weight_hh_l0", amount=0.5)
    with warnings.catch_warnings(action="ignore", category=FutureWarning):
        nn.utils.weight_norm(normed, "weight_hh_l0")
    for module in (pruned, normed):
        with pytest.raises(TypeError, match="weight_hh_l0 of the LSTM is computed by a hook"):
            LSTM.from_torch(module, budget="1MB")


def test_another_kind_of_module_is_refused():
    """A GRU is no LSTM, and a subclass may compute something else"""
    with pytest.raises(TypeError, match=r"LSTM takes over a torch\.nn\.LSTM, not a GRU"):
        LSTM.from_torch(nn.GRU(2, 2), budget="1MB")


def test_who_calls_a_drop_in_with_sizes_is_told_how_one_is_made():
    """As torch's modules are made; copies, which are made of nothing, are none of that"""
    for arguments in ((2, 3), (2, 3, 1)):
        with pytest.raises(TypeError, match=r"GRU takes over a torch\.nn\.GRU: GRU\.from_torch\("):
            GRU(*arguments, budget="1MB")
    with pytest.raises(TypeError, match=r"LSTM\.from_torch\("):
        LSTM(input_size=2, hidden_size=3, budget="1MB")
    copy.deepcopy(RNN.from_torch(nn.RNN(2, 3), budget="1MB"))


def test_what_is_no_budget_is_refused_before_anything_runs():
    """A budget is checked when the drop-in is made"""
    with pytest.raises(InvalidBudget):
        GRU.from_torch(nn.GRU(2, 2), budget="much")


@pytest.mark.parametrize("bidirectional", [False, True])
def test_one_refusal_is_shown_and_it_speaks_of_the_budget_that_was_given(bidirectional):
    """Chains are planned for parts of it, and refuse those"""
    module = LSTM.from_torch(nn.LSTM(2, HIDDEN, bidirectional=bidirectional), budget=100)
    with pytest.raises(BudgetTooSmall, match="a budget of 100 bytes") as caught:
        module(torch.randn(STEPS, BATCH, 2), (torch.zeros(1 + bidirectional, BATCH, HIDDEN),) * 2)
    shown = "".join(traceback.format_exception(caught.value))
    assert shown.count("Traceback (most recent call last)") == 1


def test_a_refused_call_draws_no_random_numbers():
    """Dropout between bidirectional layers has drawn when the second layer refuses: the stream is put back"""
    module = nn.LSTM(2, HIDDEN, num_layers=2, bidirectional=True, dropout=0.5)
    x = torch.randn(STEPS, BATCH, 2)
    with pytest.raises(BudgetTooSmall) as caught:
        LSTM.from_torch(module, budget=1)(x)
    least = caught.value.minimum_budget_bytes
    refusing, state = LSTM.from_torch(module, budget=least - 1), torch.get_rng_state()
    with pytest.raises(BudgetTooSmall):
        refusing(x)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("is_packed", [False, True])
def test_another_type_than_the_weights_is_refused_with_what_to_do(is_packed):
    """An input in torch's words, an initial state likewise; autocast casts both"""
    x = torch.randn(STEPS, BATCH, INPUT)
    given = pack_sequence(list(x.unbind(1))) if is_packed else x
    drop_in = GRU.from_torch(nn.GRU(INPUT, HIDDEN), budget="1MiB")
    with pytest.raises(ValueError, match=r"input dtype \(torch\.float64\) does not match .*Convert input:"):
        drop_in(given.double())
    with pytest.raises(ValueError, match=r"hx dtype \(torch\.float64\) does not match .*Convert hx:"):
        drop_in(given, torch.zeros(1, BATCH, HIDDEN, dtype=torch.float64))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        drop_in(x.bfloat16())


@pytest.mark.filterwarnings("ignore:.*torch.jit.trace:DeprecationWarning")
@pytest.mark.filterwarnings("ignore:`torch.jit.trace:FutureWarning")  # torch 2.14 says that it is deprecated
def test_tracing_is_refused_by_name():
    """A graph of one plan's operations would be no module inside a budget"""
    drop_in = LSTM.from_torch(nn.LSTM(INPUT, HIDDEN), budget="1MiB")
    with pytest.raises(UnsupportedTransform, match="a call of LSTM inside a byte budget cannot be traced"):
        torch.jit.trace(nn.Sequential(drop_in), torch.randn(STEPS, BATCH, INPUT))
    with pytest.raises(UnsupportedTransform, match="a call of LSTM inside a byte budget cannot be traced"):
        # Not strict, as from torch 2.9 on without being told.
        torch.export.export(drop_in, (torch.randn(STEPS, BATCH, INPUT),), strict=False)


def test_a_state_with_a_part_that_is_no_tensor_is_refused():
    """As torch's modules do, in words"""
    drop_in = LSTM.from_torch(nn.LSTM(INPUT, HIDDEN), budget="1MiB")
    with pytest.raises(TypeError, match=r"state of a LSTM is tensors, not \['Tensor', 'NoneType'\]"):
        drop_in(torch.randn(STEPS, BATCH, INPUT), (torch.zeros(1, BATCH, HIDDEN), None))


@pytest.mark.parametrize("kind", KINDS)
def test_parameters_are_drawn_and_listed_as_by_the_torch_module(kind):
    """`reset_parameters` gives the numbers that torch's gives, `all_weights` and `mode` are its own"""
    torch_class, drop_in_class = KINDS[kind]
    module = torch_class(INPUT, HIDDEN, num_layers=2, bidirectional=True)
    drop_in = drop_in_class.from_torch(module, budget="1MiB")
    assert drop_in.mode == module.mode
    for mine, theirs in zip(drop_in.all_weights, module.all_weights, strict=True):
        assert all(one is other for one, other in zip(mine, theirs, strict=True))
    torch.manual_seed(3)
    module.reset_parameters()
    expected = [parameter.clone() for parameter in module.parameters()]
    torch.manual_seed(3)
    nn.Sequential(drop_in).apply(lambda m: m.reset_parameters() if hasattr(m, "reset_parameters") else None)
    assert all(torch.equal(*pair) for pair in zip(module.parameters(), expected, strict=True))
