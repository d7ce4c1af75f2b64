"""Whatever is done to a model in a while, it is afterwards as it was."""

import random
from contextlib import contextmanager

import numpy as np
import torch


def numbers_in(model):
    """Each module and the numbers among its attributes, such as a count of steps, and whether it trains."""
    return [(module, {name: value for name, value in vars(module).items() if isinstance(value, (bool, int, float))})
            for module in model.modules()]


@contextmanager
def preserved(model):
    """Afterwards the model's weights, gradients, buffers and modes, and the random streams, are as they were before.

    Numbers that a module counts with, such as its steps, are set back as well, and the modes of scripted modules.
    """
    tensors = [(tensor, tensor.detach().clone()) for tensor in (*model.parameters(), *model.buffers())]
    grads = [(weights, weights.grad, weights.requires_grad) for weights in model.parameters()]
    buffers, numbers = [(module, dict(module._buffers)) for module in model.modules()], numbers_in(model)
    modes = [(module, module.training) for module in model.modules()]
    numpy_state, python_state = np.random.get_state(), random.getstate()
    devices = {tensor.device for tensor, _ in tensors if tensor.device.type == "cuda"}
    try:
        with torch.random.fork_rng(devices=list(devices)):
            yield
    finally:
        np.random.set_state(numpy_state)
        random.setstate(python_state)
        for module, kept in buffers:
            if not isinstance(module, torch.jit.ScriptModule):  # whose buffers cannot be exchanged
                module._buffers.update(kept)
        for module, kept in numbers:
            vars(module).update(kept)
        for module, mode in modes:
            module.training = mode
        with torch.no_grad():
            for tensor, value in tensors:
                if not torch.equal(tensor, value):
                    tensor.copy_(value)
        for weights, grad, requires_grad in grads:
            weights.grad, weights.requires_grad = grad, requires_grad


@contextmanager
def other_weights(model, size=1.0):
    """The model's weights are moved by noise from N(0, size) for a while."""
    kept = [(weights, weights.detach().clone()) for weights in model.parameters()]
    with torch.no_grad():
        for weights, _ in kept:
            weights.add_(size * torch.randn_like(weights))
        try:
            yield
        finally:
            for weights, value in kept:
                weights.copy_(value)
