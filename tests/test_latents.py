"""The aggregate posterior, the split of the average KL and active units, against torch.distributions and quadrature."""

import math

import numpy as np
import pytest
import torch
from affine_vae import close, normals
from scipy.integrate import dblquad, quad
from scipy.stats import norm
from sklearn.mixture import GaussianMixture
from torch.distributions import (
    Categorical,
    Independent,
    MixtureSameFamily,
    Normal,
    kl_divergence,
)

from vae_lib.exact import LinearGaussian
from vae_lib.latents import active_units, average_kl_split, log_aggregate_posterior

# The aggregate posterior

MU, LOG_VAR = 1.2 * normals(30, 2), normals(30, 2, seed=1) - 2


@pytest.mark.parametrize("block_size", [1, 7, 64])
def test_aggregate_posterior_equals_the_mixture_of_torch_distributions(block_size):
    z = normals(20, 2, seed=2)
    parts = Independent(Normal(MU, (0.5 * LOG_VAR).exp()), 1)
    expected = MixtureSameFamily(Categorical(torch.ones(30, dtype=torch.float64)), parts).log_prob(z)
    close(log_aggregate_posterior(z, MU, LOG_VAR, block_size), expected, 1e-12)


def test_aggregate_posterior_equals_the_mixture_of_scikit_learn():
    mixture = GaussianMixture(30, covariance_type="diag")
    mixture.weights_, mixture.means_ = np.full(30, 1 / 30), MU.numpy()
    mixture.precisions_cholesky_ = (-0.5 * LOG_VAR).exp().numpy()
    z = normals(20, 2, seed=2)
    close(log_aggregate_posterior(z, MU, LOG_VAR), mixture.score_samples(z.numpy()), 1e-12)


def test_aggregate_posterior_far_from_every_image_stays_finite_and_float32_is_converted():
    z = torch.full((1, 2), 1e4)
    log_qz = log_aggregate_posterior(z, MU.float(), LOG_VAR.float())
    assert log_qz.dtype == torch.float64 and log_qz.isfinite().all() and log_qz < -1e6


def test_aggregate_posterior_integrates_to_one():
    mu, log_var = MU[:9, :1], LOG_VAR[:9, :1]
    density = lambda z: log_aggregate_posterior(torch.tensor([[z]]).double(), mu, log_var).exp().item()
    assert quad(density, -8, 8, points=mu[:, 0].tolist(), limit=200)[0] == pytest.approx(1, abs=1e-8)


POSTERIORS = {"z": torch.zeros(3, 2), "mu": torch.zeros(5, 2), "log_var": torch.zeros(5, 2)}


@pytest.mark.parametrize("options, error, message", [
    ({"mu": [[0.0]]}, TypeError, r"mu: wanted a floating-point .* \(N, latent_dim\), got list"),
    ({"mu": torch.zeros(5)}, ValueError, r"mu: wanted .* got float32 of shape \(5,\)"),
    ({"mu": torch.zeros(5, 2) / 0}, ValueError, "mu: wanted finite numbers"),
    ({"log_var": torch.zeros(5, 2).long()}, TypeError, r"log_var: wanted .* got int64 of shape \(5, 2\)"),
    ({"log_var": torch.zeros(1, 2)}, ValueError, r"log_var: wanted .* shape \(5, 2\), got float32 of shape \(1, 2\)"),
    ({"z": torch.zeros(3)}, ValueError, r"z: wanted .* shape \(S, 2\), got float32 of shape \(3,\)"),
    ({"z": torch.zeros(3, 1)}, ValueError, r"z: wanted .* shape \(S, 2\), got float32 of shape \(3, 1\)"),
    ({"z": torch.full((3, 2), math.inf)}, ValueError, "z: wanted finite numbers"),
    ({"block_size": 0}, ValueError, "block_size: wanted an integer, 1 or more, got 0"),
])
def test_aggregate_posterior_refuses(options, error, message):
    with pytest.raises(error, match=message):
        log_aggregate_posterior(**{**POSTERIORS, **options})


# The split of the average KL

def test_split_of_well_separated_posteriors_has_all_the_information_there_is():
    mu = 100 * torch.arange(8, dtype=torch.float64)[:, None]
    split = average_kl_split(mu, torch.zeros(8, 1), num_samples=50)
    assert split.mutual_information == pytest.approx(math.log(8), abs=1e-12)
    assert split.num_images == 8


def test_split_of_equal_posteriors_has_no_information():
    mu, log_var = torch.tensor([[0.5, -1.0]]).expand(9, 2), torch.tensor([[-1.0, 0.3]]).expand(9, 2)
    split = average_kl_split(mu, log_var, num_samples=20_000)
    assert split.mutual_information == pytest.approx(0, abs=1e-12)
    exact = kl_divergence(Normal(mu, (0.5 * log_var).exp()), Normal(0.0, 1.0)).sum(-1).mean().item()
    assert split.average_kl == pytest.approx(exact, abs=1e-6)
    assert 0 < split.stderr < 0.02
    assert split.kl_to_prior == pytest.approx(exact, abs=4 * split.stderr)


