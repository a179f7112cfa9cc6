"""Who may import whom.

The table is an allow-list: a package, or a module where a single file differs, that has no row here
is an error, so nobody grows a new arrow without writing it down. Every import statement counts,
those inside functions and under TYPE_CHECKING too. Two further rules are about what an import
*loads*: the executor's engine side must start on a GPU image that has only torch.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = ("planner_service", "executor")

CHAIN = "planner_service.chain"
PYDANTIC = ("pydantic", "pydantic_core")
SERVICE_SIDE = (
    *PYDANTIC,
    "alembic",
    "anyio",
    "fastapi",
    "httpx",
    "prometheus_client",
    "sqlalchemy",
    "starlette",
    "uvicorn",
)
BARE_EXECUTOR = ("torch", "executor", CHAIN)

# Longest prefix wins. The standard library and the row's own package are always allowed.
ALLOWED: dict[str, tuple[str, ...]] = {
    "planner_service": (),
    "planner_service.chain": (),
    "planner_service.solvers": ("numpy", "numba", CHAIN),
    "planner_service.memory": ("numpy", CHAIN),
    "planner_service.calibration": ("planner_service.memory", CHAIN),
    "planner_service.contract": (*PYDANTIC, CHAIN),
    "planner_service.jobs": (CHAIN,),
    "planner_service.store.export": (
        "pyarrow",
        "sqlalchemy",
        "planner_service.store",
    ),
    "planner_service.store.postgresql": ("psycopg", "sqlalchemy"),
    "planner_service.planning": (
        "numpy",
        "planner_service.calibration",
        "planner_service.contract",
        "planner_service.jobs",
        "planner_service.memory",
        "planner_service.placement",
        "planner_service.solvers",
        CHAIN,
    ),
    "planner_service.placement": ("numpy", CHAIN),
    "planner_service.security": ("planner_service.jobs", CHAIN),
    "planner_service.loopback": (),
    "planner_service.worker_command": (),
    "planner_service.settings": ("planner_service.loopback",),
    "planner_service.store": (
        "alembic",
        "sqlalchemy",
        "planner_service.contract",
        "planner_service.jobs",
        "planner_service.security",
        "planner_service.settings",
    ),
    "planner_service.dispatch": (
        "httpx",
        "planner_service.contract",
        "planner_service.kubernetes",
        "planner_service.loopback",
        "planner_service.placement",
        "planner_service.settings",
        CHAIN,
    ),
    "planner_service.kubernetes": ("planner_service.contract", "planner_service.placement", CHAIN),
    "planner_service.connection": (
        "httpx",
        *PYDANTIC,
        "planner_service.contract",
        "planner_service.loopback",
    ),
    "planner_service.client": ("httpx", "planner_service.connection", "planner_service.contract", CHAIN),
    "planner_service.worker_client": (
        "httpx",
        *PYDANTIC,
        "planner_service.client",
        "planner_service.connection",
        "planner_service.contract",
        CHAIN,
    ),
    "planner_service.api": ("planner_service", *SERVICE_SIDE),
    "planner_service.api.access.oidc": ("planner_service", "jwt"),
    "planner_service.api.watching.telemetry": ("planner_service", *SERVICE_SIDE, "opentelemetry"),
    "planner_service.api.jobs.dispatching": ("planner_service", *SERVICE_SIDE, "yaml"),
    "planner_service.cli": ("planner_service", *SERVICE_SIDE),
    "planner_service.cli.kubernetes": ("planner_service", "yaml"),
    "planner_service.cli.request_file": ("planner_service", "yaml"),
    "planner_service.cli.picture": ("planner_service", "matplotlib"),
    "executor": ("torch", "numpy", "executor", CHAIN),
    "executor.planner": (
        "torch",
        "numpy",
        "executor",
        CHAIN,
        "planner_service.client",
        "planner_service.contract",
        "planner_service.planning",
        "planner_service.solvers",
        "planner_service.worker_client",
    ),
    "executor.service.link": (
        *BARE_EXECUTOR,
        "planner_service.client",
        "planner_service.contract",
        "planner_service.worker_client",
    ),
    "executor.jobs.chart": ("torch", "numpy", "executor", CHAIN, "matplotlib"),
    "executor.jobs.job": ("torch", "numpy", "executor", CHAIN, "yaml"),
    "executor.engine": BARE_EXECUTOR,
    "executor.unroll": BARE_EXECUTOR,
    "executor.cells": BARE_EXECUTOR,
    "executor.measure": BARE_EXECUTOR,
    "executor.reversible": BARE_EXECUTOR,
    "executor.reversible.triton_kernels": (*BARE_EXECUTOR, "triton"),
    "executor.sparse": BARE_EXECUTOR,
    "executor.sparse.triton_kernels": (*BARE_EXECUTOR, "triton"),
}

EXECUTOR_LAYERS = (
    "errors compiled taken_over torch_weights verify",
    "trees memory native service",
    "surroundings",
    "replay reversal",
    "stages",
    "rules",
    "engine loop fused",
    "undoing",
    "probing",
    "offload",
    "made_for",
    "measure plan probe_report",
    "probe probe_tapes",
    "known planner projection drop_ins",
    "execute predict",
    "unroll",
    "modules reversible sparse",
    "jobs",
    "worker",
    "attempt demo",
    "agent",
    "worker_commands",
    "cli",
)
"""The executor from below: what stands in a line imports from the lines above it and from itself only."""

LOADS_ONLY_TORCH = (
    "executor",
    "executor.engine",
    "executor.unroll",
    "executor.cells",
    "executor.measure",
    "executor.reversible",
    "executor.sparse",
)
"""Modules that must be importable with torch, the standard library and planner_service.chain."""


class Import(NamedTuple):
    """One import statement's target, absolute and dotted."""

    module: str
    line: int
    at_import: bool
    """True when importing the file runs the statement: not in a function, not for types only."""


