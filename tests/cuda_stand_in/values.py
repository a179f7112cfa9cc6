"""A pytest plugin that gives the stand-in's kernels their values: the CPU's kernels, on the same memory.

The device's memory is this process's, so a CUDA tensor can be seen as one of the CPU. Every operator that
has a CUDA kernel is registered again: it sees its arguments that way, lets the CPU compute, and puts what is
new into memory of CUDA's caching allocator, as the kernel it replaces would. Dispatching, autograd with its
thread per device, streams, random generators and the allocator stay torch's own; the workspaces of kernels
other than cuDNN's are missing.
"""

from __future__ import annotations

import ctypes
import os
import threading
import warnings
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor

from tests.executor.triton_interpreter import interpret

warnings.filterwarnings("ignore", message=".*[Oo]verriding a previously registered kernel.*")

KEPT = {
    "empty.memory_format",
    "empty_strided",
    "resize_",
    "resize_as_",
    "record_stream",
    "_pin_memory",
    "is_pinned",
}
"""They allocate, or need no kernel; so do all that return views."""
KEPT_PREFIXES = ("set_", "_cudnn", "cudnn", "_sparse", "_nested", "_flash", "_efficient", "_scaled")
DEFAULT_DEVICE = "STAND_IN_DEFAULT_DEVICE"
"""With this variable set, tensors of tests that name no device are on CUDA."""
DRAWN_PER_CALL = 4
"""By how much an operator that draws moves the generator on."""
_RNN = (torch.rnn_relu, torch.rnn_tanh, torch.lstm, torch.gru)
_LSTM = 2


def seen_by_cpu(tensor: Tensor) -> Tensor:
    """The same memory as a tensor of the CPU."""
    last = sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True))
    if not tensor.numel():
        return torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype, device="cpu")
    size_bytes = (last + 1) * tensor.element_size()
    memory = (ctypes.c_char * size_bytes).from_address(tensor.data_ptr())
    flat = torch.frombuffer(memory, dtype=torch.uint8).view(tensor.dtype)
    return flat.as_strided(tensor.shape, tensor.stride())


def on_cuda(result: Tensor) -> Tensor:
    """A copy in memory of CUDA's allocator."""
    copy = torch.empty_strided(result.shape, result.stride(), dtype=result.dtype, device="cuda")
    seen_by_cpu(copy).copy_(result)
    return copy


def next_generator(given: torch.Generator | None) -> torch.Generator:
    """One of the CPU, for the place that CUDA's generator has reached; that one moves on."""
    generator = given if given is not None else torch.cuda.default_generators[0]
    if generator.device.type == "cpu":  # of a test that is run with tensors on CUDA by default
        return generator
    offset = generator.get_offset()
    generator.set_offset(offset + DRAWN_PER_CALL)
    seed = hash((generator.initial_seed(), offset)) % 2**63
    return torch.Generator(device="cpu").manual_seed(seed)


class Call:
    """The arguments of one call as the CPU sees them."""

    def __init__(self) -> None:
        self._pairs: list[tuple[Tensor, Tensor]] = []
        self._devices: set[torch.device] = set()

    def argument(self, given: Any) -> Any:
        """What to hand to the CPU's kernel."""
        if isinstance(given, Tensor) and given.is_cuda:
            return self._seen(given)
        if isinstance(given, (list, tuple)):
            return type(given)(self.argument(each) for each in given)
        if isinstance(given, torch.Generator):
            return next_generator(given)
        return torch.device("cpu") if isinstance(given, torch.device) else given

    def _seen(self, given: Tensor) -> Tensor:
        for seen, known in self._pairs:
            if known is given:
                return seen
        self._pairs.append((seen_by_cpu(given), given))
        return self._pairs[-1][0]

    def result(self, found: Any) -> Any:
        """What the caller gets: an argument that was written to, or something new on CUDA."""
        if isinstance(found, (list, tuple)):
            return type(found)(self.result(each) for each in found)
        if not isinstance(found, Tensor):
            return found
        given = next((given for seen, given in self._pairs if seen is found), None)
        if given is None:
            return on_cuda(found)
        if given.shape != found.shape:  # an `out` that was given its size
            given.resize_(found.shape)
            seen_by_cpu(given).copy_(found)
        return given


def kernel_of(operator: Any) -> Callable[..., Any]:
    """The CPU's kernel of an operator, for CUDA tensors."""
    names = [argument.name for argument in operator._schema.arguments]
    draws = "generator" in names
    tensors = [place for place, each in enumerate(operator._schema.arguments) if str(each.type) == "Tensor"]

    def kernel(*given: Any, **named: Any) -> Any:
        call = Call()
        arguments = [call.argument(each) for each in given]
        options = {name: call.argument(each) for name, each in named.items()}
        if draws and all(not isinstance(each, torch.Generator) for each in (*arguments, *options.values())):
            options["generator"] = next_generator(None)
            del arguments[names.index("generator") :]
        has_number = any(
            isinstance(arguments[place], (bool, int, float)) for place in tensors if place < len(arguments)
        )
        return call.result((operator.overloadpacket if has_number else operator)(*arguments, **options))

    return kernel


