"""The closed forms give the very curve of the candidates, to the byte."""

from __future__ import annotations

import random

import pytest

from planner_service.contract import Question
from planner_service.planning.candidates import candidates_of, workload_of
from planner_service.planning.curve import curve_of_candidates
from planner_service.planning.step_curve import curve_of_steps


def recurrent(draw: random.Random) -> Question:
    size = draw.choice([1, 3, 64, 500])
    record = {
        "model": {
            "kind": draw.choice(["lstm", "gru", "rnn"]),
            "input_size": draw.randint(1, 300),
            "hidden_size": size,
            "num_layers": draw.randint(1, 3),
            "dtype": draw.choice(["float32", "bfloat16", "float64"]),
            "head": draw.choice([None, {"output_size": draw.randint(1, 5000)}]),
            "embedding": draw.choice([None, {"vocabulary_size": 128}]),
        },
        "sequence": {"length": draw.choice([1, 2, 3, 7, 100, 1234]), "batch_size": draw.randint(1, 40)},
        "training": {"optimizer": draw.choice(["sgd", "adam"]), "loss": draw.choice([None, "outside"])},
        "device": draw.choice(["cpu", "cuda"]),
    }
    return Question.model_validate(record)


@pytest.mark.parametrize("seed", range(150))
def test_a_counted_model_has_the_curve_of_its_candidates(seed):
    question = recurrent(random.Random(seed))
    quick = curve_of_steps(workload_of(question))
    slow = curve_of_candidates(candidates_of(question, ()), None)
    assert quick.curve.budget_bytes.tolist() == slow.curve.budget_bytes.tolist()
    assert quick.curve.makespan.tolist() == slow.curve.makespan.tolist()
    assert (quick.full, quick.unit, quick.held_bytes) == (slow.full, slow.unit, slow.held_bytes)
