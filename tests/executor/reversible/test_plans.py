"""Reversible layers under plans that undo, checkpoint and tape: the same bits, within the projected bytes."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402

from executor import BudgetTooSmall, measure, probe, unroll  # noqa: E402
from executor.errors import PlanMismatch, ReversalMismatch  # noqa: E402
from executor.loop import Loop  # noqa: E402
from executor.plan import ExecutionPlan, tape_everything, undo_every  # noqa: E402
from executor.projection import projected_peak_bytes  # noqa: E402
from executor.reversible import InvalidReversible, NFRevGRU, NFRevLSTM, RevGRU, RevLSTM  # noqa: E402
from planner_service.chain import EMPTY, ArchiveNode, CheckpointNode, Policy, TapeNode, expand, simulate  # noqa: E402

STEPS, K = 47, 5
SEGMENTS = 10
PLANS = {
    "every stage undone": Policy((ArchiveNode(SEGMENTS, EMPTY),), 0),
    "the end taped": Policy((TapeNode(2, EMPTY), ArchiveNode(SEGMENTS - 2, 0)), 1),
    "archived in two parts": Policy((ArchiveNode(6, EMPTY), ArchiveNode(4, 0)), 1),
    "undone between checkpoints": undo_every(STEPS, K, 3).policy,
    "all three": Policy(
        (
            ArchiveNode(2, EMPTY),
            TapeNode(1, EMPTY),
            CheckpointNode(2, 1, 0),
            ArchiveNode(7, EMPTY),
            CheckpointNode(3, 3, 2),
        ),
        4,
    ),
}
CELLS = [
    (RevGRU, {"forget_bits": 1}),
    (RevGRU, {"forget_bits": 3, "coding": "scheduled"}),
    (RevGRU, {"forget_bits": None}),
    (RevLSTM, {"forget_bits": 3}),
    (RevLSTM, {"forget_bits": 5, "coding": "scheduled"}),
    (NFRevGRU, {}),
    (NFRevLSTM, {}),
]


def gradients(module, x, plan):
    torch.manual_seed(5)
    module.zero_grad()
    x.grad = None
    y, state = unroll(None, module.initial_state(2), x, segment=module.segment, module=module, plan=plan)
    ((y**2).sum() + 1e-7 * state[0].sum()).backward()
    return [y.detach(), x.grad, *(parameter.grad for parameter in module.parameters())]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize(("kind", "options"), CELLS)
def test_every_plan_gives_the_bits_of_the_full_tape(kind, options, dtype):
    """Outputs and gradients, two layers with dropout between them, whatever is stored or undone"""
    module = kind(3, 6, num_layers=2, dropout=0.3, dtype=dtype, **options)
    x = torch.randn(STEPS, 2, 3, dtype=dtype, requires_grad=True)
    expected = [part.clone() for part in gradients(module, x, tape_everything(STEPS, K))]
    for name, policy in PLANS.items():
        found = gradients(module, x, ExecutionPlan(STEPS, K, policy))
        assert all(torch.equal(a, b) for a, b in zip(expected, found, strict=True)), name


def loop_of(module, x):
    def segment(state, given):
        state, y = module.segment(state, given)
        return state, (y**2).sum()

    return Loop.of(None, module.initial_state(x.shape[1]), x, segment=segment, module=module, reduce="sum")


@pytest.mark.parametrize(
    ("kind", "options"), [(RevGRU, {}), (RevLSTM, {"coding": "scheduled"}), (NFRevGRU, {})]
)
def test_the_measured_peak_of_every_plan_is_within_the_projected_one(kind, options):
    """Bytes of each plan on the probed chain: a bound, and with a full archive not a loose one"""
    module = kind(4, 32, num_layers=2, **options)
    x = torch.randn(60, 8, 4)
    loop = loop_of(module, x)
    report = probe(
        None, loop.structure.unflatten(loop.initial), x,
        segment=loop.function, module=module, reduce="sum", candidates=[5],
    )  # fmt: skip
    chain = report.chain(60, 5)
    assert chain.is_reversible
    for plan in (undo_every(60, 5, 12), undo_every(60, 5, 4)):

        def iteration(plan=plan):
            total, _ = unroll(
                None, loop.structure.unflatten(loop.initial), x,
                segment=loop.function, module=module, reduce="sum", plan=plan,
            )  # fmt: skip
            total.backward()

        iteration()
        module.zero_grad(set_to_none=True)
        measured = measure(iteration).peak_bytes
        projected = simulate(chain, expand(plan.policy)).peak_bytes
        assert measured <= projected <= 1.6 * measured
        module.zero_grad(set_to_none=True)


def peaks(module, head, x, plan):
    """Measured and projected bytes of a run under `plan` with the loss of `head` inside."""

    def segment(state, given):
        state, y = module.segment(state, given)
        return state, head(y).square().sum()

    described = {"segment": segment, "module": [module, head], "reduce": "sum"}
    start = module.initial_state(x.shape[1])
    report = probe(None, start, x, candidates=[plan.segment_steps], **described)

    def iteration():
        unroll(None, start, x, plan=plan, **described)[0].backward()

    iteration()
    for part in (module, head):
        part.zero_grad(set_to_none=True)
    return measure(iteration, device="cpu").peak_bytes, projected_peak_bytes(plan, report)


@pytest.mark.parametrize(("kind", "spacing"), [(RevGRU, 2), (RevGRU, 4), (RevLSTM, 3)])
def test_blocks_of_an_archive_that_go_while_a_stage_is_rehearsed_lower_no_projection(kind, spacing):
    """In a longer stretch they stay: a stage alone gives its last block back before its gradients come."""
    torch.manual_seed(0)
    module, head = kind(4, 16, num_layers=3, forget_bits=None), nn.Linear(16, 10)
    measured, projected = peaks(module, head, torch.randn(60, 8, 4), undo_every(60, 5, spacing))
    assert measured <= projected <= 1.15 * measured


@pytest.mark.parametrize("segment_steps", [1, 5])
def test_a_stretch_that_is_archived_beside_large_gradients_is_within_the_projection(segment_steps):
    """The gradients of a head live by then, and in the first pass, where archiving is measured, not yet."""
    module, head = RevGRU(4, 8), nn.Linear(8, 20_000)
    x = torch.randn(8 * segment_steps, 1, 4)
    measured, projected = peaks(module, head, x, undo_every(len(x), segment_steps, 3))
    assert measured <= projected <= 1.05 * measured


@pytest.mark.parametrize("parts", [2, 3])
def test_every_stretch_that_is_archived_at_once_has_begun_blocks_of_its_own(parts):
    """A plan of one's own may archive the steps in several parts; those of the planner never do."""
    torch.manual_seed(0)
    module, head = RevGRU(4, 16, num_layers=3, forget_bits=None), nn.Linear(16, 10)
    nodes = [ArchiveNode(12 // parts, part - 1 if part else EMPTY) for part in range(parts)]
    plan = ExecutionPlan(60, 5, Policy(tuple(nodes), parts - 1))
    assert plan.most_stretches == parts
    measured, projected = peaks(module, head, torch.randn(60, 8, 4), plan)
    assert measured <= projected <= 1.15 * measured


def test_the_archive_of_a_run_is_within_the_bound_of_the_plan_and_exact_for_the_schedule():
    """Words that were archived, against what the planner counts for as many steps"""
    for coding in ("entropy", "scheduled"):
        module = RevGRU(3, 8, forget_bits=2, coding=coding)
        x = torch.randn(400, 4, 3)
        loop = loop_of(module, x)
        lost = loop.needs().lost
        plan = ExecutionPlan(400, 5, Policy((ArchiveNode(80, EMPTY),), 0))
        unroll(None, module.initial_state(4), x, segment=module.segment, module=module, plan=plan)
        assert 0 < module.archived_bytes <= lost.archive_bytes(400) + lost.slack_bytes
        # 32 units of 2 bits a step, 16 bits a word, the first word due when 41 bits are exceeded:
        # ceil((2 * 399 - 41) / 16) = 48 words of 2 bytes a unit.
        if coding == "scheduled":
            assert module.archived_bytes == 32 * 48 * 2 == module.archive_bound_bytes(400, 4)
            assert lost.archive_bytes(400) == 32 * 400 * 2 // 8


def test_only_loops_whose_whole_state_is_one_reversible_layers_can_be_undone():
    """A second state beside it, another layer on it, or a step function: not"""
    module, x = RevGRU(3, 4), torch.randn(10, 2, 3)
    other = nn.GRUCell(4, 4)

    def with_counter(state, given):
        inner, count = state
        inner, y = module.segment(inner, given)
        return (inner, count + 1), y

    def with_another(state, given):
        inner, h = state
        inner, y = module.segment(inner, given)
        return (inner, other(y[-1], h)), y

    start = module.initial_state(2)
    assert Loop.of(None, start, x, segment=module.segment, module=module).needs().lost is not None
    assert Loop.of(module.step, start, x, module=module).needs().lost is None
    counted = Loop.of(None, (start, torch.zeros(())), x, segment=with_counter, module=module)
    assert counted.needs().lost is None
    both = Loop.of(None, (start, torch.zeros(2, 4)), x, segment=with_another, module=[module, other])
    assert both.needs().lost is None


def test_other_gates_on_the_way_back_are_noticed():
    """A weight that changes behind autograd's back: ReversalMismatch, no gradient"""
    module, x = RevGRU(3, 8), torch.randn(40, 2, 3)
    plan = ExecutionPlan(40, 5, Policy((ArchiveNode(8, EMPTY),), 0))
    y, _ = unroll(None, module.initial_state(2), x, segment=module.segment, module=module, plan=plan)
    with torch.no_grad():
        x.data[7] += 0.5  # .data: no version counter sees it
    with pytest.raises(ReversalMismatch, match="other gates"):
        y.sum().backward()
    assert all(parameter.grad is None for parameter in module.parameters())


def test_a_schedule_that_cannot_be_undone_is_refused():
    """A plan for a loop of torch's own cells must not archive"""
    cell, x = nn.GRUCell(3, 4), torch.randn(10, 2, 3)
    plan = ExecutionPlan(10, 1, Policy((ArchiveNode(10, EMPTY),), 0))
    with pytest.raises(PlanMismatch, match="cannot be undone"):
        unroll(lambda h, x_t: ((h := cell(x_t, h)), h), torch.zeros(2, 4), x, module=cell, plan=plan)


def test_a_module_with_a_budget_stays_inside_it_with_the_same_gradients():
    """Called like the module without one; loss and embedding inside the segments"""
    torch.manual_seed(1)
    module = RevGRU(3, 16, num_layers=2, dtype=torch.float64)
    embedding, head = nn.Embedding(5, 3, dtype=torch.float64), _Loss(16)
    characters, targets = torch.randint(5, (30, 4)), torch.randint(5, (30, 4))
    parts = [module, embedding, head]

    def iteration():
        loss, _ = module.reduce(characters, targets, head, before=embedding)
        loss.backward()

    def results():
        for part in parts:
            part.zero_grad(set_to_none=True)
        iteration()
        return [parameter.grad.clone() for part in parts for parameter in part.parameters()]

    expected = results()
    module.budget = 1
    with pytest.raises(BudgetTooSmall) as refusal:
        iteration()
    module.budget = refusal.value.minimum_budget_bytes
    found = results()
    for want, have in zip(expected, found, strict=True):
        torch.testing.assert_close(have, want, rtol=1e-10, atol=1e-13)
    for part in parts:
        part.zero_grad(set_to_none=True)
    assert measure(iteration).peak_bytes <= module.budget


@pytest.mark.parametrize(
    ("kind", "steps", "is_given"), [(NFRevLSTM, 1, False), (NFRevGRU, 2, True), (RevGRU, 1, True)]
)
def test_states_as_floats_are_part_of_the_budget(kind, steps, is_given):
    """They were beside it: at a large batch a fifth more than the least budget was held"""
    module, count = kind(1, 6, num_layers=2), len(kind.state_names)
    x = torch.randn(steps, 500, 1)
    given = tuple(torch.randn(2, 500, 6) for _ in range(count)) if is_given else None

    def iteration():
        y, state = module(x, given if given is None or count > 1 else given[0])
        roots = [y, *(state if count > 1 else (state,))]
        del y, state
        torch.autograd.backward(roots, [torch.randn_like(root) for root in roots])

    module.budget = 1
    with pytest.raises(BudgetTooSmall) as refusal:
        iteration()
    assert refusal.value.budget_bytes == 1
    module.budget = refusal.value.minimum_budget_bytes
    iteration()
    module.zero_grad()
    assert measure(iteration).peak_bytes <= module.budget


class _Loss(nn.Module):
    def __init__(self, size):
        super().__init__()
        self.head = nn.Linear(size, 5, dtype=torch.float64)

    def forward(self, y, targets):
        return nn.functional.cross_entropy(self.head(y).flatten(0, 1), targets.flatten(), reduction="sum")


def test_a_budget_takes_the_state_up_and_gives_it_on():
    """Initial and last states as floats, gradients through both"""
    module = RevLSTM(3, 6, dtype=torch.float64)
    x = torch.randn(20, 2, 3, dtype=torch.float64)
    start = tuple(torch.randn(1, 2, 6, dtype=torch.float64, requires_grad=True) for _ in range(2))

    def run():
        for part in start:
            part.grad = None
        y, last = module(x, start)
        (y.sum() + sum((part**2).sum() for part in last)).backward()
        return [y.detach(), *(part.detach() for part in last), *(part.grad for part in start)]

    expected = [part.clone() for part in run()]
    module.budget = "8MiB"
    for want, have in zip(expected, run(), strict=True):
        torch.testing.assert_close(have, want, rtol=1e-12, atol=1e-14)
    with pytest.raises(InvalidReversible, match="could reach"):
        module(x, tuple(part.detach() + 2.0**27 for part in start))


def test_a_state_of_another_batch_or_type_on_the_way_back_is_refused():
    """Inputs that do not belong to the state: refused with both"""
    module = RevGRU(3, 4)
    state = module.initial_state(2)
    with pytest.raises(InvalidReversible, match=r"batch_size=2 meets inputs of batch_size=5"):
        module.segment(state, torch.randn(4, 5, 3))
    with pytest.raises(InvalidReversible, match=r"float32"):
        module.segment(state, torch.randn(4, 2, 3, dtype=torch.float64))


def test_a_loop_inside_a_segment_archives_nothing_for_the_loop_around_it():
    """An inner loop of reversible layers, run with and without gradients, in a segment of the outer ones"""
    outer, inner = RevGRU(3, 6, dtype=torch.float64), RevGRU(3, 4, dtype=torch.float64)
    x = torch.randn(STEPS, 2, 3, dtype=torch.float64, requires_grad=True)

    def segment(state, given):
        plan = undo_every(len(given), 1, 2)
        with torch.no_grad():
            unroll(None, inner.initial_state(2), given, segment=inner.segment, module=inner, plan=plan)
        with torch.enable_grad():
            aside = given.detach().requires_grad_()
            y, _ = unroll(None, inner.initial_state(2), aside, segment=inner.segment, module=inner, plan=plan)
            (learned,) = torch.autograd.grad((y**2).sum(), aside)
        return outer.segment(state, given + learned)

    def run(plan):
        for module in (outer, inner):
            module.zero_grad()
        y, _ = unroll(None, outer.initial_state(2), x, segment=segment, module=outer, plan=plan)
        return [y.detach(), *torch.autograd.grad((y**2).sum(), [x, *outer.parameters()])]

    expected = run(tape_everything(STEPS, K))
    found = run(ExecutionPlan(STEPS, K, PLANS["every stage undone"]))
    assert all(torch.equal(a, b) for a, b in zip(expected, found, strict=True))