# Operators that the CPU does not have


def native_dropout(x: Tensor, p: float, train: bool | None) -> tuple[Tensor, Tensor]:
    if train is False:
        return x.clone(), torch.ones_like(x, dtype=torch.bool)
    seen = seen_by_cpu(x)
    mask = (
        torch.empty(seen.shape, device="cpu").bernoulli_(1 - p, generator=next_generator(None)).to(torch.bool)
    )
    return on_cuda(seen * mask / (1 - p)), on_cuda(mask)


def lstm_cell(*given: Tensor | None) -> tuple[Tensor, ...]:
    """Gates of x and h, c, and both biases or none: h, c, and the gates for the way back."""
    x_gates, h_gates, c, *biases = (None if each is None else seen_by_cpu(each) for each in given)
    gates = sum((bias for bias in biases if bias is not None), x_gates + h_gates)
    i, f, g, o = (part(gate) for part, gate in zip(_LSTM_GATES, gates.chunk(4, 1), strict=True))
    after = f * c + i * g
    return on_cuda(o * after.tanh()), on_cuda(after), on_cuda(torch.cat([i, f, g, o], 1))


_LSTM_GATES = (torch.sigmoid, torch.sigmoid, torch.tanh, torch.sigmoid)


def lstm_cell_backward(
    grad_h: Tensor | None, grad_c: Tensor | None, c: Tensor, after: Tensor, gates: Tensor, has_bias: bool
) -> tuple[Tensor | None, ...]:
    if grad_h is None and grad_c is None:
        return None, None, None
    i, f, g, o = seen_by_cpu(gates).chunk(4, 1)
    squashed = seen_by_cpu(after).tanh()
    dh, dc = (torch.zeros_like(o) if each is None else seen_by_cpu(each) for each in (grad_h, grad_c))
    dc = dc + dh * o * (1 - squashed**2)
    di, df, dg, do = (
        dc * g * i * (1 - i),
        dc * seen_by_cpu(c) * f * (1 - f),
        dc * i * (1 - g * g),
        dh * squashed,
    )
    grad = torch.cat([di, df, dg, do * o * (1 - o)], 1)
    return on_cuda(grad), on_cuda(dc * f), on_cuda(grad.sum(0)) if has_bias else None


def gru_cell(*given: Tensor | None) -> tuple[Tensor, Tensor]:
    """Gates of x and h, h, and both biases or none: h, and what the way back needs."""
    x_gates, h_gates, h, *biases = (None if each is None else seen_by_cpu(each) for each in given)
    if biases and biases[0] is not None:
        x_gates, h_gates = x_gates + biases[0], h_gates + biases[1]
    (xr, xz, xn), (hr, hz, hn) = x_gates.chunk(3, 1), h_gates.chunk(3, 1)
    r, z = (xr + hr).sigmoid(), (xz + hz).sigmoid()
    n = (xn + r * hn).tanh()
    return on_cuda(n + z * (h - n)), on_cuda(torch.cat([r, z, n, h, hn], 1))


def gru_cell_backward(grad_h: Tensor, kept: Tensor, has_bias: bool) -> tuple[Tensor | None, ...]:
    r, z, n, h, hn = seen_by_cpu(kept).chunk(5, 1)
    dh = seen_by_cpu(grad_h)
    dn = dh * (1 - z) * (1 - n * n)
    dr, dz = dn * hn * r * (1 - r), dh * (h - n) * z * (1 - z)
    of_x, of_h = torch.cat([dr, dz, dn], 1), torch.cat([dr, dz, dn * r], 1)
    biases = (on_cuda(of_x.sum(0)), on_cuda(of_h.sum(0))) if has_bias else (None, None)
    return on_cuda(of_x), on_cuda(of_h), on_cuda(dh * z), *biases


# cuDNN's layers: torch's own kernel allocates, the CPU's fills in


class Layers:
    """What `_cudnn_rnn` and its backward pass are told about the layers, and how the CPU runs them."""

    def __init__(self, weights: list[Tensor], per_layer: int, options: tuple[Any, ...]) -> None:
        mode, _, _, layers, batch_first, dropout, train, bidirectional, sizes, _ = options
        if dropout and train:
            raise NotImplementedError("dropout between cuDNN's layers")
        self.weights = [seen_by_cpu(weight) for weight in weights]
        self._function, self._is_lstm = _RNN[mode], mode == _LSTM
        self._usual = (per_layer > 2, layers, 0.0, train, bidirectional)
        self._batch_first, self._sizes = batch_first, sizes

    def run(self, x: Tensor, weights: list[Tensor], h: Tensor, c: Tensor | None) -> list[Tensor]:
        """Outputs, and the state after the last step."""
        state = (h, c) if self._is_lstm else h
        if self._sizes:
            sizes = torch.tensor(self._sizes, device="cpu")
            return list(self._function(x, sizes, state, weights, *self._usual))
        return list(self._function(x, state, weights, *self._usual, self._batch_first))


