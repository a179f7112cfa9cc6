"""Every example keeps its budget, agrees with the plain loop, and learns, on a shorter sequence."""

import importlib
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[2] / "examples"

# Sequences short enough for a test, and budgets that still make recomputation necessary.
SHORT = {
    "spiking": (100, "600kB"),
    "rollout": (20, "7MB"),
    "inner_optimiser": (50, "900kB"),
    "neural_ode": (50, "1MB"),
}


@pytest.mark.parametrize("name", SHORT)
def test_an_example_keeps_its_promises(name, monkeypatch):
    """The measured peak is within the budget and below the plain loop's; gradients agree; the loss falls"""
    monkeypatch.syspath_prepend(str(FOLDER))
    example = importlib.import_module(name)
    steps, budget = SHORT[name]
    monkeypatch.setattr(example, "STEPS", steps)
    monkeypatch.setattr(example, "BUDGET", budget)
    comparison = example.main(iterations=3)
    assert comparison.kept, comparison.table()
    assert comparison.budgeted_peak_bytes < comparison.plain_peak_bytes
    for module in (name, "side_by_side"):
        sys.modules.pop(module, None)


def test_every_example_is_tested():
    """A new example needs a row above and a table in the README of the folder"""
    names = {path.stem for path in FOLDER.glob("*.py")} - {"side_by_side"}
    assert names == set(SHORT)
    text = (FOLDER / "README.md").read_text(encoding="utf-8")
    assert all(f"{name}.py" in text for name in names)
