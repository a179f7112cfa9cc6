"""Steps that exchange numbers with other processes"""

import threading

import pytest
import torch
import torch.distributed as dist
from torch import nn

from executor import UnsupportedCollective, unroll
from executor.compiled import nothing_compiled


@pytest.fixture
def _group(monkeypatch):
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "lo")
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield
    dist.destroy_process_group()


@pytest.mark.usefixtures("_group")
def test_a_step_that_exchanges_is_refused_and_one_that_does_not_is_run():
    """Of two processes under small budgets one got gradients that were off by their own size"""
    cell, x, zeros = nn.GRUCell(3, 4), torch.randn(6, 2, 3), torch.zeros(2, 4)
    loop = {"module": cell, "reduce": "sum", "budget": "60KiB"}

    def alone(h, x_t):
        h = cell(x_t, h)
        return h, h.square().mean()

    def together(h, x_t):
        h, loss = alone(h, x_t)
        mean = h.detach().mean(0)
        dist.all_reduce(mean)
        return h - mean, loss

    unroll(alone, zeros, x, **loop)[0].backward()
    with pytest.raises(UnsupportedCollective, match="allreduce"):
        unroll(together, zeros, x, **loop)
    with torch.no_grad():
        unroll(together, zeros, x, **loop)
    cell.requires_grad_(False)
    unroll(together, zeros, x, **loop)


@pytest.mark.usefixtures("_group")
def test_compiled_steps_stay_compiled_where_processes_are_connected():
    """The look for exchanges made the compiler give them up, for good, or refuse them as no one graph"""
    cell, x, zeros = nn.GRUCell(3, 4), torch.randn(6, 2, 3), torch.zeros(2, 4)
    graphs = []

    def counted(graph, _inputs):
        graphs.append(graph)
        return graph

    compiled = torch.compile(lambda h, x_t: cell(x_t, h), backend=counted, fullgraph=True)

    def step(h, x_t):
        h = compiled(h, x_t)
        return h, h.square().mean()

    unroll(step, zeros, x, module=cell, reduce="sum", budget="60KiB")[0].backward()
    assert graphs


def test_two_threads_that_look_at_steps_leave_the_compiler_as_it_was():
    """Each put back what it had found: compiled functions ran uncompiled from then on, without a word"""
    torch.compile(lambda h: h, backend="eager")  # loads the compiler
    first, second, left = threading.Event(), threading.Event(), threading.Event()

    def enters_first():
        with nothing_compiled():
            first.set()
            second.wait(10)
        left.set()

    thread = threading.Thread(target=enters_first)
    before = torch._dynamo.eval_frame._stance
    thread.start()
    assert first.wait(10)
    with nothing_compiled():
        second.set()
        assert left.wait(10)
        assert torch._dynamo.eval_frame._stance.stance == "force_eager"
    thread.join()
    assert torch._dynamo.eval_frame._stance == before
