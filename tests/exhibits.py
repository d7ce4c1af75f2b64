"""The faults of the bug museum (page 13), each put into a dense, a convolutional and a residual network.

`exhibit(name, kind)` is a Patient: a model and its loss, validation and bound, with that one fault, and without any
for the name None. Networks are small and untrained.
"""

import math
from typing import NamedTuple

import torch
from torch import nn
from torch.nn.functional import binary_cross_entropy_with_logits, mse_loss

from vae_lib.gaussian import log_normal
from vae_lib.likelihoods import Bernoulli, Gaussian
from vae_lib.models import conv_vae, dense_vae
from vae_lib.residual import residual_vae

SHAPE, LATENTS, PIXELS = (1, 8, 8), 4, 64
IMAGES = torch.rand(20, *SHAPE, generator=torch.Generator().manual_seed(5)).round()
NETWORKS = {"dense": lambda likelihood: dense_vae(SHAPE, (16,), LATENTS, likelihood=likelihood),
            "convolutional": lambda likelihood: conv_vae(SHAPE, (4, 8), LATENTS, likelihood=likelihood),
            "residual": lambda likelihood: residual_vae(SHAPE, (8, 8), LATENTS, likelihood=likelihood)}


def network(kind, likelihood=None, seed=0):
    torch.manual_seed(seed)
    return NETWORKS[kind](likelihood or Bernoulli())


class Patient(NamedTuple):
    """What `checkup` gets."""

    model: nn.Module
    loss: object
    validation: object
    bound: object


class After(nn.Module):
    """A network whose outputs go through other layers, one for each."""

    def __init__(self, inner, *layers):
        super().__init__()
        self.inner, self.layers = inner, nn.ModuleList(layers)
        self.latent_dim, self.image_shape = inner.latent_dim, inner.image_shape

    def forward(self, x):
        answer = self.inner(x)
        if isinstance(answer, tuple):
            return tuple(layer(head) for layer, head in zip(self.layers, answer))
        return self.layers[0](answer)


def right_draw(mu, log_var, training):
    return mu + (log_var / 2).exp() * torch.randn_like(mu)


def right_kl(mu, log_var):
    return 0.5 * (mu**2 + log_var.exp() - log_var - 1)


def error_of(model, x, output):
    """Minus log p(x|z) of each image, or of each pair of image and sample: (..., C, H, W) to (...)."""
    return -model.likelihood.log_prob(x, output)


def made_of(draw=right_draw, kl=right_kl, error=error_of, reduce=lambda error, kl: (error + kl.sum(1)).mean()):
    """A loss that a fault is put into: by its draw, its KL of each latent, its error, or how it sums up."""
    def loss(model, x):
        mu, log_var = model.encoder(x)
        output = model.decoder(draw(mu, log_var, model.training))
        return reduce(error(model, x, output), kl(mu, log_var))
    return loss


def over_images(loss):
    """The validation that weighs each image alike."""
    def validation(model, batches):
        return sum(loss(model, x) * len(x) for x in batches) / sum(map(len, batches))
    return validation


def log_w_of(model, x, num_samples):
    """Log weights (num_samples, images)."""
    mu, log_var = (part.expand(num_samples, *part.shape) for part in model.encoder(x))
    z = right_draw(mu, log_var, True)
    log_ratio = log_normal(z, torch.zeros_like(z), torch.zeros_like(z)) - log_normal(z, mu, log_var)
    return log_ratio - error_of(model, x, model.decoder(z))


def right_bound(model, x, num_samples):
    return log_w_of(model, x, num_samples).logsumexp(0).mean() - math.log(num_samples)


def summed_bound(model, x, num_samples):
    return (log_w_of(model, x, num_samples).sum(1).logsumexp(0) - math.log(num_samples)) / len(x)


def bound_of_the_loss(model, x, num_samples):
    loss = -log_w_of(model, x, num_samples)
    return (loss.softmax(0) * loss).sum(0).mean()


def pixel_mean(model, x, output):
    if isinstance(model.likelihood, Gaussian):
        return mse_loss(output, x)
    return binary_cross_entropy_with_logits(output, x)


def broadcast(model, x, output):
    """Images without their channel: (8, 8, 8) against outputs (8, 1, 8, 8)."""
    pairs = binary_cross_entropy_with_logits(output.expand(-1, len(x), -1, -1), x.squeeze(1).expand(len(x), -1, -1, -1),
                                             reduction="none")
    return pairs.sum((1, 2, 3))


LOSSES = {
    "noise_std": made_of(draw=lambda mu, log_var, training: mu + 0.01 * (log_var / 2).exp() * torch.randn_like(mu)),
    "kl_without_half": made_of(kl=lambda mu, log_var: mu**2 + log_var.exp() - log_var - 1),
    "kl_half_at_prior": made_of(kl=lambda mu, log_var: mu**2 + log_var.exp() - log_var / 2 - 0.5),
    "kl_sigma_for_variance": made_of(kl=lambda mu, log_var: 0.5 * (mu**2 + (log_var / 2).exp() - log_var - 1)),
    "kl_mean_over_latents": made_of(reduce=lambda error, kl: (error + kl.mean(1)).mean()),
    "loss_summed_over_batch": made_of(reduce=lambda error, kl: error.sum() + kl.sum(1).mean()),
    "mean_mse_summed_kl": made_of(error=pixel_mean),
    "both_terms_averaged": made_of(error=pixel_mean, reduce=lambda error, kl: error + kl.mean()),
    "std_as_variance": made_of(draw=lambda mu, log_var, training: mu + log_var.exp() * torch.randn_like(mu)),
    "shapes_broadcast": made_of(error=broadcast),
    "eval_returns_mu": made_of(draw=lambda mu, log_var, training: right_draw(mu, log_var, True) if training else mu),
    "gaussian_constant_on_bernoulli": made_of(
        error=lambda model, x, output: error_of(model, x, output) + PIXELS / 2 * math.log(2 * math.pi)),
}
HEADS = {"relu_on_heads": nn.ReLU, "batch_norm_on_heads": lambda: nn.BatchNorm1d(LATENTS)}


def exhibit(name, kind):
    """The Patient that shows one exhibit, and no other."""
    model = network(kind, Gaussian(0.5) if name == "mean_mse_summed_kl" else None)
    loss, right = LOSSES.get(name, made_of()), made_of()
    validation, bound = over_images(right), right_bound
    if name in HEADS:
        model.encoder = After(model.encoder, HEADS[name](), HEADS[name]())
    if name == "sigmoid_twice":
        model.decoder = After(model.decoder, nn.Sigmoid())
    if name == "validation_at_another_beta":
        validation = over_images(made_of(reduce=lambda error, kl: (error + 0.1 * kl.sum(1)).mean()))
    if name == "last_batch_weighs_as_much":
        validation = lambda model, batches: sum(right(model, x) for x in batches) / len(batches)
    bound = {"log_weights_over_images": summed_bound, "softmax_of_the_loss": bound_of_the_loss}.get(name, bound)
    return Patient(model, loss, validation, bound)


