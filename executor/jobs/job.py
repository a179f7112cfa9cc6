"""Job files: one training run, described in YAML or JSON (docs/jobs.md).

    model:    {kind: lstm, hidden_size: 256, embedding_size: 64}
    data:     {text: python}
    sequence: {length: 1000, batch_size: 32}
    training: {optimizer: adam, learning_rate: 0.005, iterations: 10}
    budget:   5%
    host_budget: 1GiB
    report:   {output: report.json}

Every field is checked here, before anything is allocated; a wrong one is refused by its path.
"""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from executor.memory.budget import Budget, InvalidBudget, parse_budget, parse_budget_bytes
from executor.sparse import InvalidSparsity, SparsitySpec

REVERSIBLE_CELLS = ("rev_gru", "rev_lstm", "nf_rev_gru", "nf_rev_lstm")
CELLS = ("lstm", "gru", "rnn", *REVERSIBLE_CELLS)
SPARSE_CELLS = {"lstm": 4, "gru": 3}
"""Those whose gate gradients can be sparsified, with the number of their gates."""
DTYPES = ("float32", "float64", "bfloat16", "float16")
OPTIMIZERS = ("sgd", "momentum", "adam")
PYTHON_TEXT = "python"
"""`data.text` for the language reference that comes with every CPython."""


QUEUE_FIELDS = frozenset({"name", "priority", "maximum_failures", "engine"})
"""What a job file may tell a service that keeps it; whoever trains by hand has no queue, and skips them."""


class InvalidJob(ValueError):
    """A job file is malformed; `field` is the path of what is wrong in it, such as `sequence.length`."""

    def __init__(self, field: str, reason: str) -> None:
        self.field = field
        self.reason = reason
        super().__init__(f"{field}: {reason}")


@dataclass(frozen=True, kw_only=True)
class ModelSpec:
    """A character model: embedding, recurrent layers, linear head, cross-entropy."""

    kind: str
    """One of `CELLS`."""
    hidden_size: int
    embedding_size: int = 64
    num_layers: int = 1
    dtype: str = "float32"
    """One of `DTYPES`; float32 or float64 for a reversible cell."""
    forget_bits: int | None = 3
    """Of a reversible cell that forgets: most bits a unit and step, 1..10; None sets no limit."""

    def __post_init__(self) -> None:
        _require_choice("model.kind", self.kind, CELLS)
        _require_choice("model.dtype", self.dtype, DTYPES)
        for name in ("hidden_size", "embedding_size", "num_layers"):
            _require_positive(f"model.{name}", getattr(self, name))
        if self.kind in REVERSIBLE_CELLS:
            self._require_reversible()

    def _require_reversible(self) -> None:
        _require_choice("model.dtype", self.dtype, ("float32", "float64"))
        if self.hidden_size % 2:
            reason = "must be even: a reversible state is split in two halves"
            raise InvalidJob("model.hidden_size", f"{self.hidden_size} {reason}")
        bits: object = self.forget_bits
        if bits is not None and (type(bits) is not int or not 1 <= bits <= 10):
            raise InvalidJob("model.forget_bits", f"{bits!r} must be a whole number in 1..10, or null")


@dataclass(frozen=True, kw_only=True)
class DataSpec:
    """The text to learn."""

    text: str = PYTHON_TEXT
    """`PYTHON_TEXT` or the path of a UTF-8 file; a relative one is meant from the job file's folder."""
    characters: int | None = None
    """Use only that many, from the beginning; None means all."""

    def __post_init__(self) -> None:
        _require_text("data.text", self.text)
        if self.characters is not None:
            _require_positive("data.characters", self.characters)


@dataclass(frozen=True, kw_only=True)
class SequenceSpec:
    """The shape of one batch."""

    length: int
    """T, the number of steps that the gradient flows through."""
    batch_size: int

    def __post_init__(self) -> None:
        _require_positive("sequence.length", self.length)
        _require_positive("sequence.batch_size", self.batch_size)


@dataclass(frozen=True, kw_only=True)
class TrainingSpec:
    """How the weights are changed, and how often."""

    iterations: int
    optimizer: str = "adam"
    """One of `OPTIMIZERS`."""
    learning_rate: float = 0.002
    seed: int = 0
    gradient_sparsity: SparsitySpec | None = None
    """Drop small gate gradients of an LSTM or GRU; None: the gradient is exact. A mapping is taken too."""

    def __post_init__(self) -> None:
        _require_positive("training.iterations", self.iterations)
        _require_choice("training.optimizer", self.optimizer, OPTIMIZERS)
        _require_rate("training.learning_rate", self.learning_rate)
        if type(self.seed) is not int or not 0 <= self.seed < 2**63:
            raise InvalidJob("training.seed", f"{self.seed!r} must be a whole number in 0..2**63-1")
        given: object = self.gradient_sparsity
        if given is not None and not isinstance(given, SparsitySpec):
            object.__setattr__(self, "gradient_sparsity", _sparsity(given))


