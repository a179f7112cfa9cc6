"""What torch has around a step in the forward pass, and backward may be called without: the default type of
new tensors, modes that change what functions do, and whether subclasses of tensors have their say.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from contextlib import ExitStack, contextmanager
from typing import NamedTuple

import torch
from torch.overrides import TorchFunctionMode, _get_current_function_mode_stack
from torch.utils._device import DeviceContext


class Ambience(NamedTuple):
    """That of one moment, in this thread."""

    dtype: torch.dtype
    modes: tuple[TorchFunctionMode, ...]
    """From the outermost to the innermost; a default device is one."""
    has_subclasses: bool
    """Backward that is called on one of a subclass switches all of them off."""

    @classmethod
    def now(cls) -> Ambience:
        """As it is."""
        return cls(
            torch.get_default_dtype(),
            tuple(_get_current_function_mode_stack()),  # type: ignore[no-untyped-call]
            torch._C._is_torch_function_enabled(),  # noqa: SLF001 - no other way in
        )

    @property
    def kinds(self) -> Hashable:
        """What may change the bytes of a step. A default device changes where they are: a step that finds
        its tensors elsewhere ends in an error of torch's.
        """
        kinds = tuple(type(mode) for mode in self.modes if not isinstance(mode, DeviceContext))
        return self.dtype, kinds, self.has_subclasses

    @contextmanager
    def entered(self) -> Iterator[None]:
        """Within the context it is this one; modes that came since are there as well."""
        before = Ambience.now()
        with ExitStack() as stack:
            if before.dtype is not self.dtype:
                stack.callback(torch.set_default_dtype, before.dtype)
                torch.set_default_dtype(self.dtype)
            if self.has_subclasses and not before.has_subclasses:
                stack.enter_context(torch._C._EnableTorchFunction())  # noqa: SLF001
            for mode in self.modes:
                if all(mode is not each for each in before.modes):
                    stack.enter_context(mode)
            yield
