"""The weights that one call of a drop-in runs on: its own, whatever the module holds when backward comes."""

from __future__ import annotations

from torch import Tensor, nn

from executor.drop_ins.recurrence import Recurrence


class Anchor:
    """By which the loops of one chain are remembered (`executor.known`) from call to call."""


class ChainWeights(nn.Module):
    """What `owner` has now under the names of the weights of one chain, and its mode.

    A loop of one chain counts the gradients of its own parameters alone. Each call makes one of these: an
    earlier call that waits for its backward pass keeps the weights, and the mode, that it began with.
    """

    def __init__(self, owner: nn.Module, recurrence: Recurrence, stands_for: Anchor) -> None:
        super().__init__()
        self.recurrence = recurrence
        self.stands_for = stands_for
        """Calls alike have weights of their own, and the same one of these (`likeness.lasting`)."""
        computed = []
        for layer in range(recurrence.num_layers):
            for name in recurrence.weight_names(layer):
                weight = getattr(owner, name)
                if isinstance(weight, nn.Parameter):
                    self.register_parameter(name, weight)
                else:
                    self.__dict__[name] = weight
                    computed.append(weight)
        self.computed = tuple(computed)
        """Weights that are no parameters: pruned, parametrized, or put in place by functional_call."""
        self.layouts = tuple(
            part for each in computed for part in (str(each.dtype), *each.shape, *each.stride())
        )
        """Theirs: with the recurrence and the parameters they tell calls apart."""
        self.train(owner.training)

    @property
    def all(self) -> tuple[Tensor, ...]:
        """Parameters and computed weights."""
        return (*self.parameters(), *self.computed)
