"""How the solvers' kernels are compiled."""

import pytest
from numba.core.caching import CacheImpl

from planner_service.solvers.compiled import allocating_kernel, kernel


@pytest.mark.parametrize("compiled", [kernel, allocating_kernel])
def test_kernels_run_where_nothing_can_be_cached(compiled, monkeypatch):
    """A read-only image with a user who has no home: numba finds no folder, and refuses to cache"""
    monkeypatch.setattr(CacheImpl, "_locator_classes", [])
    assert compiled(twice)(3) == 6


def twice(number):
    return 2 * number
