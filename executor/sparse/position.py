"""Where a module is in its schedule: kept with its state_dict, and not moved by a probe."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any, cast

from torch import nn

from executor.sparse.sparsifier import Sparsifier

_KEY = "iteration"


class KeepsPosition(nn.Module):
    """Base of sparse modules: `state_dict()` tells the iteration, `load_state_dict` goes on there.

    It is among the metadata, where torch keeps modules' versions, and no entry of its own (extra state): the
    keys stay those of the torch module, so that either loads the weights of the other, strictly.
    """

    sparsifier: Sparsifier

    def without_traces(self) -> AbstractContextManager[None]:
        """Inside, nothing that runs is counted, drawn or carried over for good: what a probe enters."""
        return self.sparsifier.without_traces()

    @property
    def trace_bytes(self) -> int:
        """Bytes that are carried over now."""
        return self.sparsifier.carried_bytes

    def _save_to_state_dict(self, destination: Any, prefix: str, keep_vars: bool) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        metadata = getattr(destination, "_metadata", None)
        if metadata is not None:
            metadata.setdefault(prefix[:-1], {})[_KEY] = self.sparsifier.next_iteration

    def _load_from_state_dict(self, *arguments: Any) -> None:
        super()._load_from_state_dict(*arguments)
        position = cast("dict[str, Any]", arguments[2]).get(_KEY)
        if position is not None:
            self.sparsifier.restart(position)
