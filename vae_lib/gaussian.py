"""Diagonal Gaussians: log density, Kullback-Leibler divergence, reparameterized samples (pages 00, 04 and 05).

A diagonal Gaussian over `latent_dim` variables is given by two tensors of shape (..., latent_dim): the mean
`mu` and the log-variance `log_var`. Results are summed over that last dimension and come in nats, in float32 where
the tensors are float16 or bfloat16. A distance is measured in standard deviations before it is squared. So a density is
right while exp(-log_var / 2) is finite: for log_var above -177 in float32, and above -1419 in float64. Below it may be
nan; training and evaluation stop there.
"""

import math

import torch

from vae_lib.guards import widened


@widened
def log_normal(x, mu, log_var):
    """Log density log N(x; mu, diag(exp(log_var))), in nats.

    Shapes: (..., latent_dim), broadcast against each other, to (...). Equation (0.1); Bishop 2006, equation 2.43.
    """
    return -0.5 * (math.log(2 * math.pi) + log_var + ((x - mu) * (-0.5 * log_var).exp()) ** 2).sum(-1)


@widened
def kl_to_standard_normal(mu, log_var):
    """Divergence KL(N(mu, diag(exp(log_var))) || N(0, I)), in nats; 0 or more, up to rounding.

    Shapes: (..., latent_dim) to (...). Equation (4.7); Kingma & Welling 2014, appendix B, with the sign turned.
    """
    return 0.5 * (mu**2 + log_var.exp() - log_var - 1).sum(-1)


@widened
def kl_between_normals(mu_q, log_var_q, mu_p, log_var_p):
    """Divergence KL(N(mu_q, diag(exp(log_var_q))) || N(mu_p, diag(exp(log_var_p)))), in nats.

    It is 0 or more, up to rounding. Shapes: (..., latent_dim), broadcast against each other, to (...). Equation (4.10).
    """
    distance = (mu_q - mu_p) * (-0.5 * log_var_p).exp()
    log_ratio = log_var_q - log_var_p
    return 0.5 * (distance**2 + log_ratio.exp() - log_ratio - 1).sum(-1)


def reparameterize(mu, log_var, generator=None):
    """Sample z ~ N(mu, diag(exp(log_var))) as a differentiable function of mu, log_var and standard normal noise.

    Shapes: (..., latent_dim) to (..., latent_dim). Equation (5.2); Kingma & Welling 2014, section 2.4.
    """
    eps = torch.randn_like(mu, generator=generator)
    return mu + (0.5 * log_var).exp() * eps
