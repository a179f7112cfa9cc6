"""What the executor refuses, by name, with the numbers or names as fields.

A refusal always comes before anything was lost: parameters, buffers, random streams and gradients are
afterwards as they were before the call.
"""

from __future__ import annotations

from planner_service.chain import BudgetTooSmall

__all__ = [
    "BudgetTooSmall",
    "CaptureError",
    "ConcurrentUse",
    "DependentCaptures",
    "DoubleBackward",
    "ExecutorError",
    "GradientLost",
    "GrowingMemory",
    "HostMemoryRefused",
    "ModifiedBetweenPasses",
    "PlanMismatch",
    "ProfilerBusy",
    "ReplayError",
    "ReversalMismatch",
    "SparseGradients",
    "StateChanged",
    "StateMutated",
    "UnsupportedBackward",
    "UnsupportedCollective",
    "UnsupportedHook",
    "UnsupportedOutput",
    "UnsupportedTransform",
]


class ExecutorError(Exception):
    """Base of every refusal of the executor."""


class StateChanged(ExecutorError, ValueError):
    """The step returned a state of another shape, dtype, device or structure than it was given."""


class StateMutated(ExecutorError, RuntimeError):
    """The step changed its input state or its inputs in place: they would no longer be what they were."""


class CaptureError(ExecutorError, RuntimeError):
    """The step uses tensors that need a gradient and were not declared; their gradient would be lost.

    `names` says which ones, as far as they can be named; `remedy` what to do.
    """

    def __init__(
        self,
        names: tuple[str, ...],
        remedy: str = "pass their module as module=… or the tensors as captured=[…] (or detach them); what a "
        "step leaves for the next one belongs into its state",
    ) -> None:
        self.names, self.remedy = names, remedy
        super().__init__(
            f"the step uses {', '.join(names)}, which need a gradient but are not among its state, inputs "
            f"or parameters: {remedy}"
        )

    def __reduce__(self) -> tuple[object, ...]:
        return (CaptureError, (self.names, self.remedy))


class ConcurrentUse(ExecutorError, RuntimeError):
    """Two threads run loops of one module at the same time."""


class GradientLost(ExecutorError, RuntimeError):
    """The loss depends on a tensor that a step left somewhere, in an attribute say, and did not return.

    `name` is that of the place, where it is known.
    """

    def __init__(self, name: str = "a tensor") -> None:
        self.name = name
        super().__init__(
            f"the loss depends on {name}, which a step left in an attribute, a dictionary or a list: no "
            "gradient comes through it; return it as a part of the step's output (or detach it, where it is "
            "only looked at)"
        )

    def __reduce__(self) -> tuple[object, ...]:
        return (GradientLost, (self.name,))


class DependentCaptures(ExecutorError, ValueError):
    """A captured tensor was computed from another one: its gradient would reach the other twice.

    `index` and `other` are their places among the captured tensors that need a gradient.
    """

    def __init__(self, index: int, other: int, shape: tuple[int, ...]) -> None:
        self.index, self.other, self.shape = index, other, shape
        super().__init__(
            f"captured[{index}] (shape {list(shape)}) was computed from captured[{other}], whose gradient "
            f"would come twice: let the step use captured[{other}].clone(), made beside captured[{index}], "
            "and pass that"
        )

    def __reduce__(self) -> tuple[object, ...]:
        return (DependentCaptures, (self.index, self.other, self.shape))


class UnsupportedTransform(ExecutorError, RuntimeError):
    """A loop was called under a transform of torch.func, or with tangents of forward mode."""


class UnsupportedHook(ExecutorError, RuntimeError):
    """The step registers a hook on the state that it is given, whose gradient is made of several parts; or
    hooks on saved tensors are set around a call, and torch is too old to say which (older than 2.8).
    """


class UnsupportedBackward(ExecutorError, RuntimeError):
    """The step calls `backward`, which adds to gradients whenever it runs: also when it runs again."""


class UnsupportedOutput(ExecutorError, TypeError):
    """The step's output cannot be stacked or summed, or it changed its shape between steps."""


class SparseGradients(ExecutorError, TypeError):
    """A parameter wants a sparse gradient, whose bytes depend on the data: no plan can count them."""


class PlanMismatch(ExecutorError, ValueError):
    """The plan was made for another number of steps, or its schedule breaks the rules of a schedule."""


class DoubleBackward(ExecutorError, RuntimeError):
    """A gradient of the gradient was asked for, or backward was called twice."""


class ModifiedBetweenPasses(ExecutorError, RuntimeError):
    """A parameter, input or initial state was changed in place between forward and backward."""


class GrowingMemory(ExecutorError, RuntimeError):
    """Every step keeps more tensors than the one before, besides its state and outputs: no plan counts them.

    `step_bytes` is what one step adds, in bytes.
    """

    def __init__(self, step_bytes: int) -> None:
        self.step_bytes = step_bytes
        super().__init__(
            f"every step keeps {step_bytes} more bytes of tensors than the one before, besides its state and "
            "outputs (in a list that it appends to, say), also when it runs again: no plan counts them; "
            "return them as a part of the output, or keep numbers (tensor.item())"
        )

    def __reduce__(self) -> tuple[object, ...]:
        return (GrowingMemory, (self.step_bytes,))


class HostMemoryRefused(ExecutorError, RuntimeError):
    """The machine did not pin the host memory that a plan moves states or tapes to."""


class ProfilerBusy(ExecutorError, RuntimeError):
    """torch's profiler, which measuring and probing need, is in use."""


class ReplayError(ExecutorError, RuntimeError):
    """A step would not do the same when it runs again: it drew random numbers or changed buffers although the
    probe saw neither, or goes by something that it changes and that is no part of its state.
    """


class UnsupportedCollective(ReplayError):
    """The step exchanges numbers with other processes, which run other steps again than this one."""


OTHER_GATES = (
    "the way back computed other gates (a weight or input changed in place, another number of threads, "
    "random numbers that another thread drew, or numbers that are not finite)"
)
"""Why a reversal does not end where it began."""


class ReversalMismatch(ExecutorError, RuntimeError):
    """Undoing steps did not end at the state they began with: the two passes computed different gates.

    The gradients of this backward pass are not to be trusted and were not returned.
    """
