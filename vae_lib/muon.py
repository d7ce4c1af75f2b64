"""Muon for convolutions: steps along orthogonal matrices, which `fit` takes if asked (page 12)."""

import torch


class FilterMuon(torch.optim.Muon):
    """torch's Muon for the filters of 2-d convolutions, each flattened into a matrix that keeps the first axis.

    A step goes along the momentum, whose singular values are first brought to about 1: those above 0.0015 times the
    root of the sum of all their squares to roughly between 0.7 and 1.2, in bfloat16. So rare directions count as much
    as common ones. The step's root mean square is 0.2 learning rates if all of them come out as 1, and less if some
    stay near zero: about as much as Adam's, so that Adam's learning rate and weight decay serve. Takes pairs of name
    and filters, in any memory format: (out, in, height, width), or (in, out, height, width) of transposed convolutions.
    Jordan et al. 2024, "Muon: an optimizer for hidden layers in neural networks"; the length: Liu et al. 2025, "Muon is
    scalable for LLM training", equation 4.
    """

    def __init__(self, named_filters, lr, weight_decay):
        self.filters = [filters for _, filters in named_filters]
        super().__init__([(name, filters.detach().flatten(1).clone()) for name, filters in named_filters], lr,
                         weight_decay, adjust_lr_fn="match_rms_adamw")

    @torch.no_grad()
    def step(self):
        matrices = self.param_groups[0]["params"]
        for matrix, filters in zip(matrices, self.filters):
            matrix.copy_(filters.flatten(1))
            matrix.grad = None if filters.grad is None else filters.grad.flatten(1)
        super().step()
        for matrix, filters in zip(matrices, self.filters):
            filters.copy_(matrix.view_as(filters))
