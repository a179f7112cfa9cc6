"""The first call with new shapes is probed; calls alike are not, and calls that differ are."""

from __future__ import annotations

import gc
from collections.abc import Callable
from enum import Enum
from functools import partial
from types import MethodType, SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from executor import BudgetTooSmall, ReplayError, measure, unroll
from executor.known import MOST_LOOPS, MOVES_TOLD, known
from executor.loop import Loop
from executor.predict import plan_for
from executor.surroundings.look import MOST_VALUES
from executor.surroundings.seen import Seen

STEPS, BATCH, SIZE = 5, 2, 4


def step_of(cell: nn.Module, extra: Any = None) -> Callable[[Tensor, Tensor], tuple[Tensor, Any]]:
    def step(state: Tensor, x: Tensor) -> tuple[Tensor, Any]:
        return cell(x, state), extra

    return step


def loop_of(cell: nn.Module, extra: Any = None, batch: int = BATCH, **options: Any) -> Loop:
    state = torch.zeros(batch, SIZE, requires_grad=options.pop("requires_grad", False))
    return Loop.of(step_of(cell, extra), state, torch.randn(STEPS, batch, SIZE), module=cell, **options)


@pytest.fixture
def cell() -> nn.GRUCell:
    return nn.GRUCell(SIZE, SIZE)


class Mode(Enum):
    LEAN = 1
    FULL = 2


class Marker:
    """Nothing but itself."""


class Scaled:
    """A callable that is made anew for every batch."""

    def __init__(self, scale: float, size: int = 1) -> None:
        self.scale, self.size = scale, size

    def __call__(self, x: Tensor) -> Tensor:
        return x.repeat(self.size, 1) * self.scale


@pytest.mark.parametrize(
    ("extra", "again"),
    [
        (None, None),
        (3, 3),
        ("text", "text"),
        (torch.ones(2), torch.zeros(2)),
        (0.5, 0.25),
        ({"mask": torch.ones(2), "rate": 0.5}, {"mask": torch.zeros(2), "rate": 0.4}),
        ([1, torch.ones(2)], [2, torch.zeros(2), 3]),
        ([object, print, {"a": [0.5]}], [object, print, {"a": [0.4]}]),
        (partial(torch.add, 0.5), partial(torch.add, 0.4)),
        (Scaled(0.5), Scaled(0.4)),
    ],
    ids=["none", "number", "text", "tensor", "rate", "dict", "list", "things", "partial", "callable"],
)
def test_the_same_lines_with_values_alike_are_known(cell: nn.GRUCell, extra: Any, again: Any) -> None:
    """A step defined anew in every iteration, over new tensors of the same shape, rates, containers."""
    assert known(loop_of(cell, extra)) is known(loop_of(cell, again))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (3, 4),
        (torch.ones(2), torch.ones(3)),
        (torch.ones(2), torch.ones(2).requires_grad_()),
        (object(), object()),
        (0.0, 0.5),
        (0.5, 1.0),
        ({"inner": 3}, {"inner": 4}),
        (partial(torch.add, 1), partial(torch.add, 2)),
        (Scaled(0.5, 1), Scaled(0.5, 2)),
        (torch.ones(2, 3), torch.ones(3, 2).t()),
        ([torch.ones(2)], [torch.ones(2)] * 20),
        (Mode.LEAN, Mode.FULL),
        (Marker(), Marker()),
        (1, True),
        ((1, 2), (1, 3)),
    ],
    ids=[
        *("number", "shape", "gradient", "object", "0", "1", "dict", "partial", "callable", "strides"),
        *("list of tensors", "enumeration", "marker", "type", "tuple"),
    ],
)
def test_the_same_lines_over_other_values_are_new(cell: nn.GRUCell, one: Any, other: Any) -> None:
    """A closure over the number of inner iterations, say, changes what the step needs."""
    assert known(loop_of(cell, one)) is not known(loop_of(cell, other))


