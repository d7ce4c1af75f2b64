"""The objectives of training: the evidence lower bound, and others beside it (pages 02 and 08 to 12)."""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from vae_lib.gaussian import kl_to_standard_normal, log_normal, reparameterize
from vae_lib.guards import at_least_one, integer, takes, takes_images, takes_pixels
from vae_lib.modes import evaluating


class Bound(NamedTuple):
    """A lower bound on log p(x) and its two parts, each of shape (batch,), in nats.

    Objectives that bound nothing have this form too, with a `kl` of zero, so that `fit` can train on them.
    """

    elbo: Tensor
    log_px_given_z: Tensor
    kl: Tensor


def elbo(model, x, generator=None):
    """Evidence lower bound of each image, from one sample of z and the closed-form KL, in nats.

    Shapes: x (batch, C, H, W) to three tensors (batch,). Equation (2.8), of (2.7); Kingma & Welling 2014,
    equation 10.
    """
    mu, log_var = model.encoder(x)
    z = reparameterize(mu, log_var, generator)
    log_px_given_z = model.likelihood.log_prob(x, model.decoder(z))
    kl = kl_to_standard_normal(mu, log_var)
    return Bound(log_px_given_z - kl, log_px_given_z, kl)


def averaged_elbo(model, x, num_samples, generator=None):
    """The ELBO of each image, averaged over `num_samples` samples of z: no tighter than with one, but less noisy.

    Shapes: x (batch, C, H, W) to three tensors (batch,), in nats. Equation (2.7); Kingma & Welling 2014, equation 7.
    """
    mu, log_var = model.encoder(x)
    z = sample_posterior(mu, log_var, num_samples, generator)
    log_px_given_z = model.likelihood.log_prob(x, model.decoder(z)).mean(0)
    kl = kl_to_standard_normal(mu, log_var)
    return Bound(log_px_given_z - kl, log_px_given_z, kl)


def iwae(model, x, num_samples, generator=None):
    """The importance-weighted bound of each image, log of the mean of `num_samples` weights w = p(x, z) / q(z|x).

    It is at least log_px_given_z - kl, the ELBO from the same samples, in expectation; the two parts come along
    for the record. Shapes: x (batch, C, H, W) to three tensors (batch,), in nats. Equation (11.3); Burda, Grosse &
    Salakhutdinov 2016, equation 8.
    """
    mu, log_var = model.encoder(x)
    z = sample_posterior(mu, log_var, num_samples, generator)
    log_px_given_z = model.likelihood.log_prob(x, model.decoder(z))
    bound = log_mean_exp(log_weights(log_px_given_z, z, mu, log_var))
    return Bound(bound, log_px_given_z.mean(0), kl_to_standard_normal(mu, log_var))


def dreg(model, x, num_samples, generator=None):
    """The bound of `iwae`, with the doubly reparameterized gradient for the encoder: as unbiased, less noisy.

    The encoder's gradient goes through z alone, times one more normalised weight; the decoder's is that of `iwae`.
    Only `elbo` and `kl` have the right gradient: that of `log_px_given_z` would be weighted too.
    Shapes: x (batch, C, H, W) to three tensors (batch,), in nats. Equation (12.2); Tucker et al. 2019, equation 8.
    """
    mu, log_var = model.encoder(x)
    z = sample_posterior(mu, log_var, num_samples, generator)
    log_px_given_z = model.likelihood.log_prob(x, model.decoder(z))
    log_w = log_weights(log_px_given_z, z, mu.detach(), log_var.detach())
    weights = log_w.detach().softmax(0).unsqueeze(-1).to(z)
    if z.requires_grad:
        z.register_hook(lambda gradient: weights * gradient)
    return Bound(log_mean_exp(log_w), log_px_given_z.mean(0), kl_to_standard_normal(mu, log_var))


def resampled_dreg(model, x, num_samples, generator=None):
    """The bound of `dreg`, with a gradient that goes back through one sample an image: as unbiased, cheaper.

    All samples are decoded without gradients; one is drawn with the normalised weights as probabilities, and decoded
    again: num_samples + 3 forward passes' worth of work instead of 3 * num_samples. So the decoder must give the same
    output twice, without dropout, or batch norm in train mode. `log_px_given_z` has no gradient.
    Shapes: x (batch, C, H, W) to three tensors (batch,), in nats. Equation (12.3), of (12.2).
    """
    mu, log_var = model.encoder(x)
    z = sample_posterior(mu, log_var, num_samples, generator)
    with torch.no_grad():
        log_px_given_z = model.likelihood.log_prob(x, model.decoder(z))
        log_w = log_weights(log_px_given_z, z, mu, log_var)
        weights = log_w.softmax(0)
        # multinomial raises on nan; here it shows in the bound
        chosen = torch.multinomial(weights.nan_to_num(1.0).T, 1, generator=generator)[:, 0]
    drawn = chosen, torch.arange(len(x), device=x.device)
    z, weight = z[drawn], weights[drawn].unsqueeze(-1).to(z)
    log_w_drawn = log_weights(model.likelihood.log_prob(x, model.decoder(z)), z, mu.detach(), log_var.detach())
    if z.requires_grad:
        z.register_hook(lambda gradient: weight * gradient)
    bound = log_mean_exp(log_w) + (log_w_drawn - log_w_drawn.detach())
    return Bound(bound, log_px_given_z.mean(0), kl_to_standard_normal(mu, log_var))


