"""The mixture and its EM against torch.distributions, scikit-learn, an enumeration of q, and its own promises."""

import math

import numpy as np
import pytest
import torch
from sklearn.exceptions import ConvergenceWarning
from sklearn.mixture import GaussianMixture
from torch.distributions import Categorical, MixtureSameFamily, MultivariateNormal, kl_divergence

from vae_lib.mixture import Mixture, at_least, m_step


def seeded(seed):
    return torch.Generator().manual_seed(seed)


def normals(*shape, seed=0):
    return torch.randn(shape, dtype=torch.float64, generator=seeded(seed))


def close(left, right, atol):
    torch.testing.assert_close(left, torch.as_tensor(right, dtype=torch.float64), rtol=0, atol=atol)


def random_mixture(num, dim, seed=0):
    """A Mixture with correlated components that overlap."""
    roots = normals(num, dim, dim, seed=seed)
    covariances = roots @ roots.mT + 0.3 * torch.eye(dim, dtype=torch.float64)
    return Mixture(normals(num, seed=seed + 1).softmax(0), 2 * normals(num, dim, seed=seed + 2), covariances)


MODEL = random_mixture(num=3, dim=2)
X = MODEL.sample(150, seeded(5))[0]
Q = normals(150, 3, seed=6).softmax(-1)


def of_torch(model):
    """The same mixture, from torch.distributions."""
    components = MultivariateNormal(model.means, model.covariances)
    return MixtureSameFamily(Categorical(model.weights), components)


# --- The model and its bound

@pytest.mark.parametrize("num, dim", [(3, 2), (1, 4), (5, 1)])
def test_densities_equal_torch_distributions(num, dim):
    model, x = random_mixture(num, dim, seed=num), 3 * normals(40, dim)
    expected = of_torch(model)
    assert model.log_px(x).shape == (40,) and model.log_joint(x).shape == (40, num)
    close(model.log_px(x), expected.log_prob(x), 1e-10)
    log_joint = expected.mixture_distribution.logits + expected.component_distribution.log_prob(x[:, None])
    close(model.log_joint(x), log_joint, 1e-10)
    close(model.responsibilities(x), (log_joint - expected.log_prob(x)[:, None]).exp(), 1e-12)


def test_elbo_and_kl_equal_torch_distributions():
    expected = of_torch(MODEL)
    log_px_given_z = expected.component_distribution.log_prob(X[:, None])
    posterior = Categorical(logits=expected.mixture_distribution.logits + log_px_given_z)
    close(MODEL.kl_to_posterior(X, Q), kl_divergence(Categorical(probs=Q), posterior), 1e-10)
    kl = kl_divergence(Categorical(probs=Q), Categorical(probs=MODEL.weights))
    close(MODEL.elbo(X, Q), (Q * log_px_given_z).sum(-1) - kl, 1e-10)


def test_log_px_is_elbo_plus_kl_for_any_q():
    certain = torch.eye(3, dtype=torch.float64)[torch.arange(150) % 3]  # zeros in q
    for q in (Q, certain, MODEL.responsibilities(X)):
        close(MODEL.elbo(X, q) + MODEL.kl_to_posterior(X, q), MODEL.log_px(X), 1e-10)
        assert (MODEL.kl_to_posterior(X, q) >= -1e-12).all()


@pytest.mark.parametrize("seed", range(20))
def test_the_e_step_makes_the_bound_equal_to_log_px(seed):
    model = random_mixture(num=4, dim=3, seed=seed)
    x = 4 * normals(50, 3, seed=seed)
    q = model.responsibilities(x)
    close(q.sum(-1), torch.ones(50), 1e-12)
    close(model.elbo(x, q), of_torch(model).log_prob(x), 1e-10)


def test_nothing_overflows_far_from_every_component():
    far = torch.tensor([[1e4, -1e4], [0.0, 3e5]], dtype=torch.float64)
    q = MODEL.responsibilities(far)
    assert (of_torch(MODEL).log_prob(far) < -1e6).all() and q.isfinite().all()
    torch.testing.assert_close(MODEL.elbo(far, q), of_torch(MODEL).log_prob(far), rtol=1e-12, atol=0)


