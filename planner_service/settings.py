"""The service's settings: one frozen record, and the only reader of the environment."""

from __future__ import annotations

import math
import os
import re
import shlex
from collections.abc import Mapping
from dataclasses import Field, dataclass, field, fields
from difflib import get_close_matches
from pathlib import Path
from typing import Any, get_type_hints

from planner_service.loopback import is_loopback

PREFIX = "TIGHTFIT_"
SECONDS_PER_DAY = 86_400
KERNEL_SWITCHES = frozenset(
    PREFIX + name for name in ("FUSED_KERNELS", "SPARSE_KERNELS", "REVERSIBLE_KERNELS")
)
"""Read by workers: `off` leaves their own kernels out."""
OTHERS_VARIABLES = KERNEL_SWITCHES | {
    PREFIX + name for name in ("API_KEY", "LAUNCH_TOKEN", "DATABASE_PASSWORD")
}
"""Read by commands that ask a service, by workers and by docker-compose.yml, and none of its settings."""
DATABASE_FILE = "tightfit.sqlite3"
"""In the data folder, unless a URL is given."""
SERVICE_LINK = re.compile(
    r"\w*_(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)=|\w*_PORT=(tcp|udp|sctp)://"
)
"""What Kubernetes puts into the pods beside a Service called tightfit: its address, under our own prefix."""
ENGINE_NAMES = ("local", "agents", "slurm", "ray", "kubernetes")


_POSITIVE = (
    "max_body_bytes",
    "planning_threads",
    "planning_timeout_seconds",
    "local_workers",
    "heartbeat_seconds",
    "lost_after_seconds",
    "lease_seconds",
    "save_seconds",
)
_FINITE = ("heartbeat_seconds", "lost_after_seconds", "lease_seconds", "shutdown_seconds")
"""Workers are told them in JSON, which knows no infinity, or something is waited for that long."""
_URLS = ("planner_url", "kubernetes_url", "ray_url", "otlp_url")
_NOT_NEGATIVE = (
    "queue_length",
    "reply_cache_bytes",
    "plan_retention_days",
    "job_retention_days",
    "measurement_retention_days",
    "audit_retention_days",
    "requests_per_second",
    "planning_per_caller",
    "shutdown_seconds",
)


class InvalidSetting(ValueError):
    """A variable of the environment cannot be used; the message names it and what it takes."""


