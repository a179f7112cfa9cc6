"""What `make gpu` measures, at small sizes on the CPU, and its page."""

from __future__ import annotations

import time
from collections.abc import Iterator
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from benchmarks.executor import cases  # noqa: E402
from benchmarks.executor.cases import fused  # noqa: E402
from benchmarks.gpu import budgets, results, reversible, sparse  # noqa: E402
from benchmarks.gpu import page as page_module  # noqa: E402
from benchmarks.gpu.page import page  # noqa: E402
from benchmarks.gpu.peaks import measured as measured_peak  # noqa: E402
from benchmarks.gpu.promises import broken_promises  # noqa: E402
from benchmarks.gpu.rows import UNFINISHED, OutOfTime, Row, run  # noqa: E402
from benchmarks.gpu.section import keep  # noqa: E402
from benchmarks.sparse import frontier  # noqa: E402
from benchmarks.sparse.training import Training  # noqa: E402
from executor.drop_ins.recurrence import run_fused  # noqa: E402
from executor.reversible import RevLSTM  # noqa: E402
from tests.benchmarks.gpu_records import MACHINE, PASSED, faulty, put  # noqa: E402


@pytest.fixture(scope="module")
def measured() -> dict[str, Any]:
    """One row of each kind, as `make gpu` keeps them."""
    torch.set_num_threads(1)
    make = partial(fused, "lstm", hidden=16, batch=4, steps=200)
    rows = {
        "budgets": [
            Row("loop", 60, partial(budgets.budgets, make, (0.3, 0.001), rounds=1, host_bytes=2**20))
        ],
        "reversible": [
            Row("update", 60, partial(reversible.update, 100, device="cpu")),
            Row(
                "iteration",
                60,
                partial(reversible.iteration, RevLSTM, "entropy", hidden=8, batch=4, steps=40, device="cpu"),
            ),
        ],
        "sparse": [
            Row("product", 60, partial(sparse.products, 16, 0.25, device="cpu")),
            Row(
                "training",
                60,
                partial(sparse.iterations, Training(hidden_size=8, length=4, batch_size=4), device="cpu"),
            ),
        ],
    }
    found: dict[str, Any] = {"machine": MACHINE, "tests": PASSED}
    precision = torch.get_float32_matmul_precision()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(frontier, "ROUNDS", 1)
        for section, of_section in rows.items():
            kept: dict[str, Any] = {}
            run(of_section, until=time.monotonic() + 120, keep=partial(put, kept))
            found[section] = list(kept.values())
    torch.set_float32_matmul_precision(precision)
    return found


def test_every_kind_of_row_is_measured_to_its_end(measured):
    reasons = {"failed", "stopped", "not_measured"}
    for section in ("budgets", "reversible", "sparse"):
        assert not [row for row in measured[section] if reasons & set(row)]
    (loop,) = measured["budgets"]
    fitting, refused = loop["budgets"]
    assert 0 < fitting["measured_peak_bytes"] <= fitting["budget_bytes"] < loop["full_peak_bytes"]
    assert fitting["with_host"]["measured_peak_bytes"] <= fitting["budget_bytes"]
    assert fitting["measured_peak_bytes"] <= fitting["projected_peak_bytes"] <= fitting["budget_bytes"]
    assert fitting["seconds"] > 0
    assert fitting["predicted_seconds"] > 0
    assert fitting["time_ratio"] > 0
    assert fitting["with_host"]["time_ratio"] > 0
    assert refused["minimum_budget_bytes"] > refused["budget_bytes"]
    update, iteration = measured["reversible"]
    assert update["kernels"] in ("NativeKernels", "TorchKernels")
    assert iteration["peak_bytes"] < iteration["full_peak_bytes"]
    product, training = measured["sparse"]
    assert product["indexed_seconds"] is None
    assert product["largest_error"] < 1e-5
    assert {"dense", "mixed keep_ratio=0.125 row_ratio=0.5"} <= {row["variant"] for row in training["rows"]}


def test_all_of_it_is_on_the_page(measured):
    text = page(measured)
    assert "a device with 8 GiB, driver 1, CUDA 13, torch 2.11." in text
    assert "3 passed." in text
    for name in (
        "| loop | 30 % = ",
        "refused: needs",
        "| iteration | ",
        "| update | ",
        "| product | ",
        "| dense |",
    ):
        assert name in text
    assert "Not measured" not in text


@pytest.mark.parametrize(("is_too_slow", "words"), [(True, "not run: 0.412 s predicted"), (False, "")])
def test_a_peak_is_missing_for_a_reason(is_too_slow, words):
    """A row may have been ended before: that is told of the row, and is no prediction's doing"""
    record = {"share": 0.05, "budget_bytes": 2**20, "predicted_seconds": 0.4123, "is_too_slow": is_too_slow}
    text = page({"machine": MACHINE, "budgets": [{"name": "loop", "budgets": [record]}]})
    assert f"| loop | 5 % = 1 MiB | {words} | " in text