def test_split_equals_quadrature_in_one_dimension():
    mu, std = MU[:6, 0].numpy(), (0.5 * LOG_VAR[:6, 0]).exp().numpy()
    q = lambda z: norm.pdf(z, mu, std).mean()
    split = average_kl_split(MU[:6, :1], LOG_VAR[:6, :1], num_samples=40_000)
    options = {"points": mu, "limit": 400}
    to_prior = quad(lambda z: q(z) * (math.log(q(z)) - norm.logpdf(z)), -6, 6, **options)[0]
    entropy = -quad(lambda z: q(z) * math.log(q(z)), -6, 6, **options)[0]
    information = entropy - np.mean(0.5 * np.log(2 * math.pi * math.e * std**2))
    assert split.average_kl == pytest.approx(to_prior + information, abs=1e-8)
    assert split.stderr < 0.02
    assert split.kl_to_prior == pytest.approx(to_prior, abs=4 * split.stderr)
    assert split.mutual_information == pytest.approx(information, abs=4 * split.stderr)


def test_split_equals_quadrature_in_two_dimensions():
    mu, log_var = [[0.5, -0.2], [-0.8, 0.9]], [[-1.0, 0.2], [-0.3, -1.5]]
    means, stds = np.array(mu), np.exp(0.5 * np.array(log_var))

    def q_log_ratio(second, first):
        z = (first, second)
        density = norm.pdf(z, means, stds).prod(1).mean()
        return density * (math.log(density) + 0.5 * (first**2 + second**2) + math.log(2 * math.pi))

    to_prior = dblquad(q_log_ratio, -8, 8, -8, 8, epsabs=1e-4)[0]
    split = average_kl_split(torch.tensor(mu), torch.tensor(log_var), num_samples=40_000)
    assert split.kl_to_prior == pytest.approx(to_prior, abs=4 * split.stderr)
    assert split.mutual_information == pytest.approx(split.average_kl - to_prior, abs=4 * split.stderr)


def test_split_of_exact_posteriors_has_the_information_of_the_linear_gaussian_model():
    axes, _ = torch.linalg.qr(normals(4, 2))  # orthogonal columns: the posterior is diagonal
    exact = LinearGaussian(axes * torch.tensor([1.5, 0.6]), normals(4, seed=1), 0.5)
    x, _ = exact.sample(4000, torch.Generator().manual_seed(0))
    split = average_kl_split(*exact.best_diagonal_q(x), num_samples=4000)
    information = 0.5 * math.log(1 + 1.5**2 / 0.5) + 0.5 * math.log(1 + 0.6**2 / 0.5)
    assert split.mutual_information == pytest.approx(information, abs=4 * split.stderr)
    assert split.kl_to_prior == pytest.approx(0, abs=4 * split.stderr)  # the aggregate posterior is the prior
    assert split.stderr < 0.02


def test_split_is_no_identity_by_construction_and_holds_within_its_error():
    errors = []
    for seed in range(40):
        split = average_kl_split(MU, LOG_VAR, num_samples=500, seed=seed)
        assert split.mutual_information <= math.log(30)
        errors.append((split.mutual_information + split.kl_to_prior - split.average_kl) / split.stderr)
    assert 0.7 < np.std(errors) < 1.3 and max(np.abs(errors)) < 4
    assert abs(np.mean(errors)) < 4 / math.sqrt(40)


def test_split_depends_on_its_seed_alone():
    state = torch.get_rng_state()
    first = average_kl_split(MU, LOG_VAR, num_samples=10, seed=1)
    assert torch.equal(torch.get_rng_state(), state)
    torch.randn(3)
    assert average_kl_split(MU.clone().requires_grad_(), LOG_VAR, num_samples=10, seed=1) == first
    assert average_kl_split(MU, LOG_VAR, num_samples=10, seed=2) != first
    assert all(isinstance(value, float) for value in first[:4])


@pytest.mark.parametrize("options, error, message", [
    ({"num_samples": 1}, ValueError, "num_samples: wanted an integer, 2 or more, got 1"),
    ({"seed": 0.5}, ValueError, "seed: wanted an integer, 0 or more, got 0.5"),
    ({"mu": torch.zeros(0, 2)}, ValueError, r"mu: wanted .* got float32 of shape \(0, 2\)"),
    ({"log_var": torch.full((5, 2), math.nan)}, ValueError, "log_var: wanted finite numbers"),
])
def test_split_refuses(options, error, message):
    with pytest.raises(error, match=message):
        average_kl_split(**{"mu": torch.zeros(5, 2), "log_var": torch.zeros(5, 2), **options})


# Active units

def test_active_units_equal_numpy_variances():
    mu = normals(500, 4) * torch.tensor([1.0, 0.11, 0.09, 0.0]) + torch.tensor([0.0, 5.0, 5.0, 5.0])
    active = active_units(mu)
    assert active.dtype == torch.bool
    assert active.tolist() == (np.var(mu.numpy(), axis=0, ddof=1) > 0.01).tolist()
    assert active.tolist() == [True, True, False, False]
    assert active_units(mu.float(), threshold=0.5).tolist() == [True, False, False, False]


@pytest.mark.parametrize("options, error, message", [
    ({"mu": np.zeros((5, 2))}, TypeError, r"mu: wanted .* \(N, latent_dim\), N >= 2, got ndarray"),
    ({"mu": torch.zeros(1, 2)}, ValueError, r"mu: wanted .* N >= 2, got float32 of shape \(1, 2\)"),
    ({"mu": torch.full((5, 2), math.nan)}, ValueError, "mu: wanted finite numbers"),
    ({"threshold": -1.0}, ValueError, "threshold: wanted a finite number, 0 or more, got -1.0"),
    ({"threshold": math.nan}, ValueError, "threshold: wanted a finite number, 0 or more, got nan"),
])
def test_active_units_refuses(options, error, message):
    with pytest.raises(error, match=message):
        active_units(**{"mu": torch.zeros(5, 2), **options})
