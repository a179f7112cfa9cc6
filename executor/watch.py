"""What steps read besides their state, inputs, declared parameters and buffers, watched between the passes: a
step that runs again must read what it read in the forward pass.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Any

from torch import Tensor

from executor.errors import ModifiedBetweenPasses
from executor.likeness import plain_attributes
from executor.reads import is_library, may_read_any
from executor.seen import Function, Seen
from executor.trees import version_of


class Watch:
    """Of plain values that the lines of a step name, those of torch's modules, and the weights of modules
    that were not declared.
    """

    def __init__(self, functions: Sequence[Function | None], seen: Seen) -> None:
        self._functions = functions
        self._seen = seen
        self._plain: dict[str, list[Any]] = {}
        self._weights: list[tuple[str, Tensor, int]] = []

    def remember(self) -> None:
        """To be called at the end of the forward pass: a step may count its calls."""
        self._plain = self._plain_now()
        self._weights = [(name, weight, version_of(weight)) for name, weight in self._weights_beside()]

    def require_unchanged(self) -> None:
        """Raise ModifiedBetweenPasses when something changed since `remember`."""
        for name, weight, version in self._weights:
            if version_of(weight) != version:
                raise ModifiedBetweenPasses(
                    f"parameter {name} of a module that the step uses was changed in place between forward "
                    "and backward: recomputation would use other weights; change it after backward"
                )
        now = self._plain_now()
        for name, values in self._plain.items():
            others = now.get(name, values)
            for one, other in zip(values, others, strict=True) if len(values) == len(others) else ():
                if _differ(one, other):
                    raise ModifiedBetweenPasses(
                        f"{name} was {one!r} in the forward pass and is {other!r} now: steps that run again "
                        "would read the new value; change it after backward, or pass it in the inputs"
                    )

    def _plain_now(self) -> dict[str, list[Any]]:
        seen, found = Seen.by(self._functions, self._seen.declared), defaultdict(list)
        for name, value in seen.plain:
            found[name].append(value)
        for module in self._seen.modules:
            for path, part in module.named_modules():
                is_any = is_library(type(part).__module__) or may_read_any(seen.names)
                for key, value in plain_attributes(part):
                    if is_any or key in seen.names:
                        found[f"{path}.{key}" if path else key].append(value)
        return found

    def _weights_beside(self) -> Iterator[tuple[str, Tensor]]:
        for module in self._seen.met:
            yield from module.named_parameters()


def _differ(one: Any, other: Any) -> bool:
    """Numbers that are none agree with themselves."""
    return type(one) is not type(other) or (one != other and (one == one or other == other))
