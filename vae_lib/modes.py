"""Evaluation mode for a while (used wherever a trained model is looked at)."""

from contextlib import contextmanager

import torch
from torch import nn


@contextmanager
def evaluating(*models):
    """Evaluation mode and no gradients inside; afterwards each part of the models is in the mode it was in.

    Arguments that are no modules, such as None or a distribution for a prior, are left alone.
    """
    models = [model for model in models if isinstance(model, nn.Module)]
    modes = [(module, module.training) for model in models for module in model.modules()]
    for model in models:
        model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for module, training in modes:
            module.training = training
