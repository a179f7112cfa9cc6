"""The character model: its segments add up to the plain torch model."""

import pytest
import torch

from executor.jobs.job import CELLS, ModelSpec
from executor.jobs.models import CharacterModel, Window


@pytest.mark.parametrize("segment_steps", [1, 4, 7, 20])
@pytest.mark.parametrize("kind", CELLS)
def test_the_losses_of_segments_add_up_to_the_full_loss(kind, segment_steps):
    """Summed segment losses over T x B are the mean loss of one call, and so are their gradients"""
    model = CharacterModel(
        ModelSpec(kind=kind, hidden_size=6, embedding_size=3, num_layers=2, dtype="float64"),
        vocabulary_size=9,
    )
    window = Window.of(torch.randint(0, 9, (21, 2)))
    expected = model.full_loss(window)
    wanted = torch.autograd.grad(expected, list(model.parameters()))
    state, total = model.initial_state(batch_size=2), torch.zeros((), dtype=torch.float64)
    for start in range(0, 20, segment_steps):
        part = Window(*(indices[start : start + segment_steps] for indices in window))
        state, loss = model.segment(state, part)
        total = total + loss
    torch.testing.assert_close(total / 40, expected, rtol=1e-13, atol=0)
    found = torch.autograd.grad(total / 40, list(model.parameters()))
    torch.testing.assert_close(found, wanted, rtol=1e-11, atol=1e-15)


def test_evaluation_is_the_full_loss_without_a_tape():
    """Evaluating in segments gives the loss of one call"""
    model = CharacterModel(ModelSpec(kind="gru", hidden_size=6, dtype="float64"), vocabulary_size=9)
    window = Window.of(torch.randint(0, 9, (51, 2)))
    assert model.evaluate(window, segment_steps=20) == pytest.approx(
        model.full_loss(window).item(), rel=1e-12
    )


def test_half_precision_sums_losses_in_single_precision():
    """A bfloat16 model reports its loss in float32"""
    model = CharacterModel(ModelSpec(kind="rnn", hidden_size=6, dtype="bfloat16"), vocabulary_size=9)
    state = model.initial_state(batch_size=2)
    assert model.segment(state, Window.of(torch.randint(0, 9, (6, 2))))[1].dtype == torch.float32
