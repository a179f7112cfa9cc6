"""Loss against time at H = 512: structured rules, whose products shrink, against dense training."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.sparse.language import EMBEDDING_SIZE, Corpus, LanguageModel
from benchmarks.sparse.training import DENSE, Training, Variant, trained
from executor.drop_ins.recurrence import Recurrence, run_segment

SEEDS = 3
ROUNDS = 9
HIDDEN_SIZE = 512
ITERATIONS, LONGER_ITERATIONS = 150, 600
LAYERS = (1, 2)
OWN_DENSE = Variant("absolute", {"threshold": 0.0})
"""The sparse module with nothing to drop."""


@dataclass(frozen=True)
class FusedDense(Variant):
    """The segment function that plans run for a torch.nn.LSTM, over all steps at once."""

    def __str__(self) -> str:
        return "dense, fused segment"

    def layers(self, module: nn.LSTM, seed: int) -> nn.LSTM:
        """See Variant; the parameters are those of `module`."""
        return FusedLSTM(module)


class FusedLSTM(nn.LSTM):
    """torch.nn.LSTM's parameters, run by executor.drop_ins.recurrence."""

    def __init__(self, module: nn.LSTM) -> None:
        super().__init__(module.input_size, module.hidden_size, module.num_layers, device="meta")
        for name, parameter in module.named_parameters():
            setattr(self, name, parameter)

    def forward(self, x: Tensor) -> tuple[Tensor, Any]:  # type: ignore[override]
        """Outputs and last state from the zero state."""
        recurrence = Recurrence.of(self)
        state, y = run_segment(self, recurrence, recurrence.initial_state(x, batch_size=x.shape[1]), x)
        return y, state


DENSE_BASELINES = (DENSE, FusedDense(), OWN_DENSE)
"""Ratios are to the fastest of them."""
TRAINED = (
    DENSE,
    Variant("mixed", {"keep_ratio": 0.125, "row_ratio": 0.5}),
    Variant("mixed", {"keep_ratio": 0.125, "row_ratio": 0.35}),
)
EQUAL_IN_LOSS = TRAINED[:2]
"""What is trained where all of them would take long: dense, and the rule that keeps its loss."""
LONGER = (
    *EQUAL_IN_LOSS,
    Variant("mixed", {"keep_ratio": 0.25, "row_ratio": 0.5}),
    Variant("mixed", {"keep_ratio": 0.125, "row_ratio": 0.65}),
    Variant("mixed", {"keep_ratio": 0.125, "row_ratio": 0.6}),
    Variant("mixed", {"keep_ratio": 0.125, "row_ratio": 0.55}),
)
"""Trained longer, and timed: what keeps the loss then, and what it costs."""
TIMED = (
    *TRAINED,
    *LONGER[2:],
    *DENSE_BASELINES[1:],
    Variant("mixed", {"keep_ratio": 0.0625, "row_ratio": 0.25}),
    Variant("columns", {"keep_ratio": 0.25}),
    Variant("blocks", {"keep_ratio": 0.25}),
    Variant("rows", {"keep_ratio": 0.5}),
)


def loss_rows(num_layers: int, done: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Validation loss after equally many iterations, seeds outermost; less what is `done`."""
    variants = TRAINED if num_layers == 1 else EQUAL_IN_LOSS
    return _losses(variants, num_layers, ITERATIONS, done)


def longer_loss_rows(done: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """The same for one layer, four times as long: whether equal losses stay equal."""
    return _losses(LONGER, 1, LONGER_ITERATIONS, done)


def _losses(
    variants: Sequence[Variant], num_layers: int, iterations: int, done: list[dict[str, Any]]
) -> Iterator[dict[str, Any]]:
    known = {(row["variant"], row["seed"]) for row in done}
    training = Training(hidden_size=HIDDEN_SIZE, num_layers=num_layers, iterations=iterations)
    for seed in range(SEEDS):
        for variant in variants:
            if (str(variant), seed) not in known:
                name = {"variant": str(variant), "num_layers": num_layers, "seed": seed}
                yield {**name, "iterations": iterations, **trained(variant, training, seed)}


def time_rows(done: list[dict[str, Any]], device: str = "cpu") -> Iterator[dict[str, Any]]:
    """Seconds of a whole iteration (forward, backward, clipping, Adam), all variants in turn, many rounds."""
    measured = {row["num_layers"] for row in done}
    for num_layers in LAYERS:
        if num_layers not in measured:
            yield from timed(Training(hidden_size=HIDDEN_SIZE, num_layers=num_layers), device)


def timed(training: Training, device: str) -> Iterator[dict[str, Any]]:
    """A row for every variant, in turns; ratios are to the fastest dense one. Elapsed time on CUDA."""
    iterations = [_iteration(variant, training, device) for variant in TIMED]
    for _ in range(2):
        for iterate in iterations:
            iterate()
    rounds = [[_seconds(iterate, device) for iterate in iterations] for _ in range(ROUNDS)]
    best = min(DENSE_BASELINES, key=lambda variant: _median_of(variant, rounds))
    for variant in TIMED:
        ratios = sorted(times[TIMED.index(variant)] / times[TIMED.index(best)] for times in rounds)
        yield {
            "variant": str(variant),
            "num_layers": training.num_layers,
            "hidden_size": training.hidden_size,
            "seconds": _median_of(variant, rounds),
            "baseline": str(best),
            "time_ratio": median(ratios),
            "ratios": ratios,
        }


def _median_of(variant: Variant, rounds: list[list[float]]) -> float:
    return median(times[TIMED.index(variant)] for times in rounds)


def _iteration(variant: Variant, training: Training, device: str) -> Callable[[], None]:
    torch.manual_seed(0)
    corpus = Corpus.of_python(training.batch_size)
    module = nn.LSTM(EMBEDDING_SIZE, training.hidden_size, training.num_layers).to(device)
    model = LanguageModel(variant.layers(module, 0), corpus.vocabulary_size).to(device)
    optimizer = torch.optim.Adam(model.parameters(), lr=training.learning_rate)
    window = corpus.window(0, training.length).to(device)

    def iterate() -> None:
        optimizer.zero_grad()
        model.loss(window).backward()
        nn.utils.clip_grad_norm_(model.parameters(), training.clip_norm)
        optimizer.step()

    return iterate


def _seconds(iterate: Callable[[], None], device: str) -> float:
    """Processor time on the CPU, where other processes run beside; elapsed time on CUDA."""
    if device == "cpu":
        begin = time.process_time()
        iterate()
        return time.process_time() - begin
    torch.cuda.synchronize()
    begin = time.perf_counter()
    iterate()
    torch.cuda.synchronize()
    return time.perf_counter() - begin
