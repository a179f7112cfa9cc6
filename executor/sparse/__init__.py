"""LSTM and GRU whose gate gradients are sparsified on the way back. Gradients are then inexact."""

from executor.sparse.absolute import Absolute
from executor.sparse.accounting import IterationRecord
from executor.sparse.audit import SparseAudit
from executor.sparse.cells import SparseGRUCell, SparseLSTMCell
from executor.sparse.columns import Columns
from executor.sparse.errors import EverythingDropped, InvalidSparsity
from executor.sparse.mixed import Mixed
from executor.sparse.modules import SparseGRU, SparseLSTM
from executor.sparse.relative import Relative
from executor.sparse.rows import Rows
from executor.sparse.rules import RULES, rule_named
from executor.sparse.schedule import Schedule
from executor.sparse.sparsifier import Sparsifier
from executor.sparse.spec import SparsitySpec
from executor.sparse.top_entries import TopEntries

__all__ = [
    "RULES",
    "Absolute",
    "Columns",
    "EverythingDropped",
    "InvalidSparsity",
    "IterationRecord",
    "Mixed",
    "Relative",
    "Rows",
    "Schedule",
    "SparseAudit",
    "SparseGRU",
    "SparseGRUCell",
    "SparseLSTM",
    "SparseLSTMCell",
    "Sparsifier",
    "SparsitySpec",
    "TopEntries",
    "rule_named",
]
