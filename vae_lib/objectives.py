"""What training maximises: the evidence lower bound, and other objectives beside it (pages 02, 08 and 09)."""

from typing import NamedTuple

import torch
from torch import Tensor

from vae_lib.gaussian import kl_to_standard_normal, reparameterize


class Bound(NamedTuple):
    """A lower bound on log p(x) and its two parts, each of shape (batch,), in nats."""

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


def reconstruction(model, x):
    """What a plain autoencoder maximises: log p(x|z) at its one code z for each image, in nats; `kl` is zero.

    It has the form of a Bound, so that `fit` can train it, but no q(z|x): it bounds nothing.
    Shapes: x (batch, C, H, W) to three tensors (batch,). Page 08.
    """
    log_px_given_z = model.likelihood.log_prob(x, model.decoder(model.encoder(x)))
    return Bound(log_px_given_z, log_px_given_z, torch.zeros_like(log_px_given_z))


def article_loss(x, output, mu, log_var):
    """The article's loss of each image: the sum of squared errors plus the KL divergence; lower is better.

    Shapes: images (batch, C, H, W), mu and log_var (batch, latent_dim), to (batch,). It equals minus the ELBO of a
    Gaussian decoder of variance 1/2, up to the constant 0.5 * ln(pi) nats a pixel that the article drops: equations
    (6.4) and (9.10).
    """
    squared_error = ((x - output) ** 2).flatten(1).sum(1)
    return squared_error + kl_to_standard_normal(mu, log_var)
