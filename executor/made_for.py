"""What a plan was made for: the parts of a loop on which its peak depends, besides the lines of the step."""

from __future__ import annotations

from typing import NamedTuple

from executor.errors import PlanMismatch
from executor.loop import Loop
from executor.stages.outputs import Reduce


class MadeFor(NamedTuple):
    """A loop as far as its plan's peak depends on what the caller asks for. Bytes are of whole tensors."""

    state_bytes: int
    """Of the tensors of one state."""
    reduce: Reduce
    """What is done with the outputs of the steps."""
    has_final_gradient: bool
    """Whether a gradient of the last state may come."""
    gradient_bytes: int
    """Of all gradients that the caller gets: of the first state, inputs, captured tensors and parameters."""

    @classmethod
    def of(cls, loop: Loop) -> MadeFor:
        """That of `loop`."""
        wanting = {id(tensor): tensor.nbytes for tensor in loop.tensors() if tensor.requires_grad}
        return cls(
            state_bytes=loop.state_bytes,
            reduce=loop.reduce,
            has_final_gradient=loop.final_state == "differentiable",
            gradient_bytes=sum(wanting.values()),
        )

    def require(self, loop: Loop) -> None:
        """Raise PlanMismatch where `loop` takes more than the plan counts, or something else."""
        actual = MadeFor.of(loop)
        if actual.state_bytes != self.state_bytes:
            raise _mismatch(f"states of {self.state_bytes} bytes, these have {actual.state_bytes}")
        if actual.reduce != self.reduce:
            raise _mismatch(f"reduce={self.reduce!r}, this loop has reduce={actual.reduce!r}")
        if actual.has_final_gradient and not self.has_final_gradient:
            raise _mismatch('final_state="detached", here a gradient of the last state may come')
        if actual.gradient_bytes > self.gradient_bytes:
            raise _mismatch(
                f"{self.gradient_bytes} bytes of gradients (of parameters, inputs, first state and captured "
                f"tensors), here they take {actual.gradient_bytes}"
            )


def _mismatch(difference: str) -> PlanMismatch:
    return PlanMismatch(
        f"the plan is for {difference}: its peak would be another one; give a budget in place of the plan, "
        "or take the plan of predict(...)"
    )
