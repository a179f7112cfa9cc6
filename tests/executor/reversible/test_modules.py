"""Reversible modules: exact reversal, gradients of full BPTT."""

from __future__ import annotations

import copy

import pytest

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402

from executor.measure import measure  # noqa: E402
from executor.plan import checkpoint_every, tape_everything  # noqa: E402
from executor.reversible import (  # noqa: E402
    InvalidReversible,
    NFRevGRU,
    NFRevLSTM,
    RevGRU,
    RevLSTM,
)
from executor.unroll import unroll  # noqa: E402

from . import oracle  # noqa: E402
from .built import BATCH, HIDDEN, INPUT, STEPS, Head, build, sequence  # noqa: E402

torch.set_num_threads(1)

CODINGS = ["entropy", "scheduled"]
LIMITS = [1, 2, 3, 5, None]
KINDS = [(RevGRU, n) for n in LIMITS] + [(RevLSTM, n) for n in LIMITS] + [(NFRevGRU, 0), (NFRevLSTM, 0)]
NAMES = [f"{kind.__name__}-{n}" for kind, n in KINDS]
all_kinds = pytest.mark.parametrize(("kind", "forget_bits"), KINDS, ids=NAMES)


def gradients(outputs, leaves):
    """Gradients of a fixed random projection of the outputs."""
    generator = torch.Generator().manual_seed(1)
    weights = torch.randn(outputs.shape, generator=generator, dtype=outputs.dtype)
    return torch.autograd.grad((outputs * weights).sum(), leaves)


def full_tape(module, x, *, segment_steps):
    """The same cell under ordinary autograd: every step taped, none reversed."""
    state, outputs = module.initial_state(x.shape[1]), []
    for start in range(0, len(x), segment_steps):
        state, y = module.segment(state, x[start : start + segment_steps])
        outputs.append(y)
    return torch.cat(outputs)


