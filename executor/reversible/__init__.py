"""Reversible recurrent layers: hidden states that need not be stored; the bits they forget are."""

from executor.reversible.errors import InvalidReversible, ReversalMismatch
from executor.reversible.modules import NFRevGRU, NFRevLSTM, Reversible, RevGRU, RevLSTM

__all__ = [
    "InvalidReversible",
    "NFRevGRU",
    "NFRevLSTM",
    "RevGRU",
    "RevLSTM",
    "ReversalMismatch",
    "Reversible",
]
