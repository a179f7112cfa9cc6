"""Commands that ask a service: its refusals are printed as they came."""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from planner_service.contract import ProblemDocument

if TYPE_CHECKING:
    from planner_service.client import PlannerClient


DEFAULT_URL = "http://127.0.0.1:8080"
"""Where `tightfit serve` listens unless it is told otherwise."""


PLANNER_URL = "TIGHTFIT_PLANNER_URL"
"""The variable with the service's address for commands that are not told another one."""

API_KEY = "TIGHTFIT_API_KEY"
"""The variable with the key for services that ask for one; on a command line others would see it."""


def add_planner_option(parser: argparse.ArgumentParser) -> None:
    """`--planner URL`, of commands that cannot do without a service. Those that plan here unless they are
    given one (`place`, `sbatch`) have an option of their own, and do not look at the variable.
    """
    url = os.environ.get(PLANNER_URL) or DEFAULT_URL
    parser.add_argument(
        "--planner", metavar="URL", default=url, help=f"the service ({PLANNER_URL}, or {DEFAULT_URL})"
    )


class RemoteRefusal(Exception):
    """A service refused, or did not answer; `problem` is the document to print."""

    def __init__(self, problem: ProblemDocument) -> None:
        self.problem = problem
        super().__init__(problem.detail)


@contextmanager
def asking(url: str) -> Iterator[PlannerClient]:
    """A client of the service at `url`. Raises RemoteRefusal for what it refuses."""
    from planner_service.client import (  # loads the HTTP client: only for commands that ask
        PlannerClient,
        PlannerRefused,
        PlannerUnreachable,
    )

    try:
        with PlannerClient(url, api_key=os.environ.get(API_KEY)) as planner:
            yield planner
    except PlannerRefused as refused:
        raise RemoteRefusal(ProblemDocument.model_validate(refused.problem)) from refused
    except PlannerUnreachable as error:
        problem = ProblemDocument(
            type="/problems/planner-unreachable",
            title="Planner unreachable",
            status=503,
            detail=str(error),
        )
        raise RemoteRefusal(problem) from error
