"""What a rule is, and the rules that look at single entries of a step's gate gradient."""

from __future__ import annotations

from abc import ABC, abstractmethod
from random import Random

from torch import Tensor

from executor.sparse.backward_pass import BackwardPass, Layer


class Rule(ABC):
    """Decides what of a gate gradient is dropped. Frozen, without state, shared by layers and devices."""

    drops_in_place = True
    """Whether dropped entries are gone from the gate gradient itself, so that they can be carried over."""

    @abstractmethod
    def backward_pass(self, layer: Layer, random: Random) -> BackwardPass:
        """The way back of `layer` under this rule; what it draws, it draws from `random`."""


class EntryRule(Rule):
    """Drops single entries. Nothing runs faster for it: zeros are multiplied like other numbers."""

    @abstractmethod
    def drop(self, gradient: Tensor) -> None:
        """Set to zero, in place, what is dropped of one step's gate gradient [B, G*H]."""

    def backward_pass(self, layer: Layer, random: Random) -> BackwardPass:
        """See Rule."""
        return _EntryPass(layer, self)


class _EntryPass(BackwardPass):
    def __init__(self, layer: Layer, rule: EntryRule) -> None:
        super().__init__(layer)
        self._rule = rule

    def drop(self, step: int) -> None:
        gradient = self.reversal.gate_gradient[step]
        self.layer.tally.note_entries(gradient)
        self._rule.drop(gradient)