@dataclass(frozen=True, kw_only=True)
class ReportSpec:
    """What to write at the end; paths are meant from the folder the worker runs in."""

    output: str | None = None
    """The JSON report; None writes none."""
    weights: str | None = None
    """The trained weights (`torch.save` of the state dict); None writes none."""
    gradient_check_steps: int = 60
    """Length at which the gradients are compared with those of plain full BPTT; 0 leaves it out."""

    def __post_init__(self) -> None:
        for name in ("output", "weights"):
            if getattr(self, name) is not None:
                _require_text(f"report.{name}", getattr(self, name))
        if type(self.gradient_check_steps) is not int or self.gradient_check_steps < 0:
            raise InvalidJob(
                "report.gradient_check_steps",
                f"{self.gradient_check_steps!r} must be a whole number, 0 or more",
            )


@dataclass(frozen=True, kw_only=True)
class Job:
    """One training run. Raises InvalidJob, with the path of the field, for anything out of range."""

    model: ModelSpec
    sequence: SequenceSpec
    training: TrainingSpec
    budget: Budget
    host_budget_bytes: int | None = None
    """Host memory that stored states may move to, pinned on CUDA; None keeps them on the device."""
    maximum_slowdown_ratio: float | None = None
    """Most time that the plan may take, as a multiple of full BPTT's without a budget; None: any."""
    data: DataSpec = field(default_factory=DataSpec)
    report: ReportSpec = field(default_factory=ReportSpec)

    def __post_init__(self) -> None:
        if self.maximum_slowdown_ratio is not None:
            _require_slowdown("maximum_slowdown_ratio", self.maximum_slowdown_ratio)
        sparsity, kind = self.training.gradient_sparsity, self.model.kind
        if sparsity is None:
            return
        if kind not in SPARSE_CELLS:
            raise InvalidJob(
                "training.gradient_sparsity",
                f"model.kind={kind!r} has no sparse cell: choose {' or '.join(SPARSE_CELLS)}",
            )
        with _refusing_sparsity():
            sparsity.require_columns(SPARSE_CELLS[kind] * self.model.hidden_size)

    def record(self) -> dict[str, object]:
        """The job as it stands in the report: sections of plain values."""
        record = dataclasses.asdict(self)
        record["budget"] = str(self.budget)
        record["host_budget"] = record.pop("host_budget_bytes")
        return record


_SECTIONS: dict[str, type] = {
    "model": ModelSpec,
    "data": DataSpec,
    "sequence": SequenceSpec,
    "training": TrainingSpec,
    "report": ReportSpec,
}


def read_job(path: Path) -> Job:
    """The job in a YAML or JSON file.

    Raises InvalidJob for a file that cannot be read or parsed and for every wrong or unknown field.
    """
    job = job_from_record(_parsed(path))
    text = job.data.text
    if text == PYTHON_TEXT:
        return job
    data = dataclasses.replace(job.data, text=str(path.parent / text))
    return dataclasses.replace(job, data=data)


def job_from_record(record: object) -> Job:
    """The job in plain values, less what only a service heeds (`QUEUE_FIELDS`).

    Raises InvalidJob for every missing, wrong or unknown field.
    """
    given = _mapping("the job", record)
    fields = {name: value for name, value in given.items() if name not in QUEUE_FIELDS}
    _refuse_unknown("", fields, {*_SECTIONS, "budget", "host_budget", "maximum_slowdown_ratio", "strategy"})
    strategy = fields.get("strategy", "auto")
    if strategy != "auto":
        raise InvalidJob(
            "strategy", f"{strategy!r} takes a service: `tightfit jobs submit`; else leave it out"
        )
    for name in ("model", "sequence", "training", "budget"):
        if name not in fields:
            raise InvalidJob(name, "is missing")
    try:
        budget = parse_budget(fields["budget"])
    except InvalidBudget as error:
        raise InvalidJob("budget", f"{error.value!r}: {error.reason}") from error
    sections = {name: _section(name, fields[name]) for name in _SECTIONS if name in fields}
    return Job(
        budget=budget,
        host_budget_bytes=_host_budget_bytes(fields),
        maximum_slowdown_ratio=fields.get("maximum_slowdown_ratio"),
        **sections,
    )


