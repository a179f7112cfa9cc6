"""What `--help` teaches: every command says what it does, every option what it means and its default."""

import argparse

import pytest

pytest.importorskip("torch")

from executor.cli import _parser as worker_parser
from executor.native.environment import node_name
from planner_service.cli.main import _parser as planner_parser
from planner_service.cli.main import main as planner


def parsers(parser):
    """The parser and those of its commands, and of theirs."""
    yield parser
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for command in action.choices.values():
                yield from parsers(command)


def shown(default):
    """A default as a person would write it."""
    return f"{default:g}" if isinstance(default, float) else str(default)


@pytest.mark.parametrize(
    "parser", [*parsers(planner_parser()), *parsers(worker_parser())], ids=lambda parser: parser.prog
)
def test_a_command_is_described_with_all_that_it_takes(parser):
    """A sentence on the command, one on each argument, and the default that holds where nothing is given"""
    assert parser.description
    arguments = [each for each in parser._actions if not isinstance(each, argparse._SubParsersAction)]
    assert [each.dest for each in arguments if not each.help] == []
    without = (None, False, "", [], argparse.SUPPRESS, node_name())  # the last is told in words
    with_default = [each for each in arguments if each.default not in without]
    assert [each.dest for each in with_default if shown(each.default) not in each.help] == []


def test_a_document_that_cannot_be_written_is_one_line_and_status_2(tmp_path, monkeypatch, capsys):
    """`tightfit openapi` into a folder's place"""
    monkeypatch.setattr("planner_service.cli.openapi.document_text", lambda: "{}")
    assert planner(["openapi", "--output", str(tmp_path)]) == 2
    assert capsys.readouterr().err == f"tightfit openapi: {tmp_path} cannot be written: Is a directory\n"


@pytest.mark.parametrize(("parser", "told"), [(planner_parser, "tightfit "), (worker_parser, ", torch ")])
def test_the_version_is_told(parser, told, capsys):
    """`--version` prints it and ends with status 0"""
    with pytest.raises(SystemExit) as ended:
        parser().parse_args(["--version"])
    assert ended.value.code == 0
    assert told in capsys.readouterr().out