def _setting(default: object, meaning: str) -> Any:
    return field(default=default, metadata={"meaning": meaning})


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What an operator may change. Field `data_dir` is the variable `TIGHTFIT_DATA_DIR`, and so on.

    Raises InvalidSetting for a number outside its range.
    """

    host: str = _setting("127.0.0.1", "Address to listen on")
    port: int = _setting(8080, "Port to listen on; 0 takes a free one")
    tls_certificate_file: str = _setting("", "Certificate chain in PEM; with a key the service speaks HTTPS")
    tls_key_file: str = _setting("", "Its private key in PEM")
    data_dir: Path = _setting(  # noqa: RUF009 - a dataclass field, not a shared value
        Path("tightfit-data"), "Folder of the service's files; made when missing"
    )
    database_url: str = _setting("", "SQLAlchemy URL; empty means `tightfit.sqlite3` in the data folder")
    max_body_bytes: int = _setting(8 * 2**20, "Largest request body, in bytes; a larger one gets 413")
    planning_threads: int = _setting(2, "Requests planned at the same time")
    queue_length: int = _setting(64, "Requests that may wait for a thread; one more gets 503")
    planning_timeout_seconds: float = _setting(60.0, "Longest wait for one plan, in seconds")
    reply_cache_bytes: int = _setting(64 * 2**20, "Answers kept ready in memory, in bytes")
    plan_retention_days: float = _setting(0.0, "Plans older than this are deleted; 0 keeps all")
    job_retention_days: float = _setting(
        0.0, "Jobs that ended longer ago are deleted with their events and logs; 0 keeps all"
    )
    measurement_retention_days: float = _setting(0.0, "Measurements older than this are deleted; 0 keeps all")
    authentication: str = _setting(
        "auto", "Who is asked for a key: `auto`, everybody unless the service listens on loopback; `always`"
    )
    requests_per_second: float = _setting(
        500.0,
        "Requests a second of one key, or address without one; more get 429; 0: no limit. This and the next "
        "count where keys are asked for",
    )
    planning_per_caller: int = _setting(
        16, "Unfinished computations of one key; one more gets 429; 0: no limit"
    )
    audit_retention_days: float = _setting(0.0, "Audit entries older than this are deleted; 0 keeps all")
    oidc_issuer: str = _setting("", "OpenID Connect issuer whose tokens count too; empty: only keys")
    oidc_audience: str = _setting("tightfit", "Audience that the issuer's tokens must name")
    oidc_jwks_url: str = _setting("", "URL of the issuer's public keys (JWKS); needed with an issuer")
    oidc_scope_claim: str = _setting("scope", "Claim with the scopes: words such as `tightfit:read`")
    data_roots: str = _setting(
        "",
        "Folders whose files jobs may name as their text, separated by colons; empty: each worker's own "
        "`--data-root`",
    )
    heartbeat_seconds: float = _setting(15.0, "How often a worker shows that it is alive, in seconds")
    lost_after_seconds: float = _setting(
        180.0, "A running job goes back to the queue after so long a silence, in seconds"
    )
    lease_seconds: float = _setting(
        60.0, "An assigned job goes back to the queue when it was not begun within this, in seconds"
    )
    shutdown_seconds: float = _setting(10.0, "Time for open requests to finish after SIGTERM, in seconds")
    engine: str = _setting(
        "",
        "Where jobs run that name no engine: agents, local, slurm, ray or kubernetes; empty: agents, the "
        "worker of --with-worker included, or local with `TIGHTFIT_LOCAL_START=process`",
    )
    engine_device: str = _setting(
        "cuda", "Kind of device that slurm, ray and kubernetes are asked for: cuda or cpu"
    )
    holes_file: str = _setting(
        "",
        "The cluster's devices, a file as for `tightfit place --holes`: jobs go to types that hold them",
    )
    local_start: str = _setting(
        "agent",
        "How jobs of the engine `local` start: `agent`, claimed by the worker of --with-worker; `process`, "
        "a worker each, started by the service",
    )
    local_workers: int = _setting(1, "Workers that the engine `local` runs at the same time")
    planner_url: str = _setting("", "URL under which workers reach the service; empty means its own address")
    work_dir: str = _setting(
        "", "Folder of the jobs' weights, as workers see it; empty means `jobs` in the data folder"
    )
    save_seconds: float = _setting(
        60.0, "How often workers that the service starts save their weights files, in seconds"
    )
    worker_setup: str = _setting(
        "", "Line of shell before a worker under slurm or ray, such as the activation of an environment"
    )
    slurm_options: str = _setting("", "Options for every sbatch, such as `--partition=gpu --time=12:00:00`")
    kubernetes_url: str = _setting(
        "", "API server for the engine `kubernetes`; empty means the one of the pod"
    )
    kubernetes_token_file: str = _setting(
        "/var/run/secrets/kubernetes.io/serviceaccount/token", "Its bearer token, read for every call"
    )
    kubernetes_ca_file: str = _setting(
        "/var/run/secrets/kubernetes.io/serviceaccount/ca.crt", "Certificates that it is trusted by"
    )
    kubernetes_namespace: str = _setting("default", "Namespace of the jobs")
    kubernetes_image: str = _setting(
        "tightfit-worker:latest", "Image of the workers: tightfit with its extra"
    )
    kubernetes_queue: str = _setting("", "Kueue's local queue; empty: no queue, jobs start at once")
    kubernetes_claim: str = _setting(
        "",
        "`dra`: a claim by the memory of each device; empty: extended resources and the product's label",
    )
    kubernetes_volume_claim: str = _setting(
        "", "PersistentVolumeClaim for the work folder; empty: none is kept"
    )
    ray_url: str = _setting(
        "",
        "Dashboard of the Ray head for the engine `ray`; empty: `http://127.0.0.1:8265` where that is "
        "`TIGHTFIT_ENGINE`, else none",
    )
    ray_token: str = _setting("", "Token of the Ray cluster, where it wants one")
    otlp_url: str = _setting(
        "", "OpenTelemetry collector (OTLP over HTTP) that gets the requests' spans; empty: none"
    )
    log_level: str = _setting("info", "Least severe log level: debug, info, warning or error")

    def __post_init__(self) -> None:
        if not 0 <= self.port <= 65_535:
            raise InvalidSetting(f"{PREFIX}PORT={self.port} must lie in 0..65535")
        for name in _POSITIVE:
            self._require(name, getattr(self, name) > 0, "must be positive")
        for name in _NOT_NEGATIVE:
            self._require(name, getattr(self, name) >= 0, "must not be negative")
        for name in _FINITE:
            self._require(name, math.isfinite(getattr(self, name)), "must be finite")
        silent = f"must be above {variable('heartbeat_seconds')}={self.heartbeat_seconds}"
        self._require("lost_after_seconds", self.lost_after_seconds > self.heartbeat_seconds, silent)
        self._require(
            "engine", self.engine in ("", *ENGINE_NAMES), f"must be one of {', '.join(ENGINE_NAMES)}"
        )
        self._require("engine_device", self.engine_device in {"cuda", "cpu"}, "must be cuda or cpu")
        self._require("local_start", self.local_start in {"agent", "process"}, "must be agent or process")
        self._require("authentication", self.authentication in {"auto", "always"}, "must be auto or always")
        has_keys = not self.oidc_issuer or self.oidc_jwks_url.startswith(("https://", "http://"))
        self._require("oidc_jwks_url", has_keys, f"must be a URL where {variable('oidc_issuer')} is set")
        both = bool(self.tls_certificate_file) == bool(self.tls_key_file)
        self._require("tls_certificate_file", both, f"needs {variable('tls_key_file')}, and that needs it")
        levels = ("debug", "info", "warning", "error")
        self._require("log_level", self.log_level in levels, f"must be one of {', '.join(levels)}")
        self._require_engines()

    def _require_engines(self) -> None:
        for name in _URLS:
            is_url = not getattr(self, name) or getattr(self, name).startswith(("http://", "https://"))
            self._require(name, is_url, "must be a URL that begins with http:// or https://")
        self._require("kubernetes_claim", self.kubernetes_claim in {"", "dra"}, "must be dra, or empty")
        try:
            shlex.split(self.slurm_options)
        except ValueError as error:
            self._require("slurm_options", False, f"is no line of options: {error}")

    def _require(self, name: str, valid: bool, what: str) -> None:
        if not valid:
            raise InvalidSetting(f"{variable(name)}={getattr(self, name)} {what}")

    @classmethod
    def from_environ(cls, environ: Mapping[str, str], **overrides: object) -> Settings:
        """Settings from variables of the environment; `overrides` that are not None win.

        Raises InvalidSetting for a value of the wrong form and for a `TIGHTFIT_…` variable that
        does not exist: a misspelt limit must not be a limit that is not there. The links to services that
        Kubernetes sets are none of ours.
        """
        known = {variable(item.name): item.name for item in fields(cls)}
        ours = {name for name, text in environ.items() if not SERVICE_LINK.match(f"{name}={text}")}
        given = {name for name in ours if name.startswith(PREFIX)} - OTHERS_VARIABLES
        if unknown := sorted(given - known.keys()):
            meant = get_close_matches(unknown[0], known, n=1)
            guess = f"did you mean {meant[0]}? " if meant else ""
            raise InvalidSetting(f"unknown variable {unknown[0]}: {guess}`tightfit serve --help` lists all")
        kinds = get_type_hints(cls)
        values: dict[str, Any] = {
            known[name]: _parse(name, environ[name], kinds[known[name]]) for name in given
        }
        values.update({name: value for name, value in overrides.items() if value is not None})
        return cls(**values)

    @property
    def store_url(self) -> str:
        """The database's SQLAlchemy URL, the default resolved."""
        return self.database_url or f"sqlite:///{self.data_dir / DATABASE_FILE}"

    @property
    def default_engine(self) -> str:
        """Where jobs run that name no engine."""
        return self.engine or ("local" if self.local_start == "process" else "agents")

    @property
    def asks_who(self) -> bool:
        """Whether requests need a key: other machines may reach the service, or the operator wants it."""
        return self.authentication == "always" or not is_loopback(self.host)

    @property
    def data_root_folders(self) -> tuple[Path, ...]:
        """Folders whose files jobs may name."""
        return tuple(Path(part) for part in self.data_roots.split(os.pathsep) if part)

    @property
    def audit_retention_seconds(self) -> float | None:
        """Age in seconds at which an audit entry is deleted, or None."""
        return self.audit_retention_days * SECONDS_PER_DAY or None

    @property
    def plan_retention_seconds(self) -> float | None:
        """Age in seconds at which a plan is deleted, or None."""
        return self.plan_retention_days * SECONDS_PER_DAY or None

    @property
    def job_retention_seconds(self) -> float | None:
        """Seconds after its end at which a job is deleted, or None."""
        return self.job_retention_days * SECONDS_PER_DAY or None

    @property
    def measurement_retention_seconds(self) -> float | None:
        """Age in seconds at which a measurement is deleted, or None."""
        return self.measurement_retention_days * SECONDS_PER_DAY or None


