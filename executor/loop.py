"""One unrolled loop as the caller described it, before it is decided how to run it."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import compress
from operator import not_
from typing import Any, Literal

import torch
from torch import Tensor, nn

from executor.memory.sizes import held_bytes, rounded_bytes
from executor.replay import Replay
from executor.rules.captures import independent
from executor.rules.dry_run import dry_run
from executor.rules.needs import Needs
from executor.rules.own_memory import require_unwrapped, require_values
from executor.stages.inputs import Inputs
from executor.stages.outputs import Outputs, Reduce
from executor.stages.parameters import Parameters
from executor.stages.program import Program
from executor.surroundings.buffers import Buffers
from executor.surroundings.cached_weights import CachedWeights
from executor.surroundings.modes import Modes
from executor.surroundings.seen import Seen
from executor.surroundings.streams import Stream, ambient_generators, stream_of
from executor.surroundings.watch import Watch
from executor.surroundings.written import Written, nothing_written
from executor.trees import Leaves, Structure, leaf_description, structure_of

StepFunction = Callable[[Any, Any], Any]
FinalState = Literal["differentiable", "detached"]
_FORKS = frozenset({"fork_rng", "set_rng_state", "set_state"})
"""Lines with one of these may draw from a random stream without leaving a trace in it."""
_ASKS_FOR_GRADIENTS = "is_grad_enabled"


@dataclass(frozen=True)
class Loop:
    """A step function with its state, inputs, modules and what to do with its outputs."""

    function: StepFunction
    is_segment: bool
    structure: Structure
    initial: Leaves
    inputs: Inputs
    modules: tuple[nn.Module, ...]
    """Those whose parameters the step uses: the declared ones, and others that it sees and that train
    nothing. Their gradients, and the frozen parameters, are this loop's business.
    """
    seen: Seen
    """What the step, the callable that makes its inputs, and the modules see: other modules, too, whose
    buffers and modes are part of a step.
    """
    captured: tuple[Tensor, ...]
    """Those that were named, inputs without a time dimension, and weights that are computed once."""
    reduce: Reduce
    final_state: FinalState
    outputs_transposed: bool = False
    """The caller turns stacked outputs to [batch, T, …], so that their gradients lie like that."""
    sees_undeclared: bool = False
    """Whether it sees tensors that need a gradient and were not declared; steps may use them or not."""
    told_apart_by: Hashable = None
    """What else two calls must have in common to be alike: values of inputs that decide how much is done."""
    cached: CachedWeights = field(default_factory=CachedWeights)
    """Weights that are computed once for all steps; those that need a gradient are captured."""

    @classmethod
    def of(
        cls,
        step: StepFunction | None,
        state: Any,
        inputs: Any,
        *,
        module: nn.Module | Sequence[nn.Module] | None = None,
        captured: Tensor | Sequence[Tensor] = (),
        reduce: Reduce = "stack",
        segment: StepFunction | None = None,
        length: int | None = None,
        final_state: FinalState = "differentiable",
        outputs_transposed: bool = False,
        told_apart_by: Hashable = None,
    ) -> Loop:
        """See `unroll` for the arguments."""
        function = segment if segment is not None else step
        if function is None:
            raise TypeError("give a step function or a segment function")
        if final_state not in ("differentiable", "detached"):
            raise ValueError(f"final_state={final_state!r} must be differentiable or detached")
        structure, leaves = structure_of(state)
        given = Inputs(inputs, length)
        _refuse_opaque((*leaves, *given.leaves))
        require_unwrapped(leaf for leaf in (*leaves, *given.leaves) if isinstance(leaf, Tensor))
        seen = Seen.by((function, given.function), _modules(function, module))
        cached = CachedWeights.of(seen.modules)
        named = (captured,) if isinstance(captured, Tensor) else captured
        chosen = independent((*named, *given.timeless, *cached.used))
        beside = (each for each in seen.met if _trains_nothing(each))
        return cls(
            function=function,
            is_segment=segment is not None,
            structure=structure,
            initial=leaves,
            inputs=given,
            modules=(*seen.declared, *beside),
            seen=seen,
            captured=chosen,
            reduce=reduce,
            final_state=final_state,
            outputs_transposed=outputs_transposed,
            sees_undeclared=_sees_undeclared(seen, (*leaves, *given.leaves, *chosen)),
            told_apart_by=told_apart_by,
            cached=cached,
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
            sees_undeclared=self.sees_undeclared,
        )

    def shortened(self, length: int) -> Loop:
        """The first `length` steps, from leaves of their own."""
        initial = tuple(
            leaf.detach().requires_grad_(leaf.requires_grad) if isinstance(leaf, Tensor) else leaf
            for leaf in self.initial
        )
        return replace(self, initial=initial, inputs=self.inputs.shortened(length))

    def tensors(self) -> Iterator[Tensor]:
        """Everything that may get a gradient: state, inputs, captured tensors, parameters."""
        given = (*self.initial, *self.inputs.leaves, *self.captured)
        yield from (leaf for leaf in given if isinstance(leaf, Tensor))
        yield from (parameter for module in self.modules for parameter in module.parameters())

    def everything(self) -> Iterator[Tensor]:
        """Those, and all tensors that steps are seen to use."""
        yield from self.tensors()
        yield from (tensor for each in self.seen.tensors if (tensor := each.tensor()) is not None)
        for module in self.seen.modules:
            yield from module.parameters()
            yield from module.buffers()

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

    def whole_output(self, leaf: Tensor) -> Tensor:
        """Zeros like the whole loop's output, given that of fewer steps."""
        shape = (self.inputs.length, *leaf.shape[1:]) if self.reduce == "stack" else leaf.shape
        return leaf.new_zeros(shape, requires_grad=False)

    def output_bytes(self, leaves: Sequence[Tensor]) -> int:
        """Bytes of the whole loop's outputs, given those of fewer steps."""
        if self.reduce != "stack":
            return sum(held_bytes(leaf) for leaf in leaves)
        sizes = [(leaf.nbytes // leaf.shape[0] * self.inputs.length, leaf.device) for leaf in leaves]
        return sum(rounded_bytes(size, device) for size, device in sizes)

    def generators(self) -> list[torch.Generator]:
        """The random streams of torch that the step may draw from."""
        given = (*self.initial, *self.inputs.leaves)
        own = (*self.seen.generators, *(each for each in given if isinstance(each, torch.Generator)))
        return [*ambient_generators(given), *{id(each): each for each in own}.values()]

    def other_streams(self) -> list[Stream]:
        """Those of Python and numpy that the step may draw from."""
        given = (stream_of(each) for each in (*self.initial, *self.inputs.leaves))
        return [*self.seen.streams, *(stream for stream in given if stream is not None)]

    def streams(self) -> list[Stream]:
        """All random streams that the step may draw from, torch's first."""
        return [*self.generators(), *self.other_streams()]

    def needs(self) -> Needs:
        """What must be replayed; refuses a step that breaks the rules, and tensors that it cannot be run on.
        See `dry_run`. It runs the shortest segments: longer ones may not fit the budget.
        """
        require_values(self.tensors())
        require_unwrapped(tensor for tensor in self.tensors() if tensor.requires_grad)
        program, forks = self.program(1), not _FORKS.isdisjoint(self.seen.names)
        with nothing_written(self.seen):
            written = Written(self.seen)
            found = dry_run(
                program,
                self.initial,
                Parameters(self.modules),
                self.captured,
                buffers=Buffers(self.seen.modules),
                streams=self.streams(),
                forks=forks,
            )
            leaves_behind = written.remember(self.seen.again())
        asks = _ASKS_FOR_GRADIENTS in self.seen.names  # it may do so at some steps only
        return replace(
            found,
            advances_with_graphs=found.advances_with_graphs or asks,
            leaves_behind=leaves_behind,
        )

    def replay(self, needs: Needs) -> Replay:
        """The replay that `needs` asks for."""
        everything = Buffers(self.seen.modules)
        streams, of_torch = self.streams(), len(self.generators())
        draws = [needs.draws_random_numbers] * of_torch
        draws += [index in needs.moved_streams for index in range(len(streams) - of_torch)]
        given = (*self.initial, *self.inputs.leaves, *self.captured)
        return Replay(
            generators=list(compress(streams, draws)),
            idle=list(compress(streams, map(not_, draws))),
            mutated=everything.subset(needs.mutated_buffers),
            everything=everything,
            modes=Modes(self.seen.modules),
            watch=Watch(self.seen, given),
            written=Written(self.seen) if needs.leaves_behind else None,
            differentiates_a_second_run=needs.differentiates_a_second_run,
            advances_with_graphs=needs.advances_with_graphs,
            makes_leaves=needs.makes_leaves,
            leaves_cycles=needs.leaves_cycles,
            cached=self.cached,
        )


def _modules(function: StepFunction, module: nn.Module | Sequence[nn.Module] | None) -> tuple[nn.Module, ...]:
    """The modules whose parameters the step uses; a step that is a module brings itself."""
    if isinstance(module, nn.Module):
        return (module,)
    if module is not None:
        modules = tuple(module)
        if not all(isinstance(each, nn.Module) for each in modules):
            kinds = sorted({type(each).__name__ for each in modules})
            raise TypeError(
                f"module= takes a module or several, not {', '.join(kinds)}: pass the modules themselves"
            )
        return modules
    owner = function if isinstance(function, nn.Module) else getattr(function, "__self__", None)
    return (owner,) if isinstance(owner, nn.Module) else ()


def _trains_nothing(module: nn.Module) -> bool:
    return not any(parameter.requires_grad for parameter in module.parameters())


def _sees_undeclared(seen: Seen, given: Sequence[Any]) -> bool:
    """Whether a tensor that was met needs a gradient, and is neither `given` nor a declared parameter."""
    known = {id(leaf) for leaf in given}
    if not seen.met and seen.differentiable <= known:
        return False
    known |= {id(parameter) for module in seen.declared for parameter in module.parameters()}
    found = (parameter for module in seen.met for parameter in module.parameters() if parameter.requires_grad)
    return not seen.differentiable <= known or any(id(parameter) not in known for parameter in found)


def _refuse_opaque(leaves: Sequence[Any]) -> None:
    """Raise TypeError for an object with tensors in it that is no tree, whose gradients would be lost, an
    iterator, and a sparse tensor, whose bytes change with its values.
    """
    for leaf in leaves:
        if isinstance(leaf, Iterator):
            raise TypeError(
                f"a {type(leaf).__name__} is a leaf of the state or the inputs: what an iterator has given "
                "is gone when a step runs again; pass a tensor, or a callable of t that looks it up in a list"
            )
        if isinstance(leaf, Tensor) and leaf.layout is not torch.strided:
            layout = str(leaf.layout).removeprefix("torch.")
            raise TypeError(
                f"a {layout} tensor is a leaf of the state or the inputs: pass its indices and values and "
                "put them together in the step, or, where all steps use the same, let the step see it"
            )
        if not isinstance(leaf, Tensor) and any(
            isinstance(value, Tensor) for value in getattr(leaf, "__dict__", {}).values()
        ):
            kind = type(leaf).__name__
            raise TypeError(
                f"a {kind} with tensors in it is a leaf of the state or the inputs: register it, so that "
                f"they are found (torch.utils._pytree.register_dataclass({kind})), or pass a tuple or a dict"
            )