def beginnings(row: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """A row as it was each time that there was more in it; a record of a budget begins with two numbers."""
    items = list(row.items())
    for count in range(1, len(items)):
        yield dict(items[:count])
    before, (name, records) = dict(items[:-1]), ("budgets", row.get("budgets", []))
    for index, record in enumerate(records):
        parts = list(record.items())
        for count in range(2, len(parts) + 1):
            yield before | {name: [*records[:index], dict(parts[:count])]}
    yield row


@pytest.mark.parametrize("section", ["budgets", "reversible", "sparse"])
def test_the_page_of_a_run_that_is_ended_at_any_moment_is_written(measured, section, tmp_path):
    """Whatever a row had by then, and with the row's own word that it is not complete"""
    rows = measured[section]
    started = [{**begun, **UNFINISHED} for row in rows for begun in beginnings(row)]
    assert len(started) > 5
    for begun in started:
        found = {"machine": MACHINE, "tests": PASSED, section: [begun]}
        results.start(found, tmp_path / "gpu.json")
        page_module.write(tmp_path / "gpu.md", tmp_path / "gpu.json")
        text = (tmp_path / "gpu.md").read_text(encoding="utf-8")
        assert f"- {begun['name']}: its process ended while this was measured" in text
        assert isinstance(broken_promises(found), list)
    results.start({"machine": MACHINE}, tmp_path / "gpu.json")
    page_module.write(tmp_path / "gpu.md", tmp_path / "gpu.json")


def test_what_the_host_does_not_pin_costs_no_other_measurement(monkeypatch):
    """The machine may have less memory than it seems to, or a limit on what may be pinned"""
    make = partial(fused, "gru", hidden=8, batch=4, steps=40)
    monkeypatch.setattr(budgets, "_add_peak_with_host", faulty)
    found: dict[str, Any] = {"name": "loop"}
    list(budgets.budgets(make, (0.5,), found, rounds=1))
    (record,) = found["budgets"]
    assert record["with_host"] == {"failed": "RuntimeError: an illegal memory access"}
    assert record["time_ratio"] > 0
    assert "checkpoint" in record
    assert "| failed |" in page({"machine": MACHINE, "budgets": [found]})


def test_a_page_that_cannot_be_written_ends_no_run(monkeypatch, capsys):
    """Eight minutes of a device are worth more; the results are there, and the reason is told"""
    monkeypatch.setattr(page_module, "write", faulty)
    assert not page_module.try_to_write()
    assert "an illegal memory access" in capsys.readouterr().err


def test_each_row_is_on_the_page_as_soon_as_it_is_kept(tmp_path, monkeypatch):
    """Whoever ends the run from outside finds it there"""
    paths = tmp_path / "gpu.md", tmp_path / "gpu.json"
    results.start({"machine": MACHINE}, paths[1])
    monkeypatch.setattr(results, "add", partial(results.add, path=paths[1]))
    monkeypatch.setattr(page_module, "write", partial(page_module.write, *paths))
    keep("sparse", {"name": "product", "failed": "ValueError: no"})
    assert "- product: ValueError: no" in paths[0].read_text(encoding="utf-8")


def test_the_page_names_the_rows_whose_segments_did_not_expand(measured):
    """A user's own settings of the allocator are left alone, and virtual machines may refuse them"""
    (loop,) = measured["budgets"]
    for expand, words in ((True, "Segments can expand."), (False, "Segments can expand, but not in: loop.")):
        assert words in page({"machine": MACHINE, "budgets": [{**loop, "segments_expand": expand}]})


def test_a_budget_that_is_kept_breaks_no_promise(measured):
    assert broken_promises(measured) == []


@pytest.mark.parametrize(
    ("broken", "words"),
    [
        ({"measured_peak_bytes": 101}, "measured 101 bytes in a budget of 100"),
        ({"with_host": {"measured_peak_bytes": 102}}, "measured 102 bytes"),
        ({"with_host": {"host_peak_bytes": 9, "host_budget_bytes": 8}}, "9 bytes of host memory"),
        ({"with_host": {"failed": "RuntimeError: no"}}, "with host memory: RuntimeError: no"),
        ({"hard_cap": {"failed": "ValueError: no"}}, "under a hard cap of the budget: ValueError: no"),
    ],
)
def test_a_broken_promise_is_named(broken, words):
    record = {"share": 0.05, "budget_bytes": 100, "measured_peak_bytes": 100, **broken}
    found = {"tests": PASSED, "budgets": [{"name": "loop", "budgets": [record]}]}
    (promise,) = broken_promises(found)
    assert promise.startswith("loop at 5 %: ")
    assert words in promise


@pytest.mark.parametrize(
    ("gaps_bytes", "words"), [(0, "1 MiB more reserved |"), (2**21, "1 MiB more reserved, 2 MiB in gaps |")]
)
def test_gaps_that_a_capped_run_could_use_are_told(gaps_bytes, words):
    """What was reserved before, and free, is no part of what the cap allows"""
    record = {"share": 0.05, "budget_bytes": 100, "hard_cap": {"reserved_peak_bytes": 2**20}}
    record["hard_cap"]["gaps_before_bytes"] = gaps_bytes
    assert words in page({"machine": MACHINE, "budgets": [{"name": "loop", "budgets": [record]}]})


def test_running_out_of_memory_under_the_cap_is_a_result():
    """Recorded and shown, until the shares that are set aside have been measured"""
    record = {"share": 0.05, "budget_bytes": 100, "measured_peak_bytes": 100}
    record["hard_cap"] = {"out_of_memory": "OutOfMemoryError: no"}
    found = {"machine": MACHINE, "tests": PASSED, "budgets": [{"name": "loop", "budgets": [record]}]}
    assert broken_promises(found) == []
    assert "out of memory" in page(found)


def test_failed_tests_and_rows_and_an_empty_file_break_promises():
    tests = {"exit_status": None, "summary": "stopped after 150 s", "failures": []}
    found = {"tests": tests, "sparse": [{"name": "product", "failed": "RuntimeError: no"}]}
    assert broken_promises(found) == [
        "tests: stopped after 150 s",
        "no budget was measured",
        "product: RuntimeError: no",
    ]


def test_what_full_bptt_cannot_run_is_not_measured():
    """The gates of a long sequence can be more than a kernel can count; that is no failure of ours"""
    found: dict[str, Any] = {}
    list(budgets.budgets(lambda: SimpleNamespace(full_iteration=faulty), (0.1,), found))
    assert found == {"not_measured": "full BPTT: RuntimeError: an illegal memory access"}


@pytest.mark.parametrize(
    ("error", "key"),
    [
        (ValueError("too small"), "refused"),
        (torch.OutOfMemoryError("CUDA out of memory."), "out_of_memory"),
        (KeyError("what nobody thought of"), "failed"),
    ],
)
def test_whatever_happens_under_the_cap_is_recorded(error, key, monkeypatch):
    """The shares after it are measured; a row whose time is over ends"""

    def raising(*_given: object) -> None:
        raise error

    case = SimpleNamespace(budgeted=lambda _bytes: raising)
    assert list(budgets.under_hard_cap(case, 2**30)) == [key]
    case.budgeted = lambda _bytes: (_ for _ in ()).throw(OutOfTime)
    with pytest.raises(OutOfTime):
        budgets.under_hard_cap(case, 2**30)


def test_gradients_of_an_earlier_iteration_are_gone_before_a_peak_is_read():
    """Dropped within it they would hide as many of its own bytes on a device"""
    module, seen = torch.nn.Linear(2, 2), []
    module(torch.ones(2)).sum().backward()
    measured_peak(module, lambda: seen.append(module.weight.grad))
    assert seen == [None]


def test_the_rows_are_those_that_the_documentation_speaks_of():
    """Sizes of the executor's table, reversible layers with both codings, sparse ones of several sizes."""
    names = [row.name for row in budgets.rows()]
    assert names[:4] == [
        *("nn.LSTM H1024 B64 T1000", "nn.GRU H1024 B64 T1000"),
        *("nn.LSTM H1024 B64 T10000", "nn.GRU H1024 B64 T10000"),
    ]
    assert all(name.endswith("T1000") for name in names[4:14])
    assert all(name.endswith(", smaller budgets") for name in names[14:])
    assert len(names) == 22
    assert len(set(names)) == len(names)
    assert sum("RevLSTM" in row.name for row in reversible.rows()) == 4
    assert {"iterations, H512, layers: 1", "iterations, H2048, layers: 1"} <= {
        row.name for row in sparse.rows()
    }


def test_a_sequence_that_one_call_cannot_count_is_run_in_several(monkeypatch):
    """Gates are counted in 32 bits by cuDNN; the loss and its gradients are those of one call"""
    case = fused("lstm", hidden=4, batch=2, steps=30)
    whole, parameters = case.full(), list(case.module.parameters())
    expected = torch.autograd.grad(whole, parameters)
    monkeypatch.setattr(cases, "MOST_GATES", 4 * 4 * 2 * 7)
    calls = []
    monkeypatch.setattr(cases, "run_fused", lambda *given: calls.append(len(given[3])) or run_fused(*given))
    again = fused("lstm", hidden=4, batch=2, steps=30)
    again.module.load_state_dict(case.module.state_dict())
    again.x.copy_(case.x)
    loss = again.full()
    assert calls == [7, 7, 7, 7, 2]
    torch.testing.assert_close(loss, whole)
    torch.testing.assert_close(torch.autograd.grad(loss, list(again.module.parameters())), expected)
