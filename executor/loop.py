"""One unrolled loop as the caller described it, before it is decided how to run it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor, nn

from executor.captures import independent
from executor.dry_run import Needs, ambient_generators, dry_run
from executor.inputs import Inputs
from executor.outputs import Outputs, Reduce
from executor.program import Program
from executor.replay import Buffers, Replay
from executor.sizes import held_bytes, rounded_bytes
from executor.trees import Leaves, Structure, leaf_description, structure_of

StepFunction = Callable[[Any, Any], Any]
FinalState = Literal["differentiable", "detached"]


@dataclass(frozen=True)
class Loop:
    """A step function with its state, inputs, modules and what to do with its outputs."""

    function: StepFunction
    is_segment: bool
    structure: Structure
    initial: Leaves
    inputs: Inputs
    modules: tuple[nn.Module, ...]
    captured: tuple[Tensor, ...]
    reduce: Reduce
    final_state: FinalState
    outputs_transposed: bool = False
    """The caller turns stacked outputs to [batch, T, …], so that their gradients lie like that."""

    @classmethod
    def of(
        cls,
        step: StepFunction | None,
        state: Any,
        inputs: Any,
        *,
        module: nn.Module | Sequence[nn.Module] | None = None,
        captured: Sequence[Tensor] = (),
        reduce: Reduce = "stack",
        segment: StepFunction | None = None,
        length: int | None = None,
        final_state: FinalState = "differentiable",
        outputs_transposed: bool = False,
    ) -> Loop:
        """See `unroll` for the arguments."""
        function = segment if segment is not None else step
        if function is None:
            raise TypeError("give a step function or a segment function")
        if final_state not in ("differentiable", "detached"):
            raise ValueError(f"final_state={final_state!r} must be differentiable or detached")
        structure, leaves = structure_of(state)
        return cls(
            function=function,
            is_segment=segment is not None,
            structure=structure,
            initial=leaves,
            inputs=Inputs(inputs, length),
            modules=_modules(function, module),
            captured=independent(captured),
            reduce=reduce,
            final_state=final_state,
            outputs_transposed=outputs_transposed,
        )

    def program(self, segment_steps: int) -> Program:
        """The loop in segments of `segment_steps`, with nothing put out yet."""
        return Program(
            function=self.function,
            is_segment=self.is_segment,
            structure=self.structure,
            description=tuple(leaf_description(leaf) for leaf in self.initial),
            inputs=self.inputs,
            outputs=Outputs(self.reduce, self.inputs.length, blocks_are_segments=self.is_segment),
            segment_steps=segment_steps,
        )

    def shortened(self, length: int) -> Loop:
        """The first `length` steps, from leaves of their own."""
        initial = tuple(
            leaf.detach().requires_grad_(leaf.requires_grad) if isinstance(leaf, Tensor) else leaf
            for leaf in self.initial
        )
        return replace(self, initial=initial, inputs=self.inputs.shortened(length))

    @property
    def device(self) -> torch.device:
        """Where the loop runs: CUDA if any of its tensors is there."""
        tensors = [leaf for leaf in (*self.initial, *self.inputs.leaves) if isinstance(leaf, Tensor)]
        tensors += [parameter for module in self.modules for parameter in module.parameters()]
        return next((t.device for t in tensors if t.is_cuda), torch.device("cpu"))

    @property
    def state_bytes(self) -> int:
        """Bytes of the tensors of one state."""
        return sum(leaf.nbytes for leaf in self.initial if isinstance(leaf, Tensor))

    def output_bytes(self, leaves: Sequence[Tensor]) -> int:
        """Bytes of the whole loop's outputs, given those of fewer steps."""
        if self.reduce != "stack":
            return sum(held_bytes(leaf) for leaf in leaves)
        sizes = [(leaf.nbytes // leaf.shape[0] * self.inputs.length, leaf.device) for leaf in leaves]
        return sum(rounded_bytes(size, device) for size, device in sizes)

    def generators(self) -> list[torch.Generator]:
        """The random streams that the step may draw from."""
        return ambient_generators([*self.initial, *self.inputs.leaves])

    def needs(self) -> Needs:
        """What must be replayed; refuses a step that breaks the rules. See `dry_run`."""
        steps = min(5, self.inputs.length) if self.is_segment else 1
        return dry_run(self.program(steps), self.initial, self.modules, self.captured, self.generators())

    def replay(self, needs: Needs) -> Replay:
        """The replay that `needs` asks for."""
        everything = Buffers(self.modules)
        return Replay(
            generators=self.generators() if needs.draws_random_numbers else (),
            idle=() if needs.draws_random_numbers else self.generators(),
            mutated=everything.subset(needs.mutated_buffers),
            everything=everything,
        )


def _modules(function: StepFunction, module: nn.Module | Sequence[nn.Module] | None) -> tuple[nn.Module, ...]:
    """The modules whose parameters the step uses; a step that is a module brings itself."""
    if isinstance(module, nn.Module):
        return (module,)
    if module is not None:
        return tuple(module)
    owner = function if isinstance(function, nn.Module) else getattr(function, "__self__", None)
    return (owner,) if isinstance(owner, nn.Module) else ()
