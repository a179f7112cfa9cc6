"""RevGRU and RevLSTM written down from the paper: plain autograd around its integer multiplication.

States are int64 with one buffer per unit, which lasts as long as the bits forgotten fit into it; gradients
are those of plain torch operations, every rounding passed straight through.
"""

from __future__ import annotations

import torch


class Units:
    """One tensor of units: its fixed-point integers, its buffer, and its value with a gradient."""

    def __init__(self, like, units):
        self.value = like.new_zeros(like.shape[1], units)
        self.fixed = torch.zeros_like(self.value, dtype=torch.int64)
        self.buffer = torch.zeros_like(self.fixed)

    def update(self, keep, addend):
        """Multiply by `keep`, a limited gate or None to forget nothing, and add the addend."""
        if keep is None:
            exact, fixed = self.value + addend, self.fixed
        else:
            exact, fixed = keep * self.value + addend, self._product((keep.detach() * 1024).long())
        self.fixed = fixed + torch.round(addend.detach() * 2**23).long()
        self.value = exact + (self.fixed.double() / 2**23 - exact).detach()

    def _product(self, factor):
        pool = self.buffer * 1024 + self.fixed.remainder(1024)
        self.buffer = pool // factor
        return self.fixed // 1024 * factor + pool.remainder(factor)


def limited(gate, forget_bits):
    """The forget gate, kept above 2**-n and rounded to 10 bits."""
    slope = 1 - 2.0**-forget_bits
    exact = slope * gate + (1 - slope)
    return exact + (torch.round(exact * 1024) / 1024 - exact).detach()


def gru_half(pre, own, other, weight, forget_bits):
    units = other.shape[1]
    z, r = torch.sigmoid(pre[:, : 2 * units] + other @ weight[: 2 * units].T).chunk(2, dim=1)
    g = torch.tanh(pre[:, 2 * units :] + (r * other) @ weight[2 * units :].T)
    keep = limited(z, forget_bits) if forget_bits else None
    own[0].update(keep, (1 - (z if keep is None else keep)) * g)


def lstm_half(pre, own, other, weight, forget_bits):
    gates = (pre + other @ weight.T).chunk(5 if forget_bits else 3, dim=1)
    i, o, *forget = (torch.sigmoid(gate) for gate in gates[:-1])
    f, p = (limited(gate, forget_bits) for gate in forget) if forget_bits else (None, None)
    own[0].update(f, i * torch.tanh(gates[-1]))
    own[1].update(p, o * torch.tanh(own[0].value))


def run(module, x, *, forget_bits):
    """Outputs [T, B, hidden] of a reversible module on x, from zero states; forget_bits 0: never forget."""
    half = gru_half if "GRU" in type(module).__name__ else lstm_half
    parts = 1 if half is gru_half else 2
    for layer in range(module.num_layers):
        names = [f"{name}_l{layer}" for name in ("weight_ih", "weight_hh", "bias")]
        weight_ih, weight_hh, bias = (getattr(module, name) for name in names)
        first, second = ([Units(x, module.hidden_size // 2) for _ in range(parts)] for _ in range(2))
        upper, lower = weight_hh.chunk(2)
        outputs = []
        for x_t in x:
            pre = (x_t @ weight_ih.T + bias).chunk(2, dim=1)
            half(pre[0], first, second[-1].value, upper, forget_bits)
            half(pre[1], second, first[-1].value, lower, forget_bits)
            outputs.append(torch.cat([first[-1].value, second[-1].value], dim=1))
        x = torch.stack(outputs)
    return x
