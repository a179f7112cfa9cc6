"""Whoever catches a refusal can import it from the package."""

from __future__ import annotations

import inspect

import executor
from executor import errors


def test_every_refusal_is_exported() -> None:
    refusals = {
        name
        for name, each in inspect.getmembers(errors, inspect.isclass)
        if issubclass(each, errors.ExecutorError) and each.__module__ == errors.__name__
    }
    assert len(refusals) > 10
    assert refusals <= set(errors.__all__)
    assert refusals <= set(executor.__all__)
