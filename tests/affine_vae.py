"""An affine VAE in float64, which is probabilistic PCA under a Gaussian likelihood, for the tests of measuring."""

import torch
from torch import nn

from vae_lib.exact import LinearGaussian
from vae_lib.likelihoods import Gaussian


def normals(*shape, seed=0):
    """Standard normal numbers in float64 from a generator of their own."""
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def close(left, right, atol):
    torch.testing.assert_close(left, torch.as_tensor(right, dtype=torch.float64), rtol=0, atol=atol)


class AffineVAE(nn.Module):
    """A VAE for 1 x 2 x 3 pixels and two latents, affine, in float64: probabilistic PCA when Gaussian."""

    def __init__(self, likelihood):
        super().__init__()
        self.likelihood = likelihood
        self.latent_dim = 2
        self.to_mu, self.to_log_var = nn.Linear(6, 2), nn.Linear(6, 2)
        self.to_output = nn.Linear(2, 6)
        self.norm = nn.BatchNorm1d(2, affine=False)  # evaluation mode makes it (almost) the identity
        self.modes = []
        self.double()
        with torch.no_grad():
            for n, parameter in enumerate(self.parameters()):
                parameter.copy_(0.5 * normals(*parameter.shape, seed=n))

    def encoder(self, x):
        self.modes.append((self.training, self.norm.training, torch.is_grad_enabled()))
        return self.norm(self.to_mu(x.flatten(1))), self.to_log_var(x.flatten(1))

    def decoder(self, z):
        return self.to_output(z).unflatten(-1, (1, 2, 3))


LIKELIHOOD = Gaussian(0.3)
X = 0.5 * normals(50, 1, 2, 3, seed=9)


def affine_vae(likelihood=LIKELIHOOD):
    """The model in training mode, but for one part that is not."""
    model = AffineVAE(likelihood).train()
    model.to_log_var.eval()
    return model


def exact_vae(shift=0.0, widen=0.0):
    """AffineVAE as probabilistic PCA whose q(z|x) is the posterior's mean and variances, moved and widened."""
    model = AffineVAE(LIKELIHOOD)
    exact = LinearGaussian(model.to_output.weight.detach(), model.to_output.bias.detach(), LIKELIHOOD.variance)

    def encoder(x):
        mu, covariance = exact.posterior(x.flatten(1).double())
        return mu + shift, (covariance.diagonal().log() + widen).expand_as(mu)

    model.encoder = encoder
    return model, exact
