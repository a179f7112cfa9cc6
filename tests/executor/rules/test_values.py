"""Which steps go by what is in their tensors"""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from executor.rules.values import goes_by_values

X = torch.tensor([0.5, -0.5])


@pytest.mark.parametrize(
    ("step", "expected"),
    [
        (lambda: X.sum() if X[0] > 0 else X, True),
        (lambda: X * X[0].item(), True),
        (lambda: X[X > 0], True),
        (lambda: X[(X > 0).nonzero()], True),
        (lambda: X.masked_select(X > 0), True),
        (lambda: X[torch.tensor([1, 0, 0])], False),
        (lambda: torch.where(X > 0, X, 0.0), False),
        (lambda: torch.nn.functional.embedding(torch.tensor([1]), X[:, None]), False),
    ],
)
def test_branches_numbers_and_masks_tell(step: Callable[[], Tensor], expected: bool):
    """What takes the same bytes whatever the numbers are does not"""
    assert goes_by_values(step) is expected


def test_what_cannot_be_run_under_a_mode_may_go_by_anything():
    """Operations that take other operations as arguments know no mode but torch's own"""

    def fails():
        raise NotImplementedError("no rule for this mode")

    assert goes_by_values(fails) is True