def assert_all_equal(found, expected):
    for one, other in zip(found, expected, strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("coding", CODINGS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@all_kinds
def test_gradients_are_bitwise_those_of_the_full_tape(kind, forget_bits, dtype, coding):
    """Outputs, gradients of the inputs and of every parameter; two layers, a last segment that is shorter."""
    module = build(kind, forget_bits, layers=2, dtype=dtype, coding=coding)
    x = sequence(dtype)
    leaves = [x, *module.parameters()]
    outputs, _ = module(x)
    expected = full_tape(module, x, segment_steps=module.segment_steps)
    assert torch.equal(outputs, expected)
    assert_all_equal(gradients(outputs, leaves), gradients(expected, leaves))


@all_kinds
def test_gradients_are_those_of_the_papers_equations(kind, forget_bits):
    """Against plain autograd around the paper's integers, for as many steps as need no word archived."""
    module = build(kind, forget_bits, layers=2, coding="scheduled")
    limit = forget_bits if forget_bits is not None else 10
    x = sequence(steps=min(STEPS, 41 // max(limit, 1)))
    leaves = [x, *module.parameters()]
    outputs, _ = module(x)
    expected = oracle.run(module, x, forget_bits=limit)
    assert module.archived_bytes == 0
    torch.testing.assert_close(outputs, expected, rtol=0, atol=2.0**-22)
    for found, true in zip(gradients(outputs, leaves), gradients(expected, leaves), strict=True):
        torch.testing.assert_close(found, true, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize(("batch", "saturated"), [(1, False), (7, True), (64, True)])
@pytest.mark.parametrize("coding", CODINGS)
@all_kinds
def test_backward_ends_at_the_initial_state_with_empty_buffers(kind, forget_bits, coding, batch, saturated):
    """Any mismatch raises ReversalMismatch; weights twenty times as large drive the gates to 0 and 1."""
    scale = 40.0 if saturated else 2.0
    module = build(kind, forget_bits, dtype=torch.float32, scale=scale, coding=coding)
    x = sequence(torch.float32, steps=60, batch=batch)
    outputs, _ = module(x)
    outputs.sum().backward()
    assert all(bool(parameter.grad.isfinite().all()) for parameter in module.parameters())
    assert module.archived_bytes <= module.archive_bound_bytes(60, batch)


@pytest.mark.slow
def test_ten_thousand_steps_come_back():
    """The whole matrix of cells and limits at this length is `python -m benchmarks.reversible exactness`."""
    module = RevGRU(1, 2, forget_bits=3, segment_steps=20)
    x = torch.randn(10_000, 2, 1)
    module(x)[0].sum().backward()
    assert module.archived_bytes > 0


@pytest.mark.parametrize("kind", [RevGRU, RevLSTM])
def test_state_is_taken_up_where_it_was_left(kind):
    """Two halves of a sequence give what the whole gives, up to the float type of the state handed over."""
    module, x = build(kind, 3), sequence()
    whole, last = module(x)
    first, state = module(x[:20])
    second, end = module(x[20:], state)
    torch.testing.assert_close(torch.cat([first, second]), whole, rtol=0, atol=5e-3)
    for part, expected in zip(end, last, strict=True):
        torch.testing.assert_close(part, expected, rtol=0, atol=5e-3)


@all_kinds
@pytest.mark.parametrize("coding", CODINGS)
def test_the_layout_of_a_state_changes_no_number(kind, forget_bits, coding):
    """Kernels take the numbers as they lie; a state whose strides are transposed is put in rows first."""
    module, x = build(kind, forget_bits, coding=coding), sequence()
    state, _ = module.segment(module.initial_state(BATCH), x[:20])
    turned = tuple(part.t().contiguous().t() if torch.is_tensor(part) else part for part in state)
    expected, found = (module.segment(start, x[20:]) for start in (state, turned))
    assert torch.equal(found[1], expected[1])
    for part, true in zip(found[0], expected[0], strict=True):
        assert part == true if isinstance(true, int) else torch.equal(part, true)


@all_kinds
def test_gradients_reach_the_initial_state_through_outputs_and_last_state(kind, forget_bits):
    module, x = build(kind, forget_bits, layers=2), sequence()
    shape = (2, BATCH, HIDDEN)
    given = [torch.randn(shape, dtype=x.dtype).mul_(0.5).requires_grad_() for _ in module.state_names]
    outputs, last = module(x, tuple(given))
    parts = last if isinstance(last, tuple) else (last,)
    assert [part.shape for part in parts] == [torch.Size(shape)] * len(given)
    assert torch.equal(parts[0][-1], outputs[-1])  # h of the last layer, as in torch
    grads = torch.autograd.grad(sum(part.sum() for part in parts), given)
    assert all(float(grad.abs().max()) > 0 for grad in grads)


def test_gradient_of_the_initial_state_is_that_of_finite_differences():
    """Without forgetting and with large steps, so that the 23 bits of the state do not matter."""
    module, x = build(NFRevGRU, 0, scale=0.5), sequence(steps=4)
    start = (torch.randn(1, BATCH, HIDDEN, dtype=x.dtype) * 0.5).requires_grad_()
    (grad,) = torch.autograd.grad(module(x, start)[0].sum(), start)
    direction = torch.randn_like(start)
    with torch.no_grad():
        above, below = (module(x, start + sign * 1e-2 * direction)[0].sum() for sign in (1, -1))
    assert float((grad * direction).sum()) == pytest.approx(float(above - below) / 2e-2, rel=1e-3)


class Embed(nn.Module):
    """Characters to inputs."""

    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(11, INPUT, dtype=torch.float64)

    def forward(self, characters):
        return self.embedding(characters)


@pytest.mark.parametrize("kind", [RevGRU, RevLSTM, NFRevLSTM])
def test_embedding_and_loss_inside_the_segments_change_no_gradient(kind):
    module, head, embed = build(kind, 3, layers=2), Head().eval(), Embed()
    tokens = torch.randint(11, (STEPS + 1, BATCH))
    leaves = [*module.parameters(), *head.parameters(), *embed.parameters()]
    total, _ = module.reduce(tokens[:-1], tokens[1:], head, before=embed)
    outputs, _ = module(embed(tokens[:-1]))
    expected = head(outputs, tokens[1:])
    torch.testing.assert_close(total, expected)
    found, true = torch.autograd.grad(total, leaves), torch.autograd.grad(expected, leaves)
    for one, other in zip(found, true, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-12)


def test_random_numbers_inside_the_segments_are_the_same_on_the_way_back():
    """Dropout between layers and in the head: the gradient is that of the very loss that was computed.

    In the embedding's direction, where no rounding intervenes at the top: the head's own gradient.
    """
    module, head, embed = build(RevGRU, 3, layers=3, dropout=0.4), Head(), Embed()
    tokens = torch.randint(11, (STEPS + 1, BATCH))

    def loss():
        torch.manual_seed(5)
        return module.reduce(tokens[:-1], tokens[1:], head, before=embed)[0]

    (grad,) = torch.autograd.grad(loss(), head.linear.weight)
    direction, step = torch.randn_like(grad), 1e-6
    with torch.no_grad():
        head.linear.weight.add_(step * direction)
        above = loss()
        head.linear.weight.sub_(2 * step * direction)
        below = loss()
    assert float((grad * direction).sum()) == pytest.approx(float(above - below) / (2 * step), rel=1e-6)


def test_dropout_between_layers_follows_the_mode_and_the_seed():
    module, x = build(RevLSTM, 3, layers=2, dropout=0.5), sequence()
    torch.manual_seed(1)
    first = module(x)[0]
    second = module(x)[0]
    assert not torch.equal(first, second)
    torch.manual_seed(1)
    assert torch.equal(module(x)[0], first)
    module.eval()
    assert torch.equal(module(x)[0], module(x)[0])


def test_without_dropout_no_random_number_is_drawn():
    module, x = build(RevGRU, 3), sequence()
    before = torch.get_rng_state()
    module(x)[0].sum().backward()
    assert torch.equal(torch.get_rng_state(), before)


def test_backward_leaves_the_callers_random_stream_alone():
    module, x = build(RevGRU, 3, layers=2, dropout=0.5), sequence()
    outputs, _ = module(x)
    before = torch.get_rng_state()
    outputs.sum().backward()
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(
    "plan", [tape_everything(STEPS, segment_steps=1), checkpoint_every(STEPS, segment_steps=1, spacing=5)]
)
@pytest.mark.parametrize("coding", CODINGS)
@pytest.mark.parametrize(("kind", "forget_bits"), [(RevGRU, 3), (RevLSTM, None), (NFRevGRU, 0)])
def test_unroll_checkpoints_the_cell_as_any_other_step(kind, forget_bits, coding, plan):
    module, x = build(kind, forget_bits, layers=2, coding=coding), sequence()
    leaves = [x, *module.parameters()]
    outputs, _ = unroll(module.step, module.initial_state(BATCH), x, plan=plan, module=module)
    expected = full_tape(module, x, segment_steps=1)
    assert torch.equal(outputs, expected)
    assert_all_equal(gradients(outputs, leaves), gradients(expected, leaves))


def test_inference_archives_nothing():
    module, x = build(RevGRU, 3), sequence()
    with torch.no_grad():
        outputs, _ = module(x)
    assert module.archived_bytes == 0
    assert torch.equal(outputs, module(x)[0])
    assert module.archived_bytes > 0


def test_what_is_reported_as_archived_is_of_the_last_call_and_of_no_rehearsal():
    """A call whose plan tapes everything archives nothing, whatever an earlier one and its own probe did."""
    module = RevGRU(8, 32)
    x = torch.randn(50, 4, 8)
    module(x)
    assert module.archived_bytes > 0
    module.budget = "64MiB"

    def iteration():
        module(x)[0].sum().backward()

    assert measure(iteration, device="cpu").archived_bytes is None  # the first call probes
    assert module.archived_bytes == 0


def test_autocast_changes_nothing():
    """Both passes run in the type of the parameters: a reversal must not meet other roundings."""
    module, x = build(RevGRU, 3, dtype=torch.float32), sequence(torch.float32)
    expected = gradients(module(x)[0], [*module.parameters()])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = gradients(module(x)[0], [*module.parameters()])
    assert_all_equal(found, expected)


@pytest.mark.parametrize("budget", [None, "1MiB"])
def test_what_autocast_made_is_taken_in_the_type_of_the_weights(budget):
    """As by torch's layers, whose kernels cast; under a budget the embedding before runs under autocast."""
    module, embedding = build(RevGRU, 3, dtype=torch.float32, budget=budget), nn.Linear(4, INPUT)
    x, state = torch.randn(STEPS, BATCH, 4), torch.randn(1, BATCH, HIDDEN).bfloat16()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        embedded = embedding(x)
        assert embedded.dtype == torch.bfloat16
        found, _ = module(embedded, state)
        module.collect(x, nn.Identity(), before=embedding)[0].sum().backward()
    assert embedding.weight.grad is not None
    expected, _ = module(embedded.float(), state.float())
    assert torch.equal(found, expected)
    with pytest.raises(InvalidReversible, match=r"inputs are torch\.bfloat16"):
        module(embedded)


def test_hooks_of_parameters_fire_once():
    module, x = build(RevGRU, 3), sequence()
    calls = []
    module.weight_hh_l0.register_hook(lambda grad: calls.append(grad.shape))
    module(x)[0].sum().backward()
    assert calls == [module.weight_hh_l0.shape]


def test_state_dict_and_copies_carry_the_weights():
    module, x = build(RevLSTM, 3), sequence()
    twin = RevLSTM(INPUT, HIDDEN, forget_bits=3, dtype=torch.float64)
    twin.load_state_dict(module.state_dict())
    assert torch.equal(twin(x)[0], module(x)[0])
    assert torch.equal(copy.deepcopy(module)(x)[0], module(x)[0])


@pytest.mark.parametrize("budget", [None, "1MiB"])
def test_weights_may_be_parts_of_a_flat_parameter(budget):
    """As those of FSDP's modules are, which then have no parameter of their own"""
    module, x = build(RevLSTM, 3), sequence()
    module.budget = budget
    expected = gradients(module(x)[0], [*module.parameters()])
    names, weights = zip(*module.named_parameters(), strict=True)
    flat = torch.cat([weight.detach().flatten() for weight in weights]).requires_grad_()
    for name, weight, part in zip(
        names, weights, flat.split([each.numel() for each in weights]), strict=True
    ):
        delattr(module, name)
        setattr(module, name, part.view_as(weight))
    (found,) = gradients(module(x)[0], [flat])
    expected_flat = torch.cat([gradient.flatten() for gradient in expected])
    torch.testing.assert_close(found, expected_flat, rtol=1e-12, atol=1e-13)


def test_a_module_is_shown_with_what_is_not_the_default():
    module = RevGRU(4, 6, num_layers=2, dropout=0.5, budget="1MiB")
    assert repr(module) == "RevGRU(4, 6, num_layers=2, forget_bits=3, dropout=0.5, budget=1MiB)"
    assert repr(NFRevGRU(4, 6)) == "NFRevGRU(4, 6, num_layers=1)"


@pytest.mark.gpu
@pytest.mark.parametrize("coding", CODINGS)
@all_kinds
def test_reversal_is_exact_on_cuda(kind, forget_bits, coding):
    module = build(kind, forget_bits, layers=2, dtype=torch.float32, coding=coding).cuda()
    x = sequence(torch.float32, steps=60).detach().cuda().requires_grad_()
    leaves = [x, *module.parameters()]
    outputs, _ = module(x)
    expected = full_tape(module, x, segment_steps=module.segment_steps)
    assert torch.equal(outputs, expected)
    for found, true in zip(
        torch.autograd.grad(outputs.sum(), leaves), torch.autograd.grad(expected.sum(), leaves), strict=True
    ):
        torch.testing.assert_close(found, true)
