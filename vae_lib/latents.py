"""How a trained model uses its latents: encodings, the aggregate posterior, active units (pages 08 to 10).

Models are put in evaluation mode, without gradients, and get the mode they were in back. Random draws come from
generators of their own: one seed gives one result, and the global stream stays put.
"""

import math
from functools import partial
from typing import NamedTuple

import torch

from vae_lib.gaussian import kl_to_standard_normal, log_normal, reparameterize
from vae_lib.guards import count, finite_or_stop, float64, integer, not_negative, pixels_for, posteriors, takes, tensor
from vae_lib.models import AE
from vae_lib.modes import evaluating
from vae_lib.objectives import log_prior

DIVERGED = "the model or its prior has diverged, or float32 has overflowed"


class KLSplit(NamedTuple):
    """The average KL and its two parts, in nats, with the standard error of the sum of the two parts.

    Neither part's own standard error is larger. Mutual information over num_images images is at most
    ln(num_images): equation (10.2).
    """

    average_kl: float
    mutual_information: float
    kl_to_prior: float
    stderr: float
    num_images: int


@takes(batch_size=integer)
def encode_all(model, x, batch_size=500):
    """The parameters of q(z|x) for every image: mu and log_var, each (N, latent_dim), on the device of x.

    Shapes: x (N, C, H, W). Raises TypeError or ValueError for other types, shapes and ranges and for NaN
    in x, FloatingPointError where the encoder gives NaN.
    """
    check_vae(model, x)
    device = next(model.parameters(), x).device
    with evaluating(model):
        outputs = [model.encoder(images.to(device)) for images in x.split(batch_size)]
    mu, log_var = (torch.cat(output).to(x.device) for output in zip(*outputs, strict=True))
    finite_or_stop({"mu": mu, "log_var": log_var}, DIVERGED)
    return mu, log_var


@takes(block_size=integer)
def log_aggregate_posterior(z, mu, log_var, block_size=64):
    """log q(z) of the aggregate posterior q(z) = 1/N sum_n q(z|x_n), by log-sum-exp, in float64 and nats.

    Shapes: z (S, latent_dim), mu and log_var (N, latent_dim), to (S,). Works on block_size^2 * latent_dim
    numbers at a time. Raises TypeError or ValueError for other types and shapes, and for NaN. Equation (10.1);
    Hoffman & Johnson 2016.
    """
    mu, log_var = posteriors(mu, log_var)
    z = float64("z", z, "S", mu.shape[1])
    log_sums = []
    for z_block in z.split(block_size):
        log_sum = torch.full_like(z_block[:, 0], -torch.inf)
        for mu_block, log_var_block in zip(mu.split(block_size), log_var.split(block_size), strict=True):
            log_qz_given_x = log_normal(z_block[:, None], mu_block, log_var_block)
            log_sum = torch.logaddexp(log_sum, log_qz_given_x.logsumexp(-1))
        log_sums.append(log_sum)
    return torch.cat(log_sums) - math.log(len(mu))


@takes(num_samples=partial(integer, at_least=2), seed=count)
def average_kl_split(mu, log_var, num_samples=1000, seed=0):
    """The average KL(q(z|x_n) || p(z)) over N images, and its two parts: a KLSplit of floats, in nats.

    Shapes: mu and log_var (N, latent_dim). The average KL comes in closed form. The mutual information between image
    and z, E[log q(z|x) - log q(z)], and KL(q(z) || p(z)) = E[log q(z) - log p(z)] are each estimated from
    `num_samples` draws of their own (an image, then its z), so their sum meets it within the standard error only.
    Raises TypeError or ValueError for other types and shapes, and for NaN. Equation (10.1); Hoffman & Johnson 2016.
    """
    mu, log_var = (part.detach() for part in posteriors(mu, log_var))
    generator = torch.Generator(mu.device).manual_seed(seed)

    def draw():
        n = torch.randint(len(mu), (num_samples,), generator=generator, device=mu.device)
        z = reparameterize(mu[n], log_var[n], generator)
        return z, log_normal(z, mu[n], log_var[n]), log_aggregate_posterior(z, mu, log_var)

    z, log_qz_given_x, log_qz = draw()
    information = log_qz_given_x - log_qz
    z, _, log_qz = draw()
    divergence = log_qz - log_prior(z)
    stderr = math.hypot(stderr_of(information), stderr_of(divergence))
    average_kl = kl_to_standard_normal(mu, log_var).mean().item()
    return KLSplit(average_kl, information.mean().item(), divergence.mean().item(), stderr, len(mu))


@takes(threshold=not_negative)
def active_units(mu, threshold=0.01):
    """Which latents the model uses: those whose mean varies over images, Var(E[z|x]) > threshold.

    Shapes: mu (N, latent_dim), N >= 2, to bool (latent_dim,), whose sum is the number of active units. Raises
    TypeError or ValueError for other types and shapes, and for NaN. Burda, Grosse & Salakhutdinov 2016.
    """
    return tensor("mu", mu, "N", "latent_dim", at_least=2).double().var(0) > threshold


def check_model(model):
    """Refuse a model that is no VAE: TypeError."""
    if not (isinstance(model, torch.nn.Module) and hasattr(model, "likelihood")) or isinstance(model, AE):
        raise TypeError(f"model: wanted a VAE, got {type(model).__name__}")


def check_vae(model, x, at_least=1):
    """Refuse a model that is no VAE, and images out of its likelihood's range: TypeError or ValueError."""
    check_model(model)
    pixels_for(model.likelihood, "x", tensor("x", x, "N", "C", "H", "W", at_least=at_least))


def stderr_of(values):
    """The standard error of the mean of independent values (N,), N >= 2."""
    return values.std().item() / math.sqrt(len(values))