def _host_budget_bytes(fields: Mapping[str, Any]) -> int | None:
    if fields.get("host_budget") is None:
        return None
    try:
        return parse_budget_bytes(fields["host_budget"], name="host_budget")
    except InvalidBudget as error:
        raise InvalidJob("host_budget", f"{error.value!r}: {error.reason}") from error


def _section(name: str, record: object) -> Any:
    kind = _SECTIONS[name]
    fields = _mapping(name, record)
    known = {field.name: field for field in dataclasses.fields(kind)}
    _refuse_unknown(f"{name}.", fields, set(known))
    for field_name, known_field in known.items():
        required = (
            known_field.default is dataclasses.MISSING and known_field.default_factory is dataclasses.MISSING
        )
        if required and field_name not in fields:
            raise InvalidJob(f"{name}.{field_name}", "is missing")
    return kind(**fields)


def _sparsity(record: object) -> SparsitySpec:
    path = "training.gradient_sparsity"
    fields = _mapping(path, record)
    _refuse_unknown(f"{path}.", fields, {field.name for field in dataclasses.fields(SparsitySpec)})
    if "rule" not in fields:
        raise InvalidJob(f"{path}.rule", "is missing")
    with _refusing_sparsity():
        return SparsitySpec(**fields)


@contextmanager
def _refusing_sparsity() -> Iterator[None]:
    """InvalidSparsity inside is raised as InvalidJob, with the field's path in the job."""
    try:
        yield
    except InvalidSparsity as error:
        raise InvalidJob(f"training.gradient_sparsity.{error.field}", error.reason) from error


def _parsed(path: Path) -> object:
    try:
        text = path.read_text(encoding="utf-8-sig")  # as some editors write, and the service's commands read
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "is not UTF-8 text"
        raise InvalidJob(str(path), f"the job file cannot be read: {reason}") from error
    if path.suffix == ".json":
        try:
            return json.loads(text)
        except json.JSONDecodeError as error:
            where = f"line {error.lineno}, column {error.colno}"
            raise InvalidJob(str(path), f"is not JSON: {error.msg} at {where}") from error
        except (ValueError, RecursionError) as error:  # a number, or a nesting, beyond Python's limits
            raise InvalidJob(str(path), f"is no job: {error}") from error
    return _parsed_yaml(path, text)


def _parsed_yaml(path: Path, text: str) -> object:
    try:
        import yaml
    except ImportError as error:  # a bare GPU image has torch and little else
        raise InvalidJob(
            str(path), "reading YAML needs PyYAML: install it or write the job as .json"
        ) from error
    try:
        return yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # the 30th of February, too deep a nesting
        reason = " ".join(str(error).split())
        raise InvalidJob(str(path), f"is not YAML: {reason}") from error


def _mapping(path: str, record: object) -> Mapping[str, Any]:
    if not isinstance(record, Mapping) or not all(isinstance(key, str) for key in record):
        raise InvalidJob(path, f"must be a mapping of fields, not {type(record).__name__}")
    return record


def _refuse_unknown(prefix: str, fields: Mapping[str, Any], known: set[str]) -> None:
    for name in fields:
        if name not in known:
            raise InvalidJob(f"{prefix}{name}", f"unknown field: one of {', '.join(sorted(known))}")


def _require_positive(path: str, value: object) -> None:
    if type(value) is not int or value < 1:
        raise InvalidJob(path, f"{value!r} must be a positive whole number")


def _require_choice(path: str, value: object, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise InvalidJob(path, f"{value!r} is not one of {', '.join(choices)}")


def _require_text(path: str, value: object) -> None:
    if not isinstance(value, str) or not value or "\0" in value:
        raise InvalidJob(path, f"{value!r} must be a text that is not empty, without NUL")


def _require_rate(path: str, value: object) -> None:
    if isinstance(value, str) and _is_number(value):  # where Python has a number, YAML has a text
        raise InvalidJob(path, f"{value!r} is a text; YAML takes numbers with a point: 1.0e-3 or 0.001")
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or not 0 < value <= sys.float_info.max:  # type: ignore[operator]
        raise InvalidJob(path, f"{value!r} must be a finite number above 0")


def _require_slowdown(path: str, value: object) -> None:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or not 1 <= value <= 1e6:  # type: ignore[operator]
        raise InvalidJob(path, f"{value!r} must be a number in 1..1e6")


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