def sleep_phase(model, x, generator=None):
    """log q(z|x') of as many pairs as there are images x, each drawn by the model: z ~ p(z), then x' ~ p(x'|z).

    It teaches the encoder alone, with images that never repeat. The decoder draws in eval mode and gets no gradient,
    so p(x) does not change. Of x only the number of images counts, their type and their device. It bounds no log p(x).
    Shapes: x (batch, C, H, W) to three tensors (batch,), in nats. Equation (12.4); Hinton, Dayan, Frey & Neal 1995.
    """
    with evaluating(model):
        z = torch.randn(len(x), model.latent_dim, generator=generator, dtype=x.dtype, device=x.device)
        drawn = model.likelihood.sample(model.decoder(z).to(x.dtype), generator)
    log_qz_given_x = log_normal(z, *model.encoder(drawn))
    return Bound(log_qz_given_x, log_qz_given_x, torch.zeros_like(log_qz_given_x))


def ex_post(prior, x, vae, num_samples=1, generator=None):
    """log r(z), averaged over draws z ~ q(z|x) of each image, for a density r of latents fitted to a trained VAE.

    `prior` has `log_prob`, as the flow has. The VAE, on the device of x, runs in eval mode and gets no gradient: the
    prior alone learns. With r for its prior, the VAE's ELBO is larger by log r(z) - log p(z), on average. The value
    bounds no log p(x).
    Shapes: x (batch, C, H, W) to three tensors (batch,), in nats. Equation (10.4); Ghosh et al. 2020, section 4.
    """
    with evaluating(vae):
        z = sample_posterior(*vae.encoder(x), num_samples, generator)
    log_rz = prior.log_prob(z).mean(0)
    return Bound(log_rz, log_rz, torch.zeros_like(log_rz))


@takes(num_samples=integer)
def sample_posterior(mu, log_var, num_samples, generator=None):
    """`num_samples` samples of z ~ q(z|x) for each image: (batch, latent_dim) to (num_samples, batch, latent_dim).

    Raises ValueError for a num_samples that is not a positive integer.
    """
    shape = (num_samples, *mu.shape)
    return reparameterize(mu.expand(shape), log_var.expand(shape), generator)


def log_weights(log_px_given_z, z, mu, log_var):
    """log w = log p(x|z) + log p(z) - log q(z|x) of each sample z, in nats, with N(0, I) as the prior p(z).

    Shapes: (num_samples, batch), (num_samples, batch, latent_dim) and twice (batch, latent_dim), to (num_samples,
    batch). Equation (11.1).
    """
    log_pz = log_normal(z, torch.zeros_like(z), torch.zeros_like(z))
    return log_px_given_z + log_pz - log_normal(z, mu, log_var)


def log_prior(z, prior=None):
    """log p(z), in nats, of N(0, I) or of a density `prior`, which autocast does not reach: (..., latent_dim) to (...).

    Raises ValueError where the prior's log_prob gives another shape.
    """
    if prior is None:
        return log_normal(z, torch.zeros_like(z), torch.zeros_like(z))
    with torch.autocast(z.device.type, enabled=False):
        log_rz = prior.log_prob(z)
    if log_rz.shape != z.shape[:-1]:
        raise ValueError(f"prior: wanted log_prob to turn shape {tuple(z.shape)} into {tuple(z.shape[:-1])}, "
                         f"got {tuple(log_rz.shape)}")
    return log_rz


def log_ratio(prior, z):
    """log r(z) - log p(z) of a prior r against N(0, I), in the precision of z: (..., latent_dim) to (...)."""
    return log_prior(z, prior) - log_prior(z)


@takes(log_w=at_least_one)
def log_mean_exp(log_w):
    """log of the mean of exp(log_w) over the first dimension, by log-sum-exp. Equation (11.3).

    Shapes: (num_samples, ...) to (...). Raises ValueError where there is no sample.
    """
    return log_w.logsumexp(0) - math.log(len(log_w))


@takes_images
def reconstruction(model, x):
    """The objective of a plain autoencoder: log p(x|z) at its one code z for each image, in nats; it bounds nothing.

    Shapes: x (batch, C, H, W) to three tensors (batch,). Raises TypeError or ValueError for other images. Page 08.
    """
    log_px_given_z = model.likelihood.log_prob(x, model.decoder(model.encoder(x)))
    return Bound(log_px_given_z, log_px_given_z, torch.zeros_like(log_px_given_z))


@takes_pixels
def article_loss(x, output, mu, log_var):
    """The article's loss of each image: the sum of squared errors plus the KL divergence; lower is better.

    Shapes: images (batch, C, H, W), mu and log_var (batch, latent_dim), to (batch,). It equals minus the ELBO of a
    Gaussian decoder of variance 1/2, up to the constant 0.5 * ln(pi) nats a pixel that the article drops: equation
    (6.4).
    """
    squared_error = ((x - output) ** 2).flatten(1).sum(1)
    return squared_error + kl_to_standard_normal(mu, log_var)
