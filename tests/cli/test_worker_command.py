"""`tightfit-worker` as it is installed"""

import importlib
import sys
import tomllib
from pathlib import Path

import pytest

from planner_service import worker_command

ROOT = Path(__file__).parent.parent.parent


def test_without_torch_it_is_one_line_and_status_2(monkeypatch, capsys):
    """A planner's installation has the command too: it ended in a traceback"""
    monkeypatch.setattr(worker_command, "find_spec", lambda _name: None)
    assert worker_command.main() == 2
    told = "tightfit-worker: training needs PyTorch: pip install 'tightfit[worker]'\n"
    assert capsys.readouterr().err == told


def test_with_torch_it_is_the_executors_command_line(monkeypatch, capsys):
    """Options, exit status and all"""
    pytest.importorskip("torch")
    monkeypatch.delitem(sys.modules, "executor.cli", raising=False)  # runpy warns of one that is there
    monkeypatch.setattr(sys, "argv", ["tightfit-worker", "run", "absent.json"])
    with pytest.raises(SystemExit) as ended:
        worker_command.main()
    assert ended.value.code == 2
    assert capsys.readouterr().err.startswith("tightfit-worker: absent.json")


def test_every_command_is_a_function():
    """What pyproject.toml names is there"""
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["scripts"]
    for target in scripts.values():
        module, _, name = target.partition(":")
        assert callable(getattr(importlib.import_module(module), name))