def test_samples_have_the_right_moments_and_their_own_stream():
    n, state = 100_000, torch.get_rng_state()
    x, z = MODEL.sample(n, seeded(1))
    assert torch.equal(torch.get_rng_state(), state) and torch.equal(MODEL.sample(n, seeded(1))[0], x)
    assert x.shape == (n, 2) and z.shape == (n,) and x.dtype == torch.float64 and z.dtype == torch.int64
    for k in range(3):
        share = (z == k).double().mean()
        assert (share - MODEL.weights[k]).abs() < 5 * (MODEL.weights[k] / n).sqrt()
        own, count = x[z == k], (z == k).sum()
        covariance = MODEL.covariances[k]
        assert ((own.mean(0) - MODEL.means[k]).abs() < 5 * (covariance.diagonal() / count).sqrt()).all()
        stderr = ((covariance.diagonal()[:, None] * covariance.diagonal() + covariance**2) / count).sqrt()
        assert ((own.T.cov() - covariance).abs() < 5 * stderr).all()


def test_gradients_pass_through_the_model_and_float32_is_taken():
    means, q = MODEL.means.float().requires_grad_(), torch.eye(3)[torch.arange(150) % 3].requires_grad_()
    model = Mixture(MODEL.weights.float(), means, MODEL.covariances.float())
    assert model.log_px(X.float()).dtype == torch.float64
    (model.elbo(X, q) + model.kl_to_posterior(X, q) + model.log_px(X)).sum().backward()
    assert means.grad.isfinite().all() and (means.grad != 0).all() and q.grad.isfinite().all()


# --- EM

@pytest.mark.parametrize("starts", [range(0, 50), range(50, 100)])
def test_log_likelihood_never_falls_over_100_random_starts(starts):
    for seed in starts:
        num, dim = 2 + seed % 4, 1 + seed % 3
        x = random_mixture(3, dim, seed=seed).sample(60, seeded(seed))[0]
        model = Mixture.from_data(x, num, seed=seed)
        values = []
        for _ in range(30):
            values.append(of_torch(model).log_prob(x).sum().item())
            model = model.em_step(x)
        rises = np.diff(values)
        assert (rises >= -1e-9 * abs(values[0])).all(), (seed, rises.min())
        assert values[-1] > values[0] + 1e-3


def test_em_is_coordinate_ascent_on_the_bound():
    model = Mixture.from_data(X, 3, seed=2)
    before = model.elbo(X, Q).sum()
    for _ in range(10):
        q = model.responsibilities(X)
        after_e = model.elbo(X, q).sum()
        better = m_step(X, q)
        after_m = better.elbo(X, q).sum()
        assert before <= after_e + 1e-9 and after_e < after_m <= better.log_px(X).sum()
        step = model.em_step(X)
        assert torch.equal(step.means, better.means) and torch.equal(step.covariances, better.covariances)
        model, before = better, after_m


@pytest.mark.parametrize("min_variance", [1e-6, 2.2])  # at 2.2 the guard holds a variance up
def test_no_other_mixture_has_a_higher_bound_than_that_of_the_m_step(min_variance):
    best = m_step(X, Q, min_variance)
    smallest = torch.linalg.eigvalsh(best.covariances)[:, 0]
    assert ((smallest - 2.2).abs() < 1e-12).any() == (min_variance == 2.2)
    assert (smallest > min_variance - 1e-12).all()
    bound = best.elbo(X, Q).sum()
    for seed in range(50):
        for scale in (1e-3, 0.1):
            weights = (best.weights.log() + scale * normals(3, seed=seed)).softmax(0)
            means = best.means + scale * normals(3, 2, seed=seed + 1)
            twist = scale * normals(3, 2, 2, seed=seed + 2)
            for parameters in ((weights, best.means, best.covariances), (best.weights, means, best.covariances),
                               (best.weights, best.means, at_least(best.covariances + twist + twist.mT,
                                                                   min_variance))):
                assert Mixture(*parameters).elbo(X, Q).sum() < bound


@pytest.mark.filterwarnings("ignore", category=ConvergenceWarning)
@pytest.mark.parametrize("num, dim", [(3, 2), (2, 1), (4, 3)])
def test_one_em_step_equals_that_of_scikit_learn(num, dim):
    x = random_mixture(3, dim, seed=9).sample(200, seeded(0))[0]
    start = Mixture.from_data(x, num, seed=1)
    reference = GaussianMixture(
        num, reg_covar=0, max_iter=1, weights_init=start.weights, means_init=start.means,
        precisions_init=torch.linalg.inv(start.covariances)).fit(x.numpy())
    step = start.em_step(x)
    close(step.weights, reference.weights_, 1e-12)
    close(step.means, reference.means_, 1e-10)
    close(step.covariances, reference.covariances_, 1e-10)
    close(step.log_px(x), reference.score_samples(x.numpy()), 1e-9)
    close(step.responsibilities(x), reference.predict_proba(x.numpy()), 1e-9)