def imports_of(source: str, module: str, *, is_package: bool = False) -> list[Import]:
    """Every import in `source`, relative ones resolved against `module`."""
    package = module if is_package else module.rpartition(".")[0]
    return list(_imports(ast.parse(source), package, at_import=True))


def _imports(node: ast.AST, package: str, *, at_import: bool) -> Iterator[Import]:
    if isinstance(node, ast.Import):
        for alias in node.names:
            yield Import(alias.name, node.lineno, at_import)
    elif isinstance(node, ast.ImportFrom):
        base = node.module or ""
        if node.level:
            above = package.split(".")[: len(package.split(".")) - node.level + 1]
            base = ".".join([*above, base] if base else above)
        # `from planner_service import solvers` is an arrow to planner_service.solvers.
        for alias in node.names:
            yield Import(f"{base}.{alias.name}", node.lineno, at_import)
    elif _is_dynamic_import(node):
        target = node.args[0]  # type: ignore[attr-defined]
        name = target.value if isinstance(target, ast.Constant) else "<computed>"
        yield Import(str(name), node.lineno, at_import)  # type: ignore[attr-defined]
    inside = at_import and not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
    for child in ast.iter_child_nodes(node):
        types_only = isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)
        yield from _imports(child, package, at_import=inside and not types_only)


def _is_dynamic_import(node: ast.AST) -> bool:
    if not isinstance(node, ast.Call) or not node.args:
        return False
    name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
    return name in {"import_module", "__import__"}


def covers(prefix: str, module: str) -> bool:
    """Whether `module` is `prefix` or lies inside it."""
    return module == prefix or module.startswith(prefix + ".")


def row_of(module: str) -> str | None:
    """The longest row of the table that covers `module`; the two roots cover only themselves.

    `executor` covers modules of its own; inside planner_service every unit needs a row.
    """
    rows = [row for row in ALLOWED if covers(row, module) and (row != "planner_service" or module == row)]
    return max(rows, key=len, default=None)


def violations(source: str, module: str, *, is_package: bool = False) -> list[str]:
    """What in `source` breaks the table, one sentence an arrow."""
    row = row_of(module)
    if row is None:
        return [f"{module} has no row in the table of import arrows"]
    allowed = (*ALLOWED[row], row)
    return [
        f"{module}:{target.line} imports {target.module}, which {row} may not"
        for target in imports_of(source, module, is_package=is_package)
        if target.module.split(".")[0] not in sys.stdlib_module_names
        and not any(covers(prefix, target.module) for prefix in allowed)
    ]


def modules() -> dict[str, Path]:
    """Every module of both packages by dotted name."""
    found = {}
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            parts = path.relative_to(ROOT).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


MODULES = modules()


def is_package(module: str) -> bool:
    return MODULES[module].name == "__init__.py"


@pytest.mark.parametrize("module", MODULES)
def test_module_imports_only_what_its_row_allows(module):
    found = violations(MODULES[module].read_text(), module, is_package=is_package(module))
    assert found == []


