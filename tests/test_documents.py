"""What the documents name exists: links, files, tests, commands and their options, variables, paths.

The README's own blocks are run by `test_readme.py`.
"""

from __future__ import annotations

import importlib
import json
import re
import runpy
import shlex
from pathlib import Path

import pytest

import executor
from executor.cli import _parser as worker_parser
from planner_service.cli.main import _parser as planner_parser
from planner_service.contract import PlanRequest
from planner_service.planning import Planner
from planner_service.settings import OTHERS_VARIABLES, PREFIX, Settings, variable
from tests.cli.test_help import parsers

ROOT = Path(__file__).parent.parent
PAGES = sorted(
    [*ROOT.glob("*.md")]
    + [
        path
        for folder in ("docs", "examples", "benchmarks", "tests")
        for path in (ROOT / folder).rglob("*.md")
    ]
)
TEXTS = {str(path.relative_to(ROOT)): path.read_text(encoding="utf-8") for path in PAGES}
SOURCES = {
    str(path.relative_to(ROOT)): path.read_text(encoding="utf-8")
    for path in [*ROOT.glob("docker-compose.yml"), *ROOT.glob("Dockerfile"), *(ROOT / "deploy").rglob("*.*")]
    if path.is_file()
}
WRITTEN_LATER = {"benchmarks/results/gpu.json"}
"""What a command of the documents would write on a machine that nobody had yet."""

every_page = pytest.mark.parametrize("name", TEXTS)


def prose(text: str) -> str:
    """The page without its code blocks."""
    return re.sub(r"^```.*?^```$", "", text, flags=re.DOTALL | re.MULTILINE)


def anchors(page: Path) -> set[str]:
    """The names under which a page's headings are reached."""
    headings = re.findall(r"^#+ (.+)$", prose(page.read_text(encoding="utf-8")), re.MULTILINE)
    plain = (re.sub(r"[^\w\- ]", "", heading.lower()) for heading in headings)
    return {heading.strip().replace(" ", "-") for heading in plain}


@every_page
def test_links_lead_somewhere(name):
    """Every relative link names a file, and a heading of it where it says so"""
    page = ROOT / name
    for target in re.findall(r"\]\((?!https?:)([^)\s]+)\)", TEXTS[name]):
        path, _, anchor = target.partition("#")
        found = page.parent / path if path else page
        assert found.exists(), target
        assert not anchor or anchor in anchors(found), target


def test_every_page_of_the_documents_is_found_from_the_first_two():
    """By links, however many"""
    found, waiting = set(), [ROOT / "README.md", ROOT / "CONTRIBUTING.md"]
    while waiting:
        page = waiting.pop()
        found.add(page)
        links = re.findall(r"\]\((?!https?:)([^)#\s]+\.md)", page.read_text(encoding="utf-8"))
        waiting += {(page.parent / link).resolve() for link in links} - found - set(waiting)
    assert {path for path in PAGES if path.parts[len(ROOT.parts)] == "docs"} <= found


@every_page
def test_files_and_tests_that_are_named_exist(name):
    """`folder/file.py`, `test_file.py` and `test_file.py::test_name`, from the root or below tests/"""
    named = re.findall(
        r"`((?:[\w.-]+/)+[\w.-]+\.(?:py|md|json|ya?ml|sh|lua|c)|test_\w+\.py)(?:::(\w+))?`", TEXTS[name]
    )
    for path, test in named:
        if path in WRITTEN_LATER or "*" in path:
            continue
        found = [each for each in (ROOT / path, ROOT / name / ".." / path) if each.exists()]
        found += sorted((ROOT / "tests").rglob(path))
        assert found, path
        assert not test or any(f"def {test}(" in each.read_text(encoding="utf-8") for each in found), (
            path,
            test,
        )


def test_pages_that_the_code_names_exist():
    """Those with their folder, `docs/memory_model.md`, and those in capitals"""
    named = {
        page
        for folder in ("planner_service", "executor", "benchmarks", "deploy", "tests")
        for source in (ROOT / folder).rglob("*.*")
        if source.suffix in {".py", ".c", ".h", ".lua", ".service", ".yaml"}
        for page in re.findall(
            r"\b((?:[\w-]+/)+[\w-]+\.md|[A-Z]{4,}\.md)", source.read_text(encoding="utf-8")
        )
    }
    assert "docs/memory_model.md" in named
    assert {page for page in named if not (ROOT / page).exists()} == set()


