"""The bound's two parts, recomputed with torch.distributions; its mean against an exact integral."""

import math
from types import SimpleNamespace

import torch
from scipy.integrate import quad
from torch.distributions import Independent, Normal, kl_divergence

from vae_lib.decoders import Bernoulli, Gaussian
from vae_lib.objectives import article_loss, elbo, reconstruction

X = torch.bernoulli(torch.full((9, 1, 4, 4), 0.4, dtype=torch.float64), generator=torch.Generator().manual_seed(0))


def small_model(likelihood):
    """A model with fixed random affine maps, in float64: (N, 1, 4, 4) to three latents and back."""
    weights = torch.randn(3, 16, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(3)) / 4
    encoder = lambda x: (x.flatten(1) @ weights[0], x.flatten(1) @ weights[1])
    decoder = lambda z: (z @ weights[2].T).unflatten(-1, (1, 4, 4))
    return SimpleNamespace(encoder=encoder, decoder=decoder, likelihood=likelihood)


def test_elbo_is_its_two_parts_recomputed_by_torch_distributions():
    model = small_model(Bernoulli())
    bound = elbo(model, X, torch.Generator().manual_seed(5))
    mu, log_var = model.encoder(X)
    q = Independent(Normal(mu, (0.5 * log_var).exp()), 1)
    kl = kl_divergence(q, Independent(Normal(torch.zeros_like(mu), torch.ones_like(mu)), 1))
    eps = torch.randn(9, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(5))
    logits = model.decoder(mu + (0.5 * log_var).exp() * eps)
    log_px_given_z = Independent(torch.distributions.Bernoulli(logits=logits), 3).log_prob(X)
    torch.testing.assert_close(bound.kl, kl)
    torch.testing.assert_close(bound.log_px_given_z, log_px_given_z)
    torch.testing.assert_close(bound.elbo, log_px_given_z - kl)
    assert bound.elbo.shape == (9,)


def test_the_mean_of_many_elbos_is_the_exact_elbo():
    """One pixel, one latent: the expectation under q by quadrature."""
    model = SimpleNamespace(encoder=lambda x: (x.flatten(1) * 0.5, x.flatten(1) * 0 - 1), likelihood=Gaussian(0.3),
                            decoder=lambda z: z.sin().unflatten(-1, (1, 1, 1)))
    x = torch.full((200_000, 1, 1, 1), 0.8, dtype=torch.float64)
    bound = elbo(model, x, torch.Generator().manual_seed(7)).elbo
    q = Normal(torch.tensor(0.4, dtype=torch.float64), math.exp(-0.5))
    def integrand(z):
        z = torch.tensor(z, dtype=torch.float64)
        log_joint = Normal(z.sin(), 0.3**0.5).log_prob(x[0, 0, 0, 0]) + Normal(0.0, 1.0).log_prob(z)
        return (q.log_prob(z).exp() * (log_joint - q.log_prob(z))).item()
    exact = quad(integrand, -8, 9)[0]
    assert abs(bound.mean().item() - exact) < 4 * bound.std().item() / 200_000**0.5 < 0.01


def test_article_loss_is_minus_the_elbo_up_to_its_dropped_constant():
    model = small_model(Gaussian(0.5))
    bound = elbo(model, X, torch.Generator().manual_seed(5))
    mu, log_var = model.encoder(X)
    z = mu + (0.5 * log_var).exp() * torch.randn(9, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(5))
    loss = article_loss(X, model.decoder(z), mu, log_var)
    torch.testing.assert_close(loss, -bound.elbo - 16 * 0.5 * math.log(math.pi))


def test_reconstruction_is_the_density_at_the_code_and_has_no_kl():
    model = small_model(Gaussian(0.5))
    model.encoder = lambda x, encode=model.encoder: encode(x)[0]
    bound = reconstruction(model, X)
    expected = Independent(Normal(model.decoder(model.encoder(X)), 0.5**0.5), 3).log_prob(X)
    torch.testing.assert_close(bound.elbo, expected)
    torch.testing.assert_close(bound.log_px_given_z, expected)
    assert torch.equal(bound.kl, torch.zeros(9, dtype=torch.float64))