def variable(field_name: str) -> str:
    """The variable of the environment that sets a field."""
    return PREFIX + field_name.upper()


def _parse(name: str, text: str, kind: type) -> object:
    try:
        return kind(text)
    except ValueError:
        wanted = {int: "a whole number", float: "a number"}[kind]
        raise InvalidSetting(f"{name}={text!r} must be {wanted}") from None


def environment_of_workers(environ: Mapping[str, str]) -> dict[str, str]:
    """What the service's own workers inherit of its environment: neither its settings nor its key."""
    return {
        name: text for name, text in environ.items() if not name.startswith(PREFIX) or name in KERNEL_SWITCHES
    }


def settings_table() -> str:
    """All variables as a table in Markdown: the one in the README, which a test compares."""
    head = ["| variable | default | meaning |", "|---|---|---|"]
    return "\n".join(head + [_row(item) for item in fields(Settings)])


def settings_lines() -> str:
    """All variables for `tightfit serve --help`: name and default, and what it means on the next line."""
    names = (
        variable(item.name) + (f"={item.default}" if str(item.default) else "") for item in fields(Settings)
    )
    return "\n".join(
        f"  {name}\n      {item.metadata['meaning']}"
        for name, item in zip(names, fields(Settings), strict=True)
    )


def _row(item: Field[Any]) -> str:
    default = f"`{item.default}`" if str(item.default) else ""
    return f"| `{variable(item.name)}` | {default} | {item.metadata['meaning']} |"
