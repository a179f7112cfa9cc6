"""What a device has left."""

import torch

from executor.memory.device import device_name, free_bytes


def test_the_host_has_some_memory_left():
    """The CPU reports available bytes, more than this test needs and less than a petabyte"""
    assert 2**20 < free_bytes(torch.device("cpu")) < 2**50


def test_the_cpu_is_called_cpu():
    """Reports name the CPU without its model"""
    assert device_name(torch.device("cpu")) == "cpu"