def test_a_start_is_drawn_from_the_data_by_its_seed():
    model = Mixture.from_data(X, 4, seed=3)
    assert torch.equal(model.weights, torch.full((4,), 0.25, dtype=torch.float64))
    assert all((X == mean).all(1).any() for mean in model.means) and len(model.means.unique(dim=0)) == 4
    close(model.covariances, torch.from_numpy(np.cov(X.numpy().T, bias=True)).expand(4, 2, 2), 1e-12)
    assert torch.equal(Mixture.from_data(X, 4, seed=3).means, model.means)
    assert not torch.equal(Mixture.from_data(X, 4, seed=4).means, model.means)
    assert torch.equal(Mixture.from_data(X, 4).means, Mixture.from_data(X, 4, seed=0).means)


def test_the_smallest_variance_is_that_given_and_a_millionth_otherwise():
    flat, one, eye = torch.zeros(5, 2).double(), torch.ones(5, 1), torch.eye(2).double()
    for options, expected in ((dict(min_variance=0.3), 0.3), ({}, 1e-6)):
        start = Mixture.from_data(flat, 1, **options)
        for model in (start, start.em_step(flat, **options), m_step(flat, one, **options)):
            close(model.covariances[0], expected * eye, 1e-15)


# --- Guards

def test_a_component_that_closes_in_on_one_point_keeps_the_smallest_variance():
    x = torch.tensor([[-1.0], [-0.5], [0.0], [0.7], [50.0]], dtype=torch.float64)
    model, values = Mixture.from_data(x, 2, seed=0), []
    for _ in range(60):
        values.append(model.log_px(x).sum().item())
        model = model.em_step(x, min_variance=1e-4)
    assert model.covariances.min().item() == pytest.approx(1e-4, rel=1e-9)
    assert model.means.max().item() == pytest.approx(50.0) and model.weights.min().item() == pytest.approx(0.2)
    assert (np.diff(values) >= -1e-9).all()


def test_points_on_a_line_get_a_covariance_that_has_an_inverse():
    x = torch.stack([torch.arange(6.0), 2 * torch.arange(6.0)], 1)
    whole = m_step(x, torch.ones(6, 1), min_variance=1e-3)
    close(torch.linalg.eigvalsh(whole.covariances)[0], [1e-3, 5 * 35 / 12], 1e-12)
    assert whole.log_px(x).isfinite().all()


def test_a_component_that_no_point_has_a_part_in_gets_weight_zero_and_stays_there():
    q = torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]], dtype=torch.float64)[torch.arange(150) % 2]
    model = m_step(X, q)
    assert model.weights.tolist() == [0.5, 0.5, 0.0]
    close(model.means[2], X.mean(0), 1e-12)
    close(model.covariances[2], torch.from_numpy(np.cov(X.numpy().T, bias=True)), 1e-12)
    two = Mixture(model.weights[:2], model.means[:2], model.covariances[:2])
    close(model.log_px(X), two.log_px(X), 1e-12)
    close(model.elbo(X, q), two.elbo(X, q[:, :2]), 1e-12)
    assert model.em_step(X).weights[2] == 0
    assert (model.log_joint(X)[:, 2] == -torch.inf).all() and model.log_joint(X)[:, :2].isfinite().all()
    assert (model.kl_to_posterior(X, q) - two.kl_to_posterior(X, q[:, :2])).abs().max() < 1e-12
    assert (model.kl_to_posterior(X, Q) == torch.inf).all() and (model.elbo(X, Q) == -torch.inf).all()
    close(model.em_step(X).log_px(X), two.em_step(X).log_px(X), 1e-10)


def test_gradients_pass_by_a_component_that_no_point_has_a_part_in():
    q = torch.tensor([[0.4, 0.6, 0.0]], dtype=torch.float64).repeat(150, 1).requires_grad_()
    m_step(X, q).means.sum().backward()
    assert q.grad.isfinite().all()


def test_shares_too_small_to_square_do_no_harm():
    q = torch.tensor([[1.0, 1e-310]], dtype=torch.float64).expand(150, 2)
    model = m_step(X, q)
    close(model.means[1], X.mean(0), 1e-8)
    assert model.log_px(X).isfinite().all()


def test_a_variance_that_is_large_enough_stays_as_it_is():
    covariances = MODEL.covariances
    assert at_least(covariances, 1e-6) is covariances
    smallest = 0.25 * torch.eye(2).double()
    assert at_least(smallest, 0.25) is smallest


