"""Sequence to sequence with attention: gradients of the full tape, and what the encoder keeps."""

from __future__ import annotations

import itertools

import pytest

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402

from executor.reversible import InvalidReversible, RevGRU, RevLSTM  # noqa: E402
from executor.reversible.attention import PADDING, AttentionHead, Translator  # noqa: E402

torch.set_num_threads(1)

SOURCE_SIZE, TARGET_SIZE, BATCH, SOURCE_STEPS, TARGET_STEPS = 11, 13, 3, 9, 7
kinds = pytest.mark.parametrize("kind", [RevGRU, RevLSTM])


def translator(kind, **options):
    torch.manual_seed(5)
    sizes = {"source_size": SOURCE_SIZE, "target_size": TARGET_SIZE, "embedding_size": 4, "hidden_size": 6}
    return Translator(kind, **sizes, kept_units=2, dtype=torch.float64, **options).double()


def sentences():
    """Sources padded in front, targets behind; no two of one length."""
    source = torch.randint(1, SOURCE_SIZE, (SOURCE_STEPS, BATCH))
    target = torch.randint(1, TARGET_SIZE, (TARGET_STEPS + 1, BATCH))
    for column in range(BATCH):
        source[:column, column] = PADDING
        target[TARGET_STEPS + 1 - column :, column] = PADDING
    return source, target


def full_tape_loss(model, source, target):
    """The same cells as ordinary functions: every step of encoder and decoder taped, all outputs kept."""
    state, outputs = model.encoder.initial_state(source.shape[1]), []
    for start in range(0, len(source), model.encoder.segment_steps):
        x = model.read(source[start : start + model.encoder.segment_steps])
        state, y = model.encoder.segment(state, x)
        outputs.append(y[..., : model.keep.units])
    kept = torch.cat(outputs)
    fresh = model.decoder.initial_state(source.shape[1])
    registers = len(fresh) // 2
    state, total = (*state[:registers], *fresh[registers:]), 0
    for start in range(0, len(target) - 1, model.decoder.segment_steps):
        end = min(start + model.decoder.segment_steps, len(target) - 1)
        state, y = model.decoder.segment(state, model.recall(target[start:end]))
        total = total + model.head(y, target[start + 1 : end + 1], kept, source)
    return total


@kinds
def test_gradients_are_bitwise_those_of_the_full_tape(kind):
    """One segment holds the whole sequence, so that sums are taken in one order."""
    model = translator(kind, forget_bits=3, segment_steps=SOURCE_STEPS)
    source, target = sentences()
    parameters = list(model.parameters())
    loss, expected = model.loss(source, target), full_tape_loss(model, source, target)
    assert torch.equal(loss, expected)
    found = torch.autograd.grad(loss, parameters)
    for one, other in zip(found, torch.autograd.grad(expected, parameters), strict=True):
        assert float(one.abs().max()) > 0
        assert torch.equal(one, other)


@kinds
@pytest.mark.parametrize("layers", [1, 2])
def test_gradients_over_several_segments_are_those_of_the_full_tape(kind, layers):
    """The state and the loss are the same to the bit; gradients up to the order of their sums."""
    model = translator(kind, forget_bits=2, num_layers=layers, segment_steps=2)
    source, target = sentences()
    parameters = list(model.parameters())
    loss, expected = model.loss(source, target), full_tape_loss(model, source, target)
    torch.testing.assert_close(loss, expected, rtol=1e-14, atol=0)
    for one, other in zip(
        torch.autograd.grad(loss, parameters), torch.autograd.grad(expected, parameters), strict=True
    ):
        torch.testing.assert_close(one, other, rtol=1e-11, atol=1e-13)


@kinds
def test_dropout_is_the_same_on_the_way_back(kind):
    """The gradient of a bias of the logits, by finite differences under one seed."""
    model = translator(kind, dropout=0.5, segment_steps=3)
    source, target = sentences()
    bias = model.head.logits.bias

    def loss():
        torch.manual_seed(7)
        return model.loss(source, target)

    (gradient,) = torch.autograd.grad(loss(), bias)
    with torch.no_grad():
        bias[3] += 1e-5
        above = loss()
        bias[3] -= 2e-5
        below = loss()
    assert float((above - below) / 2e-5) == pytest.approx(float(gradient[3]), rel=1e-6)


def test_attention_by_way_of_the_vocabulary_is_attention_over_embeddings():
    """Against a memory of embeddings and states that is written out, [S, B, e + s]."""
    torch.manual_seed(0)
    embedding = nn.Embedding(SOURCE_SIZE, 4)
    head = AttentionHead(embedding, hidden_size=6, kept_units=2, target_size=TARGET_SIZE)
    source, _ = sentences()
    y, kept = torch.randn(5, BATCH, 6), torch.randn(SOURCE_STEPS, BATCH, 2)
    memory = torch.cat([embedding(source), kept], dim=2)
    scores = torch.einsum("kbw,tbw->kbt", head.query(y), memory)
    weights = scores.masked_fill((source == PADDING).t(), -torch.inf).softmax(dim=2)
    context = torch.einsum("kbt,tbw->kbw", weights, memory)
    expected = head.logits(head.combine(torch.cat([context, y], dim=2)).tanh())
    torch.testing.assert_close(head.scores(y, kept, source), expected)


@kinds
def test_a_step_of_translation_scores_what_the_loss_scores(kind):
    """Token by token, the logits give the loss of the whole target, up to the state's float type."""
    model = translator(kind, forget_bits=5).eval()
    source, target = sentences()
    with torch.no_grad():
        kept, state = model.encode(source)
        total = torch.zeros((), dtype=torch.float64)
        for previous, following in itertools.pairwise(target):
            logits, state = model.step(previous, state, kept, source)
            total += nn.functional.cross_entropy(logits, following, ignore_index=PADDING, reduction="sum")
        assert kept.shape == (SOURCE_STEPS, BATCH, 2)
        torch.testing.assert_close(total, model.loss(source, target), rtol=1e-3, atol=0)


def test_what_gives_no_number_is_refused():
    """Attention over padding alone was NaN, and so was every gradient; no target was an AssertionError"""
    model, (source, target) = translator(RevGRU), sentences()
    with pytest.raises(InvalidReversible, match="at least one step"):
        model.loss(source, target[:1])
    source[:, 1] = PADDING
    with pytest.raises(InvalidReversible, match="all padding"):
        model.loss(source, target)


@pytest.mark.parametrize("units", [0, 7, 2.5])
def test_keeping_more_units_than_there_are_is_refused(units):
    with pytest.raises(InvalidReversible, match=f"kept_units={units} must be in 1..hidden_size=6"):
        Translator(RevGRU, source_size=3, target_size=3, embedding_size=2, hidden_size=6, kept_units=units)
