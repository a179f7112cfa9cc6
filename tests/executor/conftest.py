"""What the tests of workers and agents share, and those of drop-ins."""

from __future__ import annotations

from collections.abc import Iterator

import pytest


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Small kernels on several threads mostly wait for each other."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A service for the tests of one file, whose workers are lost after three seconds; SIGTERM ends it."""
    from tests.executor.attempt.workers import serving  # a GPU image has no client of the service

    running = serving(tmp_path_factory.mktemp("service"))
    yield running.url
    running.terminate()
