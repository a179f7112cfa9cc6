"""Which steps go by what is in their tensors"""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from executor.rules.values import ByValues, by_values

X = torch.tensor([0.5, -0.5])


@pytest.mark.parametrize(
    ("step", "expected"),
    [
        (lambda: X.sum() if X[0] > 0 else X, ByValues.BRANCHES),
        (lambda: X.sum() if torch.equal(X, X) else X, ByValues.BRANCHES),
        (lambda: X.isnan().any() or X[X > 0], ByValues.SIZES),
        (lambda: X * X[0].item(), ByValues.SIZES),
        (lambda: X[X > 0], ByValues.SIZES),
        (lambda: X[(X > 0).nonzero()], ByValues.SIZES),
        (lambda: X.masked_select(X > 0), ByValues.SIZES),
        (lambda: X[torch.tensor([1, 0, 0])], ByValues.NOTHING),
        (lambda: torch.where(X > 0, X, 0.0), ByValues.NOTHING),
        (lambda: torch.nn.functional.embedding(torch.tensor([1]), X[:, None]), ByValues.NOTHING),
    ],
)
def test_branches_numbers_and_masks_tell(step: Callable[[], Tensor], expected: ByValues):
    """What takes the same bytes whatever the numbers are does not"""
    assert by_values(step) is expected


def test_what_cannot_be_run_under_a_mode_may_go_by_anything():
    """Operations that take other operations as arguments know no mode but torch's own"""

    def fails():
        raise NotImplementedError("no rule for this mode")

    assert by_values(fails) is ByValues.SIZES
