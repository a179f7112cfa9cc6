"""One loss twice: as a plain loop with every step taped, and inside a budget. One table of both."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from executor import measure
from executor.verify import compare_gradients
from planner_service.chain.quantities import format_bytes, parse_bytes

Loss = Callable[[], Tensor]


@dataclass(frozen=True)
class Comparison:
    """What training inside the budget took, next to the plain loop."""

    budget_bytes: int
    plain_peak_bytes: int
    budgeted_peak_bytes: int
    time_ratio: float
    """Budgeted over plain, medians of iterations that took turns."""
    gradient_difference: float
    """Largest difference of a gradient, relative to its largest entry."""
    loss_before: float
    loss_after: float

    @property
    def kept(self) -> bool:
        """Whether the peak stayed within the budget, the gradients agree and something was learned."""
        within = self.budgeted_peak_bytes <= self.budget_bytes
        return within and self.gradient_difference < 1e-4 and self.loss_after < self.loss_before

    def table(self) -> str:
        """The comparison as a Markdown table."""
        rows = [
            ("", "plain loop", "in the budget"),
            ("---", "---", "---"),
            ("budget", "none", format_bytes(self.budget_bytes)),
            ("measured peak", format_bytes(self.plain_peak_bytes), format_bytes(self.budgeted_peak_bytes)),
            ("time", "1.00", f"{self.time_ratio:.2f}"),
            ("largest gradient difference", "", f"{self.gradient_difference:.0e}"),
            ("loss before, after", "", f"{self.loss_before:.4g}, {self.loss_after:.4g}"),
        ]
        return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def compare(
    plain: Loss,
    budgeted: Loss,
    *,
    parameters: Sequence[Tensor],
    budget: str,
    iterations: int,
    learning_rate: float = 0.01,
) -> Comparison:
    """Measure both, compare their gradients, then train on the budgeted one, timing both in turns."""
    named = {str(index): parameter for index, parameter in enumerate(parameters)}

    def gradients(loss: Loss) -> tuple[int, dict[str, Tensor | None]]:
        for parameter in parameters:
            parameter.grad = None
        passes = measure(lambda: torch.autograd.backward(loss()), device=parameters[0].device)
        return passes.peak_bytes, {name: parameter.grad for name, parameter in named.items()}

    loss_before = float(budgeted().detach())  # also measures the step and plans
    plain_peak_bytes, expected = gradients(plain)
    budgeted_peak_bytes, found = gradients(budgeted)
    optimizer = torch.optim.Adam(parameters, lr=learning_rate)
    seconds: dict[Loss, list[float]] = {plain: [], budgeted: []}
    for _ in range(iterations):
        for loss in (plain, budgeted):
            optimizer.zero_grad(set_to_none=True)
            begin = time.perf_counter()
            torch.autograd.backward(loss())
            seconds[loss].append(time.perf_counter() - begin)
        optimizer.step()
    return Comparison(
        budget_bytes=parse_bytes(budget),
        plain_peak_bytes=plain_peak_bytes,
        budgeted_peak_bytes=budgeted_peak_bytes,
        time_ratio=statistics.median(seconds[budgeted]) / statistics.median(seconds[plain]),
        gradient_difference=compare_gradients(expected, found, steps=1).largest_relative_difference,
        loss_before=loss_before,
        loss_after=float(budgeted().detach()),
    )