def cudnn_rnn(
    x: Tensor, weights: list[Tensor], per_layer: int, flat: Any, h: Tensor, c: Any, *options: Any
) -> Any:
    found = _FORWARD.call_boxed(_KEYS, x, weights, per_layer, flat, h, c, *options)
    layers, seen = Layers(weights, per_layer, options), _seen_or_none(x, h, c)
    with torch.no_grad():
        results = beside_the_dispatcher(lambda: layers.run(seen[0], layers.weights, *seen[1:]))
    _fill(found[: len(results)], results)
    return found


def cudnn_rnn_backward(
    x: Tensor, weights: list[Tensor], per_layer: int, flat: Any, h: Tensor, c: Any, y: Tensor, *rest: Any
) -> Any:
    found = _BACKWARD.call_boxed(_KEYS, x, weights, per_layer, flat, h, c, y, *rest)
    layers, mask = Layers(weights, per_layer, rest[3:-2]), rest[-1]
    given, upstream = _seen_or_none(x, h, c), _seen_or_none(*rest[:3])

    def gradients() -> tuple[list[Tensor | None], list[Tensor | None]]:
        leaves = [None if each is None else each.clone().requires_grad_() for each in given]
        taken = [each.clone().requires_grad_() for each in layers.weights]
        results = layers.run(leaves[0], taken, *leaves[1:])
        pairs = [pair for pair in zip(results, upstream, strict=False) if pair[1] is not None]
        torch.autograd.backward([root for root, _ in pairs], [gradient for _, gradient in pairs])
        return [None if leaf is None else leaf.grad for leaf in leaves], [leaf.grad for leaf in taken]

    of_given, of_weights = beside_the_dispatcher(gradients)
    _fill(found[:3], of_given)
    _fill(found[3] if mask[3] else (), of_weights)
    return found


def _seen_or_none(*tensors: Tensor | None) -> list[Tensor | None]:
    return [None if tensor is None else seen_by_cpu(tensor) for tensor in tensors]


def _fill(places: Any, values: Any) -> None:
    for place, value in zip(places, values, strict=False):
        if isinstance(place, Tensor) and place.numel() and value is not None:
            seen_by_cpu(place).copy_(value)


def beside_the_dispatcher(function: Callable[[], Any]) -> Any:
    """`function()` in a thread of its own, in which autograd is not switched off as it is inside a kernel."""
    found: list[Any] = []
    failed: list[BaseException] = []

    def run() -> None:
        try:
            found.append(function())
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    if failed:
        raise failed[0]
    return found[0]


_KEYS = torch._C.DispatchKeySet(torch._C.DispatchKey.CUDA)
_FORWARD = torch.library.get_kernel("aten::_cudnn_rnn", "CUDA")
_BACKWARD = torch.library.get_kernel("aten::_cudnn_rnn_backward", "CUDA")
SPECIAL: dict[str, Callable[..., Any]] = {
    "native_dropout": native_dropout,
    "_thnn_fused_lstm_cell": lstm_cell,
    "_thnn_fused_lstm_cell_backward_impl": lstm_cell_backward,
    "_thnn_fused_gru_cell": gru_cell,
    "_thnn_fused_gru_cell_backward": gru_cell_backward,
    "_cudnn_rnn": cudnn_rnn,
    "_cudnn_rnn_backward": cudnn_rnn_backward,
}


def replaced() -> Iterator[tuple[str, Callable[..., Any]]]:
    """Names of operators and their kernels."""
    yield from SPECIAL.items()
    registered = torch._C._dispatch_get_registrations_for_dispatch_key("CUDA")
    names = {name.removeprefix("aten::") for name in registered if name.startswith("aten::")}
    for name in sorted({*names, "copy_"} - KEPT - set(SPECIAL)):
        packet, _, overload = name.partition(".")
        operator = getattr(getattr(torch.ops.aten, packet), overload or "default")
        if not (name.startswith(KEPT_PREFIXES) or returns_a_view(operator)) and has_cpu_kernel(name):
            yield name, kernel_of(operator)


def returns_a_view(operator: Any) -> bool:
    """Whether a result shares the memory of an argument that is not written to."""
    aliases = (result.alias_info for result in operator._schema.returns)
    return any(alias is not None and not alias.is_write for alias in aliases)


def has_cpu_kernel(name: str) -> bool:
    """Whether tensors of the CPU can be handed to it."""
    keys = ("CPU", "CompositeExplicitAutograd")
    return any(torch._C._dispatch_has_kernel_for_dispatch_key(f"aten::{name}", key) for key in keys)


library = torch.library.Library("aten", "IMPL", "CUDA")
for operator_name, its_kernel in replaced():
    library.impl(operator_name, its_kernel)
if find_spec("triton"):
    interpret()
if os.environ.get(DEFAULT_DEVICE):
    torch.set_default_device("cuda")