# --- Rejected inputs

EYE = torch.eye(2).expand(3, 2, 2)
THIRDS = torch.full((3,), 1 / 3)


@pytest.mark.parametrize("weights, means, covariances, error, message", [
    ([0.5, 0.5], torch.zeros(2, 1), torch.ones(2, 1, 1), TypeError, r"weights: wanted .* \(2\), got list"),
    (THIRDS[:2], torch.zeros(3, 2), EYE, ValueError, r"weights: .* shape \(3\), got float32 of shape \(2,\)"),
    (THIRDS * 1.1, torch.zeros(3, 2), EYE, ValueError, "weights: wanted numbers, 0 or more, that sum to one"),
    (torch.tensor([1.5, -0.5, 0]), torch.zeros(3, 2), EYE, ValueError, "weights: .* got -0.5 to 1.5"),
    (THIRDS, torch.zeros(3), EYE, ValueError, r"means: .* shape \(K, D\), got float32 of shape \(3,\)"),
    (THIRDS, torch.zeros(3, 2).long(), EYE, TypeError, "means: .* got int64"),
    (THIRDS, torch.full((3, 2), math.nan), EYE, ValueError, "means: wanted finite numbers"),
    (THIRDS, torch.zeros(3, 2), torch.ones(3, 2), ValueError, r"covariances: .* shape \(3, 2, 2\), got float32"),
    (THIRDS, torch.zeros(3, 2), EYE * 0, ValueError,
     r"^covariances: wanted symmetric positive definite matrices, got \[\[0.0, 0.0\], \[0.0, 0.0\]\]$"),
    (THIRDS, torch.zeros(3, 2), -EYE, ValueError, "covariances: wanted symmetric positive definite"),
    (THIRDS, torch.zeros(3, 2), EYE + torch.tensor([[0, 0.5], [0, 0]]), ValueError, "covariances: wanted symm"),
    (THIRDS, torch.zeros(3, 2), EYE * torch.tensor([1, 1, -2.0])[:, None, None], ValueError, r"got \[\[-2.0, -?0.0\]"),
])
def test_a_mixture_refuses(weights, means, covariances, error, message):
    with pytest.raises(error, match=message):
        Mixture(weights, means, covariances)


@pytest.mark.parametrize("call, error, message", [
    (lambda: MODEL.log_px(X[:, :1]), ValueError, r"x: wanted .* shape \(N, 2\), got float64 of shape \(150, 1\)"),
    (lambda: MODEL.responsibilities(X.numpy()), TypeError, "x: wanted .* got ndarray"),
    (lambda: MODEL.elbo(X, Q[:, :2]), ValueError, r"q: .* shape \(150, 3\), got float64 of shape \(150, 2\)"),
    (lambda: MODEL.elbo(X, 2 * Q), ValueError, "q: wanted numbers, 0 or more, that sum to one, got"),
    (lambda: MODEL.kl_to_posterior(X, Q[:5]), ValueError, r"q: .* got float64 of shape \(5, 3\)"),
    (lambda: MODEL.kl_to_posterior(X, Q - 0.5), ValueError, "q: wanted numbers, 0 or more"),
    (lambda: m_step(X, Q[:5]), ValueError, r"q: .* shape \(150, K\), got float64 of shape \(5, 3\)"),
    (lambda: m_step(X[0], Q), ValueError, r"x: .* shape \(N, D\), got float64 of shape \(2,\)"),
    (lambda: m_step(X, Q, 0.0), ValueError, "min_variance: wanted a positive finite number, got 0.0"),
    (lambda: MODEL.em_step(X, math.nan), ValueError, "min_variance: .* got nan"),
    (lambda: MODEL.sample(0), ValueError, "^num: wanted an integer, 1 or more, got 0"),
    (lambda: Mixture.from_data(X[0], 2), ValueError, r"x: .* shape \(N, D\), got float64 of shape \(2,\)"),
    (lambda: Mixture.from_data(X, 0), ValueError, "num_components: wanted an integer, 1 to 150, got 0"),
    (lambda: Mixture.from_data(X, 151), ValueError, "num_components: .* got 151"),
    (lambda: Mixture.from_data(X, 2.0), ValueError, "num_components: .* got 2.0"),
    (lambda: Mixture.from_data(X * math.inf, 2), ValueError, "x: wanted finite numbers"),
])
def test_methods_refuse(call, error, message):
    with pytest.raises(error, match=message):
        call()
