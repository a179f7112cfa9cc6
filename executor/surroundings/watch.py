"""What steps read besides their state, inputs, declared parameters and buffers, watched between the passes: a
step that runs again must read what it read in the forward pass.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from torch import Tensor

from executor.errors import ModifiedBetweenPasses
from executor.surroundings.likeness import plain_attributes
from executor.surroundings.look import SeenTensor
from executor.surroundings.places import Place, key_of
from executor.surroundings.put_back import holding, with_contents
from executor.surroundings.reads import is_library, may_read_any
from executor.surroundings.seen import Seen
from executor.trees import version_of

MOST_ARRAY_BYTES = 2**20
"""Larger arrays of numpy are data sets, and not looked through."""


class Watch:
    """Puts back what places that the lines of a step name held, and lists. Refuses others that changed:
    numbers of torch's modules and of numpy's arrays, weights of modules that were not declared, and tensors,
    those aside that are `given` as state, inputs or captured tensors.
    """

    def __init__(self, seen: Seen, given: Iterable[Any] = ()) -> None:
        self._seen = seen
        self._given = {id(each) for each in given}
        self._begun_with = self._plain_in(seen)
        self._plain: dict[str, list[Any]] = {}
        self._weights: list[tuple[str, Tensor, int]] = []
        self._tensors: dict[str, list[SeenTensor]] = {}
        self._held_before = {key_of(each.place): each for each in seen.held}
        self._numbers_before = _digests(seen.arrays)
        self._numbers: dict[str, int] = {}
        """Digests of numpy's arrays."""
        self._lists_before = {id(each.of): each for each in seen.lists}
        self._lists: list[tuple[list[Any], list[Any]]] = []
        """Lists with their contents, which can be put back as well."""
        self._held: list[tuple[Place, Any]] = []
        """What can be put back where it was."""

    def look(self) -> Seen:
        """What the step sees now."""
        return self._seen.again()

    def remember(self, seen: Seen) -> None:
        """Take what is `seen` at the end of the forward pass: a step may count its calls. What changed in
        that pass is left out: steps write there what they do not read, such as the values computed last.
        """
        found = self._plain_in(seen).items()
        self._plain = {name: now for name, now in found if _are_alike(self._begun_with.get(name, ()), now)}
        before = {_identity(each) for each in self._seen.tensors}
        self._tensors = {
            name: tensors
            for name, tensors in _by_name(seen.tensors).items()
            if all(_identity(each) in before and not self._is_callers(each) for each in tensors)
        }
        before_now = ((self._held_before.get(key_of(each.place)), each) for each in seen.held)
        self._held = [
            (now.place, now.value) for was, now in before_now if was is not None and was.is_same(now)
        ]
        lists = ((self._lists_before.get(id(each.of)), each) for each in seen.lists)
        self._lists = [(now.of, now.values) for was, now in lists if was is not None and was.is_same(now)]
        self._numbers = dict(_digests(seen.arrays).items() & self._numbers_before.items())
        self._weights = [(name, weight, version_of(weight)) for name, weight in self._weights_beside()]

    def _is_callers(self, seen: SeenTensor) -> bool:
        """Whether it is given, and met in a place of the caller's, such as a list of states."""
        return seen.place is None and id(seen.tensor()) in self._given

    @contextmanager
    def restored(self) -> Iterator[None]:
        """Within the context variables, objects, dictionaries and lists hold what they held in the forward
        pass: a step that is defined in a loop names the variables of that loop.
        """
        with holding(self._held), with_contents(self._lists):
            yield

    def require_unchanged(self) -> None:
        """Raise ModifiedBetweenPasses when something changed since `remember`."""
        for name, weight, version in self._weights:
            if version_of(weight) != version:
                raise ModifiedBetweenPasses(
                    f"parameter {name} of a module that the step uses was changed in place between forward "
                    "and backward: recomputation would use other weights; change it after backward"
                )
        seen = self.look()
        self._require_same_tensors(_by_name(seen.tensors))
        for name, digest in _digests(seen.arrays).items():
            if self._numbers.get(name, digest) != digest:
                raise ModifiedBetweenPasses(
                    f"the numbers of {name} were changed between forward and backward: steps that run again "
                    "would read the new ones; change them after backward, or let the step see a copy"
                )
        now = self._plain_in(seen)
        for name, values in self._plain.items():
            others = now.get(name, values)
            for one, other in zip(values, others, strict=True) if len(values) == len(others) else ():
                if _differ(one, other):
                    raise ModifiedBetweenPasses(
                        f"{name} was {one!r} in the forward pass and is {other!r} now: steps that run again "
                        "would read the new value; change it after backward, or pass it in the inputs"
                    )

    def _require_same_tensors(self, now: dict[str, list[SeenTensor]]) -> None:
        """Where there are more or less of a name than there were, somebody collects them."""
        for name, tensors in self._tensors.items():
            others = now.get(name, [])
            for one, other in zip(tensors, others, strict=True) if len(tensors) == len(others) else ():
                is_same = one.tensor() is other.tensor()
                if not is_same or one.version != other.version:
                    how = "changed in place" if is_same else "replaced"
                    raise ModifiedBetweenPasses(
                        f"{name} was {how} between forward and backward: steps that run again would read the "
                        "new numbers; change it after backward, or pass it in the state or the inputs"
                    )

    def _plain_in(self, seen: Seen) -> dict[str, list[Any]]:
        found = defaultdict(list)
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


def _digests(arrays: Iterable[tuple[str, Any]]) -> dict[str, int]:
    return {
        name: hash(array.tobytes())
        for name, array in arrays
        if not array.dtype.hasobject and array.nbytes <= MOST_ARRAY_BYTES
    }


def _identity(seen: SeenTensor) -> tuple[str, int, int]:
    return seen.name, id(seen.tensor()), seen.version


def _by_name(tensors: Iterable[SeenTensor]) -> dict[str, list[SeenTensor]]:
    found = defaultdict(list)
    for each in tensors:
        found[each.name].append(each)
    return found


def _are_alike(one: Sequence[Any], other: Sequence[Any]) -> bool:
    return len(one) == len(other) and not any(map(_differ, one, other))


def _differ(one: Any, other: Any) -> bool:
    """Numbers that are none agree with themselves."""
    return type(one) is not type(other) or (one != other and (one == one or other == other))
