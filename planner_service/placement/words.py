"""What to tell each scheduler so that a job lands on a device that holds it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from planner_service.placement.acceptable import AcceptableType
from planner_service.placement.kubernetes import KubernetesWords, kubernetes_words
from planner_service.placement.ray import RayWords, ray_words
from planner_service.placement.slurm import SlurmWords, slurm_words
from planner_service.placement.wanted import Wanted


class SchedulerWords(NamedTuple):
    """One job's needs in the words of each scheduler."""

    wanted: Wanted
    slurm: SlurmWords
    kubernetes: KubernetesWords
    ray: RayWords


def words_of(types: Sequence[AcceptableType], devices: int) -> SchedulerWords | None:
    """The words for a job on any of `types`, `devices` of them in one node; None when there is no type."""
    if not types:
        return None
    wanted = Wanted.of(types, devices)
    return SchedulerWords(wanted, slurm_words(wanted), kubernetes_words(wanted), ray_words(wanted))