def unit_of(module: str) -> str | None:
    """The file or package right under `executor` that `module` is in."""
    root, _, rest = module.partition(".")
    return rest.partition(".")[0] if root == "executor" and rest else None


def test_executor_stands_in_layers():
    """What runs loops knows nothing of drop-ins or workers, what looks at steps nothing of either."""
    heights = {unit: height for height, line in enumerate(EXECUTOR_LAYERS) for unit in line.split()}
    units = {module: unit for module in MODULES if (unit := unit_of(module))}
    assert set(units.values()) == set(heights)
    upwards = [
        f"{module}:{target.line} imports {target.module}"
        for module, unit in units.items()
        for target in imports_of(MODULES[module].read_text(), module, is_package=is_package(module))
        if (other := unit_of(target.module)) in heights
        if other != unit and heights[other] >= heights[unit]
    ]
    assert upwards == []


def test_two_executor_modules_know_the_service():
    """One asks for plans, one speaks for a worker: nodes, claims, attempts."""
    knowing = {
        module
        for module in MODULES
        if covers("executor", module)
        for target in imports_of(MODULES[module].read_text(), module, is_package=is_package(module))
        if covers("planner_service", target.module) and not covers(CHAIN, target.module)
    }
    assert knowing <= {"executor.planner", "executor.service.link"}


BLOCKER = """
import sys

class OnlyTorch:
    allowed = ("executor", "planner_service", "torch", "torchgen", "functorch")

    def find_spec(self, name, path=None, target=None):
        root = name.split(".")[0]
        if root in {blocked!r} or name.startswith("planner_service.") and not name.startswith({chain!r}):
            raise ModuleNotFoundError("blocked by the test: " + name, name=name)

sys.meta_path.insert(0, OnlyTorch())
import {modules}
"""

NOT_ON_A_GPU_IMAGE = ("matplotlib", "numba", "numpy", "yaml", *SERVICE_SIDE)


def test_engine_side_loads_with_nothing_but_torch():
    """A bare GPU image has torch and nothing of the service; numpy is blocked too, to be strict."""
    pytest.importorskip("torch")
    present = [name for name in LOADS_ONLY_TORCH if name in MODULES]
    code = BLOCKER.format(modules=", ".join(present), chain=CHAIN, blocked=NOT_ON_A_GPU_IMAGE)
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]


@pytest.mark.parametrize(
    ("module", "source", "target"),
    [
        ("planner_service.chain.stage", "import numpy", "numpy"),
        ("planner_service.solvers.kernels", "import torch", "torch"),
        (
            "planner_service.solvers.kernels",
            "def f():\n    from pydantic import BaseModel",
            "pydantic.BaseModel",
        ),
        ("planner_service.memory.ledger", "from planner_service import solvers", "planner_service.solvers"),
        ("planner_service.memory.ledger", "from ..solvers import solve", "planner_service.solvers.solve"),
        ("planner_service.planning", "from planner_service.api import app", "planner_service.api.app"),
        ("planner_service.api.plans", "import executor.worker", "executor.worker"),
        ("planner_service.cli", "import importlib\nimportlib.import_module('torch')", "torch"),
        ("planner_service.cli", "__import__(name)", "<computed>"),
        (
            "executor.engine",
            "if TYPE_CHECKING:\n    from planner_service.planning import Planner",
            "planner_service.planning.Planner",
        ),
        ("executor.engine", "import numpy", "numpy"),
        ("executor.worker", "from planner_service.client import Client", "planner_service.client.Client"),
        ("executor.planner", "import planner_service.store", "planner_service.store"),
    ],
)
def test_checker_reports_a_broken_arrow(module, source, target):
    (found,) = violations(source, module)
    assert f"imports {target}," in found


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("planner_service.chain.chain", "from planner_service.chain.stage import Stage\nimport math"),
        ("planner_service.solvers.kernels", "import numba\nfrom .bounds import lower_bound"),
        ("executor.planner", "def f():\n    from planner_service.solvers import solve"),
        ("executor.engine", "import torch.nn\nfrom planner_service.chain import expand"),
    ],
)
def test_checker_accepts_an_allowed_arrow(module, source):
    assert violations(source, module) == []


def test_checker_demands_a_row_for_a_new_unit_of_the_service():
    (found,) = violations("", "planner_service.newcomer.module")
    assert "no row" in found
