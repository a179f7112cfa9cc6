"""How the solvers' kernels are compiled."""

import errno

import pytest
from numba.core import config
from numba.core.caching import CacheImpl, IndexDataCacheFile

from planner_service.solvers.compiled import allocating_kernel, inner_kernel, kernel


@pytest.mark.parametrize("compiled", [kernel, allocating_kernel])
def test_kernels_run_where_nothing_can_be_cached(compiled, monkeypatch):
    """A read-only image with a user who has no home: numba finds no folder, and refuses to cache"""
    monkeypatch.setattr(CacheImpl, "_locator_classes", [])
    assert compiled(twice)(3) == 6


def test_a_full_disk_costs_what_would_be_kept_and_nothing_else(monkeypatch, tmp_path):
    """Of a kernel, and of one that it calls; with space again, both are kept"""
    monkeypatch.setattr(config, "CACHE_DIR", str(tmp_path))
    save, asked = IndexDataCacheFile.save, []

    def full(self, key, data):
        asked.append(key)
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(IndexDataCacheFile, "save", full)
    assert caller()(3) == 6
    assert len(asked) == 2
    monkeypatch.setattr(IndexDataCacheFile, "save", save)
    assert caller()(3) == 6
    assert len(list(tmp_path.rglob("*.nbi"))) == 2


@pytest.mark.parametrize("kind", ["nbi", "nbc"])
@pytest.mark.parametrize("left_bytes", [0, 90])
def test_what_a_crash_has_left_of_a_file_is_compiled_again(kind, left_bytes, monkeypatch, tmp_path):
    """Every plan failed until somebody found the folder; it is kept again"""
    monkeypatch.setattr(config, "CACHE_DIR", str(tmp_path))
    assert kernel(twice)(3) == 6
    (file,) = tmp_path.rglob(f"*.{kind}")
    file.write_bytes(file.read_bytes()[:left_bytes])
    assert kernel(twice)(3) == 6
    again = kernel(twice)
    assert again(3) == 6
    assert sum(again.stats.cache_hits.values()) == 1


def test_functions_stay_as_they_are_where_nothing_is_to_be_compiled(monkeypatch):
    """Who looks for a fault sets NUMBA_DISABLE_JIT"""
    monkeypatch.setattr(config, "DISABLE_JIT", 1)
    assert kernel(twice) is twice


def caller():
    """A kernel that calls another one, both new."""
    inner = inner_kernel(twice)

    @kernel
    def outer(number):
        return inner(number)

    return outer


def twice(number):
    return 2 * number