def commands() -> list[list[str]]:
    """The words of every `tightfit …` and `tightfit-worker …` in a code block or in a program's help."""
    blocks = [
        (language, block.replace("\\\n", " "))
        for text in TEXTS.values()
        for language, block in re.findall(r"^```(console|sh)\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    ]
    told = {
        line
        for language, text in blocks
        for line in text.splitlines()
        if language == "sh" or line[:2] == "$ "
    }
    for parser in (*parsers(planner_parser()), *parsers(worker_parser())):
        told |= {line for line in (parser.epilog or "").splitlines() if line.startswith("  tightfit")}
    found = [re.search(r"(?:^|\s)(?<!-n )(tightfit(?:-worker)? .+)", line) for line in told]
    return [
        list(words)
        for words in sorted({tuple(arguments(each[1])) for each in found if each and "--help" not in each[1]})
    ]


def arguments(command: str) -> list[str]:
    """The command's words up to what the shell does with it, or what is said about it."""
    words = re.split(r" {3,}|\s[|&>#]", command)[0]
    return shlex.split(words.replace("$R", "r").replace(" URL", " http://planner"))


@pytest.mark.parametrize("command", commands(), ids=" ".join)
def test_a_command_is_understood(command):
    """It has the options and as many arguments as the parser takes"""
    program, *words = command
    parser = planner_parser() if program == "tightfit" else worker_parser()
    parser.parse_args(words)


@every_page
def test_a_benchmark_that_is_named_exists(name):
    """The module of `python -m benchmarks.…`, and the parts of those that have parts"""
    for module, rest in re.findall(r"python -m (benchmarks[\w.]*)([^`\n#|]*)", TEXTS[name]):
        path = ROOT / module.rstrip(".").replace(".", "/")
        assert path.with_suffix(".py").exists() or (path / "__main__.py").exists(), module
        if module in {"benchmarks.reversible", "benchmarks.sparse"}:
            known = importlib.import_module(f"{module}.__main__").PARTS.of
            assert set(rest.split()) <= set(known), rest


@pytest.mark.parametrize("name", [*TEXTS, *SOURCES])
def test_variables_exist(name):
    """No document tells of a variable that nobody reads"""
    known = {variable(each) for each in vars(Settings())} | OTHERS_VARIABLES | {"TIGHTFIT_BUDGET_BYTES"}
    assert set(re.findall(rf"\b{PREFIX}[A-Z_]+[A-Z]\b", {**TEXTS, **SOURCES}[name])) <= known


@every_page
def test_paths_of_the_service_are_served(name):
    """`POST /v1/plans`: with this method, if one is named"""
    served = json.loads((ROOT / "openapi" / "openapi.json").read_text(encoding="utf-8"))["paths"]
    shapes = {re.sub(r"\{\w+\}", "{}", path): methods for path, methods in served.items()}
    named = re.findall(
        r"`(?:(GET|POST|PUT|DELETE) )?(/v1/[\w{}/.-]*|/healthz|/readyz|/metrics)`", TEXTS[name]
    )
    for method, path in named:
        shape = re.sub(r"\{\w+\}", "{}", path)
        assert shape in shapes, path
        assert not method or method.lower() in shapes[shape], (method, path)


@pytest.mark.parametrize("name", [name for name in TEXTS if "```json" in TEXTS[name] and name != "README.md"])
def test_a_request_that_is_shown_is_one(name):
    """The JSON of the pages is a request for a plan"""
    for block in re.findall(r"^```json\n(.*?)^```", TEXTS[name], re.DOTALL | re.MULTILINE):
        assert PlanRequest.model_validate_json(block)


@pytest.mark.parametrize("example", ["gru-characters", "rev-gru-undone", "rnn-outputs-kept-on-cuda"])
def test_what_a_plan_holds_throughout_is_explained(example):
    """Every such line of a ledger has one on the page of what a plan counts"""
    request = (ROOT / "openapi" / "examples" / "plans" / f"{example}.json").read_bytes()
    names = [line.name for line in Planner().plan(PlanRequest.model_validate_json(request)).memory.ledger]
    for name in names[: names.index("initial state") + 1]:
        found = name if name.startswith("archive") else name.partition(":")[0]
        assert re.search(rf"^\| ([\w ]+, )?{found}[ ,]", TEXTS["docs/memory.md"], re.MULTILINE), name


def test_every_exception_of_the_executor_is_among_what_is_refused():
    """With its name, in the first column of the page's table or beside it"""
    named = set(re.findall(r"`(\w+)`", TEXTS["docs/executor.md"]))
    exported = {name for name in executor.__all__ if isinstance(getattr(executor, name), type)}
    refusals = {name for name in exported if issubclass(getattr(executor, name), Exception)}
    assert refusals - {"ExecutorError"} <= named


@pytest.mark.parametrize(
    "name", [name for name in TEXTS if "```python" in TEXTS[name] and name != "README.md"]
)
def test_code_that_is_shown_is_code(name):
    """Blocks that stand for themselves are run where that is quick; the others are Python at least"""
    for block in re.findall(r"^```python\n(.*?)^```", TEXTS[name], re.DOTALL | re.MULTILINE):
        code = compile(block, name, "exec")
        if name == "docs/reversible.md" and "import torch" in block:
            exec(code, {})  # noqa: S102 - our own document


def test_the_pictures_of_the_strategies_are_the_planners():
    """What docs/strategies shows is what is planned and replayed today"""
    draw = runpy.run_path(str(ROOT / "docs" / "strategies" / "draw.py"))
    drawn = dict(draw["drawings"]())
    kept = {path.stem: path.read_text() for path in draw["PICTURES"].glob("*.svg")}
    assert set(drawn) == set(kept)
    assert [name for name in drawn if drawn[name] != kept[name]] == []
