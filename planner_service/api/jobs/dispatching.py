"""The dispatcher of a service, from its settings."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import cast

from pydantic import TypeAdapter, ValidationError

from planner_service.api.jobs.dispatcher import Dispatcher
from planner_service.api.jobs.job_desk import JobDesk
from planner_service.contract import problem_from_validation
from planner_service.contract.holes import HoleRecord
from planner_service.contract.jobs import Job
from planner_service.dispatch import Resources, dispatched_engines, resources_for
from planner_service.dispatch.fitting import DeviceKind
from planner_service.placement import Hole
from planner_service.planning.placement import hole_of
from planner_service.settings import InvalidSetting, Settings, variable

_HOLES = TypeAdapter(list[HoleRecord])


def dispatcher_of(desk: JobDesk, settings: Settings) -> Dispatcher:
    """The dispatcher to the engines that are handed jobs. Raises InvalidSetting for a bad file of holes."""
    holes = [hole_of(record) for record in cluster_holes(settings)]
    folder = Path(settings.work_dir) if settings.work_dir else (settings.data_dir / "jobs").resolve()
    return Dispatcher(
        dispatched_engines(settings),
        queue=desk.queue,
        jobs=desk.jobs,
        planner_url=settings.planner_url or f"http://{settings.host}:{settings.port}",
        work_dir=folder,
        save_seconds=settings.save_seconds,
        resources_of=partial(_resources, settings=settings, holes=holes),
    )


def _resources(job: Job, engine: str, *, settings: Settings, holes: list[Hole]) -> Resources:
    if engine == "local":
        return Resources(device="cpu")  # the worker sees for itself what this machine has
    return resources_for(job, engine, cast("DeviceKind", settings.engine_device), holes)


def cluster_holes(settings: Settings) -> list[HoleRecord]:
    """The cluster's holes; none where no file is given. Raises InvalidSetting."""
    if not settings.holes_file:
        return []
    import yaml  # for those who give a file

    path = Path(settings.holes_file)
    try:
        text = path.read_text(encoding="utf-8")
        document = yaml.safe_load(text) if path.suffix in {".yaml", ".yml"} else json.loads(text)
        records = document.get("holes", document) if isinstance(document, dict) else document
        return _HOLES.validate_python(records)
    except ValidationError as error:
        reason = problem_from_validation(error).detail
        raise InvalidSetting(f"{variable('holes_file')}={path}: {reason}") from error
    except (OSError, ValueError, yaml.YAMLError) as error:
        reason = " ".join(str(error).split())
        raise InvalidSetting(f"{variable('holes_file')}={path}: {reason}") from error