def test_an_attribute_or_global_that_the_step_reads_makes_it_new(
    cell: nn.GRUCell, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a step needs may depend on both; private attributes are left to the module"""
    cell.inner, cell._calls = 1, 0

    def loop() -> Loop:
        return Loop.of(
            lambda h, x: (cell(x, h), STEPS), torch.zeros(2, SIZE), torch.randn(5, 2, SIZE), module=cell
        )

    first = known(loop())
    cell._calls = 1
    assert known(loop()) is first
    cell.inner = 60
    assert known(loop()) is not first
    cell.inner = 1
    monkeypatch.setitem(globals(), "STEPS", STEPS + 1)
    assert known(loop()) is not first


def test_an_attribute_that_counts_up_is_told_of(cell: nn.GRUCell) -> None:
    """Every call would be probed: the fifth new value is told of by name, one seen before is quiet"""
    for count in range(1, MOVES_TOLD + 1):
        cell.seen = count
        known(loop_of(cell))
    for count in (1, 2):
        cell.seen = count
        known(loop_of(cell))
    cell.seen = MOVES_TOLD + 1
    with pytest.warns(UserWarning, match="5 times because seen of its modules changed"):
        known(loop_of(cell))


@pytest.mark.filterwarnings("ignore:this loop was probed anew 5 times because extra changed")
def test_the_loop_used_longest_ago_is_forgotten_first(cell: nn.GRUCell) -> None:
    """Steps that are new at every call do not fill the memory"""
    first, second = known(loop_of(cell, -1)), known(loop_of(cell, -2))
    for extra in range(MOST_LOOPS - 1):
        known(loop_of(cell, -1))
        known(loop_of(cell, extra))
    assert known(loop_of(cell, -1)) is first
    assert known(loop_of(cell, -2)) is not second


def test_more_lengths_than_are_remembered_are_told_of_once(cell: nn.GRUCell) -> None:
    """Each is probed whenever it comes again: without a word training took many times as long"""

    def meet(length: int) -> None:
        inputs = torch.zeros(length, BATCH, SIZE)
        known(Loop.of(lambda h, x: (cell(x, h), None), torch.zeros(BATCH, SIZE), inputs, module=cell))

    for length in range(1, MOST_LOOPS + 1):
        meet(length)
    with pytest.warns(UserWarning, match="pad sequences to a few lengths"):
        meet(MOST_LOOPS + 1)
    meet(1)


def test_what_did_not_hold_is_looked_into_again(cell: nn.GRUCell) -> None:
    """After a ReplayError the next call probes: a dropout, say, that was switched on"""
    dropout = nn.Dropout(0.0)
    rates = [0.0]

    def step(h: Tensor, x: Tensor) -> tuple[Tensor, None]:
        return nn.functional.dropout(cell(x, h), rates[0]), None

    def run() -> None:
        state = torch.zeros(BATCH, SIZE, requires_grad=True)
        unroll(step, state, torch.randn(STEPS, BATCH, SIZE), module=[cell, dropout], budget="1MiB")

    run()
    rates[0] = 0.5
    with pytest.raises(ReplayError):
        run()
    run()


def test_another_module_shape_mode_or_frozen_parameter_is_new(cell: nn.GRUCell) -> None:
    first = known(loop_of(cell))
    others = [
        known(loop_of(nn.GRUCell(SIZE, SIZE))),
        known(loop_of(cell, batch=BATCH + 1)),
        known(loop_of(cell, requires_grad=True)),
        known(loop_of(cell, reduce="last")),
        known(loop_of(cell, final_state="detached")),
    ]
    cell.eval()
    others.append(known(loop_of(cell)))
    cell.train()
    cell.bias_hh.requires_grad_(False)
    others.append(known(loop_of(cell)))
    cell.bias_hh.requires_grad_(True)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        others.append(known(loop_of(cell)))
    for rows in (1, 2):  # a bank of memories takes more bytes the longer it is
        cell.register_buffer("bank", torch.zeros(rows, SIZE))
        others.append(known(loop_of(cell)))
    cell.bank = torch.ones(2, SIZE)
    assert known(loop_of(cell)) is others[-1]
    del cell.bank
    hook = cell.register_forward_hook(lambda _module, _given, after: after.sin())
    others.append(known(loop_of(cell)))
    hook.remove()
    cell.forward = MethodType(lambda module, x, h: nn.GRUCell.forward(module, x, h).cos(), cell)
    others.append(known(loop_of(cell)))
    del cell.forward
    assert len({id(one) for one in [first, *others]}) == 1 + len(others)
    assert known(loop_of(cell)) is first


class Trainer:
    """An object whose method is the step; made anew for every call, perhaps."""

    rows = 1

    def __init__(self, inner: int) -> None:
        self.inner, self.calls, self._seen = inner, 0, 0
        self._losses: list[Tensor] = []

    def step(self, state: Tensor, x: Tensor) -> tuple[Tensor, None]:
        self._seen += 1
        self._losses.append(state.mean())
        for _ in range(self.inner * self.rows):
            state = torch.tanh(state + x)
        return state, None


class Slots:
    """The same without a dictionary of attributes."""

    __slots__ = ("inner",)

    def __init__(self, inner: int) -> None:
        self.inner = inner

    def __call__(self, state: Tensor, x: Tensor) -> tuple[Tensor, None]:
        return deeper(state + x, self), None


def deeper(state: Tensor, given: Any) -> Tensor:
    """A helper, which reads what the step hands it, and a global."""
    for _ in range(given.inner + SETTINGS["inner"]):
        state = torch.tanh(state)
    return state


SETTINGS = {"inner": 1}
SPACE = SimpleNamespace(inner=1, other=[SimpleNamespace(inner=1)])


def by_namespace(state: Tensor, x: Tensor) -> tuple[Tensor, None]:
    return deeper(state + x, SPACE), None


def by_nested_namespace(state: Tensor, x: Tensor) -> tuple[Tensor, None]:
    return deeper(state + x, SPACE.other[0]), None


def plain_loop(step: Any, inputs: Any = None) -> Loop:
    return Loop.of(step, torch.zeros(1, 2), torch.randn(3, 1, 2) if inputs is None else inputs, length=3)


@pytest.mark.parametrize(
    "made", [Trainer, Slots, partial(partial, lambda inner, state, x: (state + x, inner))]
)
def test_what_is_made_anew_for_every_call_is_known_by_what_the_step_reads_of_it(made: Any) -> None:
    """An object whose method or call is the step, a partial function: without module= as with it."""

    def about(inner: int) -> Any:
        each = made(inner)
        return known(plain_loop(each.step if isinstance(each, Trainer) else each))

    assert about(1) is about(1)
    assert about(1) is not about(2)


def test_attributes_that_the_step_does_not_read_and_private_numbers_do_not_count() -> None:
    """Objects count in them; what the class says counts as what the object says."""
    trainer = Trainer(1)
    first = known(plain_loop(trainer.step))
    trainer.calls, trainer._seen = 7, 9
    trainer.history = [torch.ones(2)] * 3
    trainer._losses.append(torch.ones(2))
    assert known(plain_loop(trainer.step)) is first
    trainer.rows = 2
    assert known(plain_loop(trainer.step)) is not first


@pytest.mark.parametrize(
    ("step", "owner", "name"),
    [
        (by_namespace, SPACE, "inner"),
        (by_nested_namespace, SPACE.other[0], "inner"),
        (Slots(1), SETTINGS, "inner"),
    ],
    ids=["namespace", "namespace in a list", "global dict read by a helper"],
)
def test_values_read_through_objects_dicts_and_helpers_count(step: Any, owner: Any, name: str) -> None:
    """Changed between two calls, they change what the step needs."""
    values = owner if isinstance(owner, dict) else vars(owner)
    first = known(plain_loop(step))
    assert known(plain_loop(step)) is first
    values[name] = 20
    try:
        assert known(plain_loop(step)) is not first
    finally:
        values[name] = 1
    assert known(plain_loop(step)) is first


def enclosed(value: Any) -> Callable[[], Any]:
    return lambda: value


WRAPPINGS: dict[str, Callable[[Any], Any]] = {
    "dict": lambda value: {"inner": value, "rate": 0.5},
    "tuple": lambda value: (0, value),
    "namespace": lambda value: SimpleNamespace(inner=value),
    "slots": Slots,
    "object in a list": lambda value: [0.5, SimpleNamespace(inner=value)],
    "partial": lambda value: partial(deeper, given=value),
    "closure": enclosed,
    "method": lambda value: Trainer(value).step,
}


@given(st.lists(st.sampled_from(sorted(WRAPPINGS)), max_size=12))
def test_a_number_counts_however_it_is_wrapped(wrappings: list[str]) -> None:
    """In objects in dicts in closures and so on: made anew with the same number alike, with another not."""

    def seen(number: int) -> Any:
        value: Any = number
        for name in wrappings:
            value = WRAPPINGS[name](value)
        return Seen.by((lambda state, x: (deeper(state + x, value), None),), ()).values

    assert seen(1) == seen(1)
    assert seen(1) != seen(2)


def test_modules_count_by_what_their_lines_read_of_their_objects() -> None:
    """A configuration that a part of the module reads in its forward method."""

    class Part(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.settings = SimpleNamespace(inner=1)

        def forward(self, state: Tensor) -> Tensor:
            return deeper(state, self.settings)

    part = Part()
    module = nn.Sequential(part)

    def loop() -> Loop:
        state, x = torch.zeros(1, 2), torch.randn(3, 1, 2)
        return Loop.of(lambda h, x_t: (part(h + x_t), None), state, x, module=module)

    first = known(loop())
    assert known(loop()) is first
    part.settings.inner = 20
    assert known(loop()) is not first


def test_what_makes_the_inputs_counts() -> None:
    """Inputs as a callable of t: larger ones are another loop."""

    def inputs(size: int) -> Callable[[int], Tensor]:
        x = torch.randn(3, size, 2)
        return lambda t: x[t]

    step = step_of(nn.Identity())
    assert known(plain_loop(step, inputs(1))) is known(plain_loop(step, inputs(1)))
    assert known(plain_loop(step, inputs(1))) is not known(plain_loop(step, inputs(4)))
    assert known(plain_loop(step, torch.ones(3, 1, 2).__getitem__)) is not known(
        plain_loop(step, torch.ones(3, 4, 2).__getitem__)
    )


def test_an_object_at_the_place_of_a_dead_one_is_another(cell: nn.GRUCell) -> None:
    """What says nothing about itself counts by identity, not by an address that is used again."""
    found: list[Any] = []
    for index in range(4):
        found.append(known(loop_of(cell, (part for part in ()))))
        gc.collect()
        assert all(each is not found[index] for each in found[:index])
    kept = (part for part in ())
    assert known(loop_of(cell, kept)) is known(loop_of(cell, kept))


def test_more_than_can_be_looked_at_is_never_known(cell: nn.GRUCell) -> None:
    """Rather probed again than run under the plan of another; long plain containers are no trouble."""
    many = [SimpleNamespace(inner=each) for each in range(2 * MOST_VALUES)]
    assert known(loop_of(cell, many)) is not known(loop_of(cell, many))
    chain: Any = None
    for _ in range(10_000):
        chain = (chain,)
    assert known(loop_of(cell, chain)) is not known(loop_of(cell, chain))
    words = {f"word {index}": index for index in range(20_000)}
    assert known(loop_of(cell, words)) is known(loop_of(cell, dict(words)))
    assert known(loop_of(cell, words)) is not known(loop_of(cell, {**words, "word 3": 4}))


def test_a_known_call_is_recognised_quickly(cell: nn.GRUCell) -> None:
    """Counted, not timed: an ordinary step takes a look at a handful of values."""
    loop = loop_of(cell, torch.ones(2))
    assert len(loop.seen.values) < 10
    trainer = Trainer(1)
    trainer.history = [torch.ones(2)] * 1000
    assert len(Seen.by((trainer.step,), ()).values) < 20


def test_two_plans_are_made_where_the_step_grows() -> None:
    """The budget holds whatever the step reads: twenty inner iterations run under a plan of their own."""
    linear = nn.Linear(SIZE, SIZE)
    space = SimpleNamespace(inner=1)
    x = torch.randn(60, BATCH, SIZE)

    def step(state: Tensor, x_t: Tensor) -> tuple[Tensor, Tensor]:
        for _ in range(space.inner):
            state = torch.tanh(linear(state) + x_t)
        return state, state.sum()

    def train() -> None:
        unroll(step, torch.zeros(BATCH, SIZE), x, module=linear, reduce="sum", budget="8KiB")[0].backward()

    for space.inner in (1, 20):
        train()
        linear.zero_grad(set_to_none=True)
        assert measure(train).peak_bytes <= 8 * 1024


@pytest.mark.filterwarnings("ignore:TF32 acceleration on top of oneDNN")
def test_settings_of_torch_that_choose_kernels_make_a_call_new(cell: nn.GRUCell) -> None:
    """Other kernels have other tapes"""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        first = known(loop_of(cell))
        torch.set_num_threads(2)
        assert known(loop_of(cell)) is not first
        torch.set_num_threads(1)
        with torch.backends.mkldnn.flags(enabled=False):
            assert known(loop_of(cell)) is not first
        with sdpa_kernel(SDPBackend.MATH):
            assert known(loop_of(cell)) is not first
        torch.set_default_dtype(torch.float64)
        assert known(loop_of(cell)) is not first
        torch.set_default_dtype(torch.float32)
        assert known(loop_of(cell)) is first
    finally:
        torch.set_num_threads(threads)
        torch.set_default_dtype(torch.float32)


@pytest.mark.skipif(not hasattr(torch.backends, "fp32_precision"), reason="torch < 2.9")
def test_precisions_may_be_set_by_their_new_names(cell: nn.GRUCell) -> None:
    """By the old ones it then refuses to answer"""
    cudnn: Any = torch.backends.cudnn
    before, first = cudnn.rnn.fp32_precision, known(loop_of(cell))
    cudnn.rnn.fp32_precision = "ieee"
    try:
        assert known(loop_of(cell)) is not first
    finally:
        cudnn.rnn.fp32_precision = before
    assert known(loop_of(cell)) is first


@pytest.mark.parametrize("kind", ["number", "word", "input", "clock"])
def test_what_a_step_goes_by_in_its_state_or_inputs_makes_a_call_new(cell: nn.GRUCell, kind: str) -> None:
    """Twenty inner iterations are run under a plan of their own, as does a chunk that begins later"""

    def step(state: Any, given: Any) -> Any:
        hidden, goes_by = state
        x, count = (given["x"], given["count"]) if kind == "input" else (given, goes_by)
        rounds = {"number": count, "word": 20 if count == "deep" else 1, "input": count}
        for _ in range(rounds[kind] if kind != "clock" else int(count) // 5 + 1):
            hidden = cell(x, hidden)
        return (hidden, goes_by + 1 if kind == "clock" else goes_by), hidden.mean()

    x = torch.randn(5, 4, SIZE)

    def run(is_large: bool) -> None:
        goes_by = {
            "number": 20 if is_large else 1,
            "word": "deep" if is_large else "flat",
            "input": 0,
            "clock": torch.tensor(95 if is_large else 0),
        }[kind]
        inputs = {"x": x, "count": 20 if is_large else 1} if kind == "input" else x
        loss, _ = unroll(
            step, (torch.zeros(4, SIZE), goes_by), inputs, module=cell, reduce="sum", budget=9_000
        )
        loss.backward()

    run(False)
    cell.zero_grad()
    assert measure(lambda: run(False)).peak_bytes <= 9_000
    with pytest.raises(BudgetTooSmall):
        run(True)


def test_a_lazy_module_is_told_to_be_called_first() -> None:
    cell = nn.LazyLinear(SIZE)
    with pytest.raises(TypeError, match="call it once"):
        unroll(
            lambda h, x: (cell(h + x), h),
            torch.zeros(2, SIZE),
            torch.zeros(3, 2, SIZE),
            module=cell,
            budget=9_000,
        )


def test_plans_for_ever_new_budgets_are_forgotten(cell: nn.GRUCell, monkeypatch: pytest.MonkeyPatch) -> None:
    """80 KB each, were the budget a share of what is free at every call"""
    monkeypatch.setattr("executor.known.MOST_PLANS", 2)
    loop = loop_of(cell)
    plans = [plan_for(loop, 2**20 + more) for more in range(4)]
    assert list(known(loop).plans.values()) == plans[-2:]
    assert plan_for(loop, 2**20 + 3) is plans[-1]
