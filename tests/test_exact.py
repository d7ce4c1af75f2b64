"""The solvable models against torch.distributions, scikit-learn, scipy's optimiser and its quadrature."""

import math

import numpy as np
import pytest
import torch
from scipy.integrate import nquad, quad
from scipy.optimize import minimize
from scipy.stats import norm
from sklearn.decomposition import PCA
from torch.distributions import MultivariateNormal, Normal, kl_divergence

from vae_lib.exact import LinearGaussian, NonlinearModel, linear_vae


def normals(*shape, seed=0):
    """Standard normal numbers in float64 from a generator of their own."""
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def linear(data_dim, latent_dim, variance, seed=0):
    """A LinearGaussian with random parameters."""
    weight, bias = normals(data_dim, latent_dim, seed=seed), normals(data_dim, seed=seed + 1)
    return LinearGaussian(weight, bias, variance)


def close(left, right, atol):
    torch.testing.assert_close(left, torch.as_tensor(right, dtype=torch.float64), rtol=0, atol=atol)


def log_normal(x, mu, variance):
    """The log density of one number, from the standard library alone."""
    return -0.5 * ((x - mu) ** 2 / variance + math.log(2 * math.pi * variance))


MODEL = linear(data_dim=5, latent_dim=3, variance=0.4)
X = 2 * normals(40, 5, seed=2)
MU, LOG_VAR = normals(40, 3, seed=3), normals(40, 3, seed=4)


# --- The linear-Gaussian model

def marginal(model):
    """p(x), from torch."""
    noise = torch.full_like(model.bias, model.variance).diag()
    return MultivariateNormal(model.bias, model.weight @ model.weight.T + noise)


def test_linear_log_px_equals_torch_distributions():
    assert MODEL.log_px(X).shape == (40,)
    close(MODEL.log_px(X), marginal(MODEL).log_prob(X), 1e-10)


def test_linear_log_joint_equals_torch_distributions_and_broadcasts():
    z = normals(7, 1, 3, seed=5)
    likelihood = Normal(z @ MODEL.weight.T + MODEL.bias, MODEL.variance**0.5)
    expected = likelihood.log_prob(X).sum(-1) + Normal(0.0, 1.0).log_prob(z).sum(-1)
    assert MODEL.log_joint(X, z).shape == (7, 40)
    close(MODEL.log_joint(X, z), expected, 1e-10)


def test_linear_posterior_equals_conditioning_the_joint_gaussian():
    gain = MODEL.weight.T @ marginal(MODEL).precision_matrix
    mean, covariance = MODEL.posterior(X)
    close(mean, (X - MODEL.bias) @ gain.T, 1e-12)
    close(covariance, torch.eye(3, dtype=torch.float64) - gain @ MODEL.weight, 1e-12)
    close(MODEL.precision() @ covariance, torch.eye(3, dtype=torch.float64), 1e-12)


def test_linear_log_joint_splits_into_evidence_and_posterior():
    z = normals(40, 3, seed=5)
    log_posterior = MultivariateNormal(*MODEL.posterior(X)).log_prob(z)
    close(MODEL.log_joint(X, z), marginal(MODEL).log_prob(X) + log_posterior, 1e-10)


def test_linear_kl_to_posterior_equals_torch_distributions():
    q = MultivariateNormal(MU, torch.diag_embed(LOG_VAR.exp()))
    expected = kl_divergence(q, MultivariateNormal(*MODEL.posterior(X)))
    close(MODEL.kl_to_posterior(X, MU, LOG_VAR), expected, 1e-10)


def test_linear_elbo_equals_the_trace_formula_of_torch_distributions():
    q = MultivariateNormal(MU, torch.diag_embed(LOG_VAR.exp()))
    prior = MultivariateNormal(torch.zeros(3, dtype=torch.float64), torch.eye(3, dtype=torch.float64))
    noise = MultivariateNormal(torch.zeros(5, dtype=torch.float64), 0.4 * torch.eye(5, dtype=torch.float64))
    spread = torch.einsum("di,nij,dj->n", MODEL.weight, q.covariance_matrix, MODEL.weight)
    expected = noise.log_prob(X - MU @ MODEL.weight.T - MODEL.bias) - spread / 0.8 - kl_divergence(q, prior)
    close(MODEL.elbo(X, MU, LOG_VAR), expected, 1e-10)


@pytest.mark.parametrize("data_dim, latent_dim, variance", [
    (1, 1, 1), (3, 2, 0.1), (2, 4, 2.5), (20, 6, 0.1),
])
def test_linear_log_px_is_elbo_plus_kl(data_dim, latent_dim, variance):
    model = linear(data_dim, latent_dim, variance, seed=data_dim)
    x, _ = model.sample(100, torch.Generator().manual_seed(0))
    mu, log_var = model.posterior(x)[0] + 0.3 * normals(100, latent_dim), normals(100, latent_dim, seed=1) - 1
    gap = model.kl_to_posterior(x, mu, log_var)
    assert (gap > 0).all()
    close(model.elbo(x, mu, log_var) + gap, model.log_px(x), 1e-10)


@pytest.mark.parametrize("latent_dim", [1, 2])
def test_linear_model_equals_brute_force_quadrature(latent_dim):
    weight, bias, variance = [[0.8, -0.5], [-1.1, 0.3]], [0.2, -0.5], 0.6
    weight = [row[:latent_dim] for row in weight]
    x, mu, log_var = [0.9, -1.7], [0.4, -0.2][:latent_dim], [-1.1, 0.3][:latent_dim]
    model = LinearGaussian(*(torch.tensor(v, dtype=torch.float64) for v in (weight, bias)), variance)
    tensors = [torch.tensor([values], dtype=torch.float64) for values in (x, mu, log_var)]

    def log_joint(*z):
        means = [sum(w * u for w, u in zip(row, z)) + b for row, b in zip(weight, bias)]
        return sum(log_normal(v, m, variance) for v, m in zip(x, means)) + sum(log_normal(u, 0, 1) for u in z)

    def log_q(*z):
        return sum(log_normal(u, m, math.exp(v)) for u, m, v in zip(z, mu, log_var))

    def integral(f):
        return nquad(f, [(-9, 9)] * latent_dim, opts={"epsabs": 1e-9, "epsrel": 1e-9})[0]

    log_px = math.log(integral(lambda *z: math.exp(log_joint(*z))))
    elbo = integral(lambda *z: math.exp(log_q(*z)) * (log_joint(*z) - log_q(*z)))
    first_mean = integral(lambda *z: math.exp(log_joint(*z) - log_px) * z[0])
    first_square = integral(lambda *z: math.exp(log_joint(*z) - log_px) * z[0] ** 2)
    gap = integral(lambda *z: math.exp(log_q(*z)) * (log_q(*z) - (log_joint(*z) - log_px)))
    mean, covariance = model.posterior(tensors[0])
    assert model.log_px(tensors[0]).item() == pytest.approx(log_px, abs=1e-8)
    assert model.elbo(*tensors).item() == pytest.approx(elbo, abs=1e-8)
    assert model.kl_to_posterior(*tensors).item() == pytest.approx(gap, abs=1e-8)
    assert mean[0, 0].item() == pytest.approx(first_mean, abs=1e-8)
    assert covariance[0, 0].item() == pytest.approx(first_square - first_mean**2, abs=1e-8)


@pytest.mark.parametrize("latent_dim", [1, 2])
def test_the_gap_and_its_two_parts_equal_sums_over_a_grid(latent_dim):
    """In NumPy: log p(x), the bound of q and the best diagonal q, found by a search, by trapezoidal sums."""
    generator = np.random.default_rng(latent_dim)
    weight, bias = generator.normal(size=(3, latent_dim)), generator.normal(size=3)
    axes = np.meshgrid(*[np.linspace(-9, 9, 181)] * latent_dim, indexing="ij")
    z, cell = np.stack([axis.ravel() for axis in axes], -1), (18 / 180) ** latent_dim
    model = LinearGaussian(torch.tensor(weight), torch.tensor(bias), 0.7)

    def bound(q):
        log_q = norm.logpdf(z, q[:latent_dim], np.exp(0.5 * np.array(q[latent_dim:]))).sum(-1)
        return cell * (np.exp(log_q) * (log_joint - log_q)).sum()

    for x in 1.5 * generator.normal(size=(3, 3)):
        q = generator.normal(size=2 * latent_dim) * 0.5 - 0.3
        log_joint = norm.logpdf(x, z @ weight.T + bias, math.sqrt(0.7)).sum(-1) + norm.logpdf(z).sum(-1)
        log_px = math.log(cell * np.exp(log_joint).sum())
        highest = -minimize(lambda q: -bound(q), q, method="BFGS", options={"gtol": 1e-6}).fun
        approximation_gap, amortization_gap = log_px - highest, highest - bound(q)
        assert amortization_gap > 0.01 and (approximation_gap > 0.01 or latent_dim == 1)

        at_x, mu, log_var = (torch.tensor(v)[None] for v in (x, q[:latent_dim], q[latent_dim:]))
        best = model.best_diagonal_q(at_x)
        assert model.log_px(at_x).item() == pytest.approx(log_px, abs=1e-8)
        assert model.elbo(at_x, mu, log_var).item() == pytest.approx(bound(q), abs=1e-8)
        assert model.kl_to_posterior(at_x, mu, log_var).item() == pytest.approx(log_px - bound(q), abs=1e-8)
        assert model.kl_to_posterior(at_x, *best).item() == pytest.approx(approximation_gap, abs=1e-8)
        difference = model.elbo(at_x, *best) - model.elbo(at_x, mu, log_var)
        assert difference.item() == pytest.approx(amortization_gap, abs=1e-8)


def test_best_diagonal_q_equals_a_numerical_minimum():
    model, x = linear(4, 2, 0.3, seed=7), normals(1, 4)
    posterior = MultivariateNormal(model.posterior(x)[0][0], model.posterior(x)[1])

    def divergence(parameters):
        mu, log_var = torch.tensor(parameters[:2]), torch.tensor(parameters[2:])
        return kl_divergence(MultivariateNormal(mu, log_var.exp().diag()), posterior).item()

    found = minimize(divergence, np.zeros(4), method="BFGS", options={"gtol": 1e-7})
    mu, log_var = model.best_diagonal_q(x)
    assert mu.shape == log_var.shape == (1, 2)
    close(torch.cat([mu, log_var], 1)[0], found.x, 1e-5)
    assert model.kl_to_posterior(x, mu, log_var).item() == pytest.approx(found.fun, abs=1e-9)
    assert found.fun > 0.01  # the latents are correlated, so a gap remains


def test_best_diagonal_q_leaves_no_gap_when_the_posterior_is_diagonal():
    model = LinearGaussian(torch.diag(torch.tensor([1.5, -0.2])), torch.zeros(2), 0.3)
    x = normals(5, 2)
    close(model.elbo(x, *model.best_diagonal_q(x)), model.log_px(x), 1e-12)


def test_linear_model_equals_probabilistic_pca_of_scikit_learn():
    data = MODEL.sample(500, torch.Generator().manual_seed(1))[0]
    pca = PCA(n_components=3, svd_solver="full").fit(data.numpy())
    scale = np.sqrt(pca.explained_variance_ - pca.noise_variance_)
    weight, bias = torch.tensor(pca.components_.T * scale), torch.tensor(pca.mean_)
    model = LinearGaussian(weight, bias, float(pca.noise_variance_))
    close(model.log_px(data), pca.score_samples(data.numpy()), 1e-9)


def test_linear_samples_have_the_right_moments_and_their_own_stream():
    n = 100_000
    state = torch.get_rng_state()
    x, z = MODEL.sample(n, torch.Generator().manual_seed(1))
    assert torch.equal(torch.get_rng_state(), state)
    assert x.shape == (n, 5) and z.shape == (n, 3) and x.dtype == z.dtype == torch.float64
    covariance = marginal(MODEL).covariance_matrix
    assert ((x.mean(0) - MODEL.bias).abs() < 5 * (covariance.diagonal() / n).sqrt()).all()
    stderr = ((covariance.diagonal()[:, None] * covariance.diagonal() + covariance**2) / n).sqrt()
    assert ((x.T.cov() - covariance).abs() < 5 * stderr).all()
    noise = x - z @ MODEL.weight.T - MODEL.bias
    assert ((noise.var(0) - 0.4).abs() < 5 * 0.4 * math.sqrt(2 / n)).all()
    assert torch.equal(MODEL.sample(n, torch.Generator().manual_seed(1))[0], x)


def test_linear_model_passes_gradients_and_takes_float32():
    weight, bias, x = torch.randn(5, 3), torch.randn(5), torch.randn(4, 5)
    weight.requires_grad_()
    model = LinearGaussian(weight, bias, 1)
    assert model.log_px(x).dtype == torch.float64
    mu, log_var = model.best_diagonal_q(x)
    (model.elbo(x, mu.detach(), log_var.detach()) + model.kl_to_posterior(x, mu, log_var)).sum().backward()
    assert weight.grad.isfinite().all() and (weight.grad != 0).all()


DATA = MODEL.sample(300, torch.Generator().manual_seed(1))[0]
EIGENVALUES = np.linalg.eigvalsh(np.cov(DATA.numpy().T, bias=True))[::-1].copy()


@pytest.mark.parametrize("latent_dim", [1, 3, 4])
def test_maximum_likelihood_equals_scikit_learn(latent_dim):
    """Whose PCA divides by N - 1, so it is given data as much closer to their mean."""
    model, shrink = LinearGaussian.maximum_likelihood(DATA, latent_dim), math.sqrt(299 / 300)
    closer = DATA.mean(0) + shrink * (DATA - DATA.mean(0))
    pca = PCA(n_components=latent_dim, svd_solver="full").fit(closer.numpy())
    assert model.variance == pytest.approx(pca.noise_variance_, abs=1e-12)
    close(marginal(model).covariance_matrix, pca.get_covariance(), 1e-10)
    close(model.log_px(DATA), pca.score_samples(DATA.numpy()), 1e-9)
    assert model.log_px(DATA).mean().item() == pytest.approx(pca.score(DATA.numpy()), abs=1e-10)
    unscaled = PCA(n_components=latent_dim).fit(DATA.numpy())
    assert model.variance == pytest.approx(unscaled.noise_variance_ * 299 / 300, abs=1e-12)
    assert model.log_px(DATA).mean().item() > unscaled.score(DATA.numpy())


@pytest.mark.parametrize("latent_dim, variance", [(2, None), (1, 0.3), (3, 1.0), (3, 3.0), (5, 0.45), (2, 100)])
def test_maximum_likelihood_is_where_gradient_ascent_ends(latent_dim, variance):
    weight, bias = 0.5 * normals(5, latent_dim, seed=8), normals(5, seed=9)
    log_var = torch.tensor(0.0 if variance is None else math.log(variance), dtype=torch.float64)
    free = [weight.requires_grad_(), bias.requires_grad_()]
    free += [log_var.requires_grad_()] if variance is None else []
    optimizer = torch.optim.LBFGS(free, max_iter=2000, tolerance_grad=1e-9, tolerance_change=0,
                                  line_search_fn="strong_wolfe")

    def loss():
        optimizer.zero_grad()
        covariance = weight @ weight.T + log_var.exp() * torch.eye(5, dtype=torch.float64)
        value = -MultivariateNormal(bias, covariance).log_prob(DATA).mean()
        value.backward()
        return value

    optimizer.step(loss)
    model = LinearGaussian.maximum_likelihood(DATA, latent_dim, variance)
    best = model.log_px(DATA).mean().item()
    assert best == pytest.approx(-loss().item(), abs=1e-8)
    close(model.weight @ model.weight.T, (weight @ weight.T).detach(), 1e-3)
    assert model.variance == pytest.approx(log_var.exp().item(), abs=1e-5)


def test_directions_below_a_stated_variance_collapse():
    for latent_dim in (2, 5):
        for variance in (*(0.5 * (EIGENVALUES[1:] + EIGENVALUES[:-1])), 0.01, 1000):
            model = LinearGaussian.maximum_likelihood(DATA, latent_dim, float(variance))
            lengths = (model.weight**2).sum(0)
            expected = np.maximum(EIGENVALUES[:latent_dim] - variance, 0)
            close(lengths, expected.copy(), 1e-10)
            assert ((lengths == 0).numpy() == (EIGENVALUES[:latent_dim] < variance)).all()
            close(model.bias, DATA.mean(0), 1e-12)
            off_diagonal = model.precision() - model.precision().diagonal().diag()
            close(off_diagonal, torch.zeros_like(off_diagonal), 1e-10)  # so a diagonal q is exact
            close(model.elbo(DATA, *model.best_diagonal_q(DATA)), model.log_px(DATA), 1e-10)


@pytest.mark.parametrize("x, latent_dim, variance, error, message", [
    (DATA.numpy(), 2, None, TypeError, r"x: wanted a floating-point .* \(N, D\), got ndarray"),
    (DATA[0], 2, None, ValueError, r"x: .* got float64 of shape \(5,\)"),
    (DATA[:1], 2, 1.0, ValueError, r"x: wanted at least 2 points, got shape \(1, 5\)"),
    (DATA[:, :1], 1, None, ValueError, "x: wanted points of at least 2 numbers, or a stated variance, got"),
    (DATA[:2, :1], 1, None, ValueError, "x: wanted points of at least 2 numbers, or a stated variance, got"),
    (DATA * math.nan, 2, None, ValueError, "x: wanted finite numbers"),
    (DATA, 0, None, ValueError, "latent_dim: wanted an integer, 1 to 4, got 0"),
    (DATA, 5, None, ValueError, "latent_dim: wanted an integer, 1 to 4, got 5"),
    (DATA, 6, 0.1, ValueError, "latent_dim: wanted an integer, 1 to 5, got 6"),
    (DATA, 2.0, None, ValueError, "latent_dim: .* got 2.0"),
    (DATA, 2, 0.0, ValueError, "variance: wanted a positive finite number, got 0.0"),
    (DATA[:3], 2, None, ValueError, "x: wanted more than 2 directions that vary, or a stated variance, got "
     "a mean variance of .* in the other directions"),
    (torch.ones(4, 3), 1, None, ValueError, "x: wanted more than 1 directions that vary"),
    *((normals(50, k, seed=s) @ normals(k, 5, seed=s), k, None, ValueError, f"x: wanted more than {k} directions")
      for k in (1, 2) for s in range(5)),  # the eigenvalues left over are zero, but for rounding
])
def test_maximum_likelihood_refuses(x, latent_dim, variance, error, message):
    with pytest.raises(error, match=message):
        LinearGaussian.maximum_likelihood(x, latent_dim, variance)


def test_two_points_are_enough_for_maximum_likelihood_if_the_variance_is_stated():
    model, half = LinearGaussian.maximum_likelihood(DATA[:2], 1, 0.1), (DATA[1] - DATA[0]) / 2
    along = half / half.norm()
    close(model.weight @ model.weight.T, (half.norm() ** 2 - 0.1) * along.outer(along), 1e-12)
    close(model.bias, DATA[0] + half, 1e-12)


@pytest.mark.parametrize("data_dim, variance", [(1, 0.1), (2, None)])
def test_with_as_many_parameters_as_the_covariance_has_maximum_likelihood_has_that_of_the_data(data_dim, variance):
    x = DATA[:, :data_dim]
    model = LinearGaussian.maximum_likelihood(x, 1, variance)
    close(marginal(model).covariance_matrix, np.cov(x.numpy().T, bias=True).reshape(data_dim, data_dim), 1e-12)


NAN = torch.tensor([[0.0, float("nan")]])


@pytest.mark.parametrize("weight, bias, variance, error, message", [
    ([[1.0]], torch.ones(1), 1.0, TypeError, r"weight: wanted a floating-point .* \(D, k\), got list"),
    (torch.ones(2, 1).long(), torch.ones(2), 1.0, TypeError, r"weight: .* got int64 of shape \(2, 1\)"),
    (torch.ones(2), torch.ones(2), 1.0, ValueError, r"weight: .* got float32 of shape \(2,\)"),
    (torch.ones(2, 0), torch.ones(2), 1.0, ValueError, r"weight: .* got float32 of shape \(2, 0\)"),
    (NAN, torch.ones(1), 1.0, ValueError, "weight: wanted finite numbers, got NaN"),
    (torch.ones(2, 1), torch.ones(3), 1.0, ValueError, r"bias: .* shape \(2\), got float32 of shape \(3,\)"),
    (torch.ones(2, 1), torch.ones(1), 1.0, ValueError, r"bias: .* shape \(2\), got float32 of shape \(1,\)"),
    (torch.ones(2, 1), torch.ones(2), 0.0, ValueError, "variance: wanted a positive finite number, got 0.0"),
    (torch.ones(2, 1), torch.ones(2), -1, ValueError, "variance: .* got -1"),
    (torch.ones(2, 1), torch.ones(2), math.inf, ValueError, "variance: .* got inf"),
    (torch.ones(2, 1), torch.ones(2), math.nan, ValueError, "variance: .* got nan"),
    (torch.ones(2, 1), torch.ones(2), "1", ValueError, "variance: .* got '1'"),
])
def test_linear_model_refuses(weight, bias, variance, error, message):
    with pytest.raises(error, match=message):
        LinearGaussian(weight, bias, variance)


@pytest.mark.parametrize("method, arguments, message", [
    ("log_px", (X[:, :4],), r"x: wanted .* shape \(N, 5\), got float64 of shape \(40, 4\)"),
    ("log_px", (X[0],), r"x: wanted .* shape \(N, 5\), got float64 of shape \(5,\)"),
    ("posterior", (X[:, :1],), r"x: wanted .* shape \(N, 5\), got float64 of shape \(40, 1\)"),
    ("best_diagonal_q", (X * math.inf,), "x: wanted finite numbers"),
    ("elbo", (X, MU[:, :1], LOG_VAR), r"mu: wanted .* shape \(N, 3\), got float64 of shape \(40, 1\)"),
    ("elbo", (X, MU, LOG_VAR[:, :1]), r"log_var: wanted .* shape \(N, 3\), got float64 of shape \(40, 1\)"),
    ("elbo", (X[:, :4], MU, LOG_VAR), r"^x: wanted .* shape \(N, 5\), got float64 of shape \(40, 4\)"),
    ("kl_to_posterior", (X, MU[0], LOG_VAR), r"mu: wanted .* shape \(N, 3\), got float64 of shape \(3,\)"),
    ("kl_to_posterior", (X, MU, LOG_VAR[0]), r"^log_var: wanted .* shape \(N, 3\), got float64 of shape \(3,\)"),
    ("log_joint", (X, MU[:, :2]), r"z: wanted .* shape \(..., 3\), got float64 of shape \(40, 2\)"),
    ("log_joint", (X.sum(), MU), r"x: wanted .* shape \(..., 5\), got float64 of shape \(\)"),
])
def test_linear_methods_refuse(method, arguments, message):
    with pytest.raises(ValueError, match=message):
        getattr(MODEL, method)(*arguments)


@pytest.mark.parametrize("log_var", [None, LOG_VAR[0]])
def test_a_linear_vae_has_the_models_joint_density_and_the_posteriors_means(log_var):
    vae, images, z = linear_vae(MODEL, log_var), X.view(40, 1, 1, 5), normals(7, 40, 3, seed=5)
    log_joint = vae.likelihood.log_prob(images, vae.decoder(z)) + Normal(0.0, 1.0).log_prob(z).sum(-1)
    close(log_joint, MODEL.log_joint(X, z), 1e-10)
    precision = torch.eye(3) + MODEL.weight.T @ MODEL.weight / MODEL.variance
    means = torch.linalg.solve(precision, ((X - MODEL.bias) @ MODEL.weight / MODEL.variance).T).T
    mu, found = vae.encoder(images)
    close(mu, means, 1e-10)
    close(found, (-precision.diagonal().log() if log_var is None else log_var).expand(40, 3), 1e-12)


def test_a_linear_vae_encodes_a_latent_without_effect_as_the_prior():
    model = LinearGaussian(MODEL.weight * torch.tensor([1, 1, 0]), MODEL.bias, MODEL.variance)
    for parameter in linear_vae(model).encoder(X.view(40, 1, 1, 5)):
        close(parameter[:, 2].detach(), torch.zeros(40), 1e-12)


# --- The nonlinear model

def wavy(z):
    """A decoder with two bends: the posterior has one to three modes."""
    return z + 1.5 * (2 * z).sin()


WAVY = NonlinearModel(wavy, 0.2)
SQUARE = NonlinearModel(lambda z: z**2, 0.1)
SCALARS = torch.tensor([-2.3, -0.4, 0.0, 0.7, 1.9, 3.1], dtype=torch.float64)
MEANS = torch.tensor([-1.0, 0.31234, 0.0, 0.7, 2.2, -0.3], dtype=torch.float64)
# the last two of these q are narrower than a step of the grid
LOG_VARS = torch.tensor([-1.0, 0.0, 1.0, -9.0, -14.0, -20.0], dtype=torch.float64)


@pytest.mark.parametrize("model, decode", [
    (WAVY, lambda z: z + 1.5 * math.sin(2 * z)),
    (SQUARE, lambda z: z**2),
])
def test_nonlinear_model_equals_adaptive_quadrature(model, decode):
    def log_joint(x, z):
        return log_normal(x, decode(z), model.variance) + log_normal(z, 0, 1)

    log_px, elbo, gap = (model.log_px(SCALARS), model.elbo(SCALARS, MEANS, LOG_VARS),
                         model.kl_to_posterior(SCALARS, MEANS, LOG_VARS))
    options = {"epsabs": 1e-12, "epsrel": 1e-12, "limit": 400}
    for n, (x, mu, log_var) in enumerate(zip(SCALARS.tolist(), MEANS.tolist(), LOG_VARS.tolist())):
        std = math.exp(0.5 * log_var)
        joint = lambda z: math.exp(log_joint(x, z))  # noqa: B023
        evidence = math.log(quad(joint, -9, 9, points=range(-8, 9), **options)[0])

        def expectation(f):
            under_q = lambda eps: math.exp(log_normal(eps, 0, 1)) * f(mu + std * eps)  # noqa: B023
            return quad(under_q, -10, 10, points=range(-9, 10), **options)[0]

        log_q = lambda z: log_normal(z, mu, std**2)  # noqa: B023
        bound = expectation(lambda z: log_joint(x, z) - log_q(z))  # noqa: B023
        assert log_px[n].item() == pytest.approx(evidence, abs=1e-9)
        assert elbo[n].item() == pytest.approx(bound, abs=1e-8)
        assert gap[n].item() == pytest.approx(evidence - bound, abs=1e-8)


@pytest.mark.parametrize("model", [WAVY, SQUARE, NonlinearModel(torch.tanh, 0.01)])
def test_nonlinear_log_px_is_elbo_plus_kl(model):
    x, z = model.sample(60, torch.Generator().manual_seed(3))
    mu, log_var = z + 0.3 * normals(60), -8 + 4 * normals(60, seed=1)
    narrow = torch.full_like(mu, -80)  # no number lies between mu and half a standard deviation above
    for wide_or_narrow in (log_var, narrow):
        close(model.elbo(x, mu, wide_or_narrow) + model.kl_to_posterior(x, mu, wide_or_narrow), model.log_px(x), 1e-10)


def test_nonlinear_model_with_a_straight_decoder_equals_the_linear_one():
    straight = NonlinearModel(lambda z: 0.8 * z - 0.3, 0.25)
    weight, bias = torch.tensor([[0.8]], dtype=torch.float64), torch.tensor([-0.3], dtype=torch.float64)
    exact = LinearGaussian(weight, bias, 0.25)
    x = SCALARS[:, None]
    close(straight.log_px(SCALARS), exact.log_px(x), 1e-12)
    close(straight.log_joint(SCALARS, MEANS), exact.log_joint(x, MEANS[:, None]), 1e-12)
    mean, covariance = exact.posterior(x)
    expected = Normal(mean, covariance.sqrt()[0]).log_prob(straight.grid).exp()
    close(straight.posterior_density(SCALARS), expected, 1e-12)
    for method in ("elbo", "kl_to_posterior"):
        expected = getattr(exact, method)(x, MEANS[:, None], LOG_VARS[:, None])
        close(getattr(straight, method)(SCALARS, MEANS, LOG_VARS), expected, 1e-10)
    mu, log_var = straight.best_gaussian_q(SCALARS)
    close(mu, mean[:, 0], 1e-6)
    close(log_var, covariance[0].log().expand(6), 1e-6)
    close(straight.kl_to_posterior(SCALARS, mu, log_var), torch.zeros(6), 1e-10)


def test_nonlinear_posterior_density_integrates_to_one_and_broadcasts_with_the_bound():
    density = WAVY.posterior_density(SCALARS)
    assert density.shape == (6, 4001) and (density >= 0).all()
    close(torch.trapezoid(density, WAVY.grid), torch.ones(6), 1e-12)
    sheet = WAVY.elbo(SCALARS[0], MEANS[:, None], LOG_VARS)
    assert sheet.shape == (6, 6)
    close(sheet[2, 1], WAVY.elbo(SCALARS[0], MEANS[2], LOG_VARS[1]), 1e-12)
    gaps = WAVY.kl_to_posterior(SCALARS[0], MEANS[:, None], LOG_VARS)
    close(sheet + gaps, WAVY.log_px(SCALARS[:1]).expand(6, 6), 1e-9)


@pytest.mark.parametrize("model, decode", [(WAVY, lambda z: z + 1.5 * np.sin(2 * z)), (SQUARE, np.square)])
def test_best_gaussian_q_equals_a_numerical_search(model, decode):
    eps, weights = np.polynomial.hermite_e.hermegauss(120)
    weights = weights / weights.sum()

    def loss(q, x):
        std = math.exp(0.5 * q[1])
        z = q[0] + std * eps
        log_joint = norm.logpdf(x, decode(z), model.variance**0.5) + norm.logpdf(z)
        return -(weights @ log_joint) - 0.5 * (q[1] + math.log(2 * math.pi * math.e))

    x = SCALARS[1:]
    mu, log_var = model.best_gaussian_q(x)
    elbo = model.elbo(x, mu, log_var)
    assert not mu.requires_grad and mu.shape == log_var.shape == (5,)
    for n, value in enumerate(x.tolist()):
        starts = [(m, v) for m in np.linspace(-2.5, 2.5, 7) for v in (-4.0, -1.0)]
        best = min((minimize(loss, start, args=(value,)) for start in starts), key=lambda found: found.fun)
        assert elbo[n].item() == pytest.approx(-best.fun, abs=1e-7)
    assert (model.elbo(x, mu + 0.01, log_var) < elbo).all()
    assert (model.elbo(x, mu, log_var + 0.01) < elbo).all()


def test_the_search_for_the_best_gaussian_q_starts_at_quantiles_of_the_posterior_with_six_widths():
    straight = NonlinearModel(lambda z: 0.8 * z - 0.3, 0.25)
    std = (0.25 / 0.89) ** 0.5
    quantiles = torch.from_numpy(norm.ppf((np.arange(41) + 0.5) / 41))[:, None]
    starts = straight._starts(SCALARS)
    assert starts.shape == (6, 41, 6, 2)
    step = straight.grid[1] - straight.grid[0]
    assert ((starts[..., 0] - (0.8 * (SCALARS + 0.3) / 0.89 + std * quantiles)).abs() < 1.01 * step).all()
    widths = std * torch.tensor([1.0, 0.7, 0.5, 0.25, 0.12, 0.06], dtype=torch.float64)
    close(starts[..., 1], 2 * widths.log()[:, None, None].expand(6, 41, 6), 1e-9)


def test_best_gaussian_q_chooses_one_of_two_modes():
    x = torch.tensor([2.0], dtype=torch.float64)
    mu, log_var = SQUARE.best_gaussian_q(x)
    assert mu.abs().item() == pytest.approx(math.sqrt(2), abs=0.1)
    gap = SQUARE.kl_to_posterior(x, mu, log_var).item()
    assert gap == pytest.approx(math.log(2), abs=0.01)  # it misses the other half of the posterior


@pytest.mark.parametrize("decode, variance", [(torch.exp, 0.3), (torch.tanh, 0.01), (torch.square, 0.1),
                                              (torch.zeros_like, 1.0), (lambda z: (5 * z).sin(), 0.05)])
def test_best_gaussian_q_is_beaten_by_no_other(decode, variance):
    model = NonlinearModel(decode, variance, points=2001)
    x, _ = model.sample(20, torch.Generator().manual_seed(1))
    best = model.elbo(x, *model.best_gaussian_q(x))
    assert (best <= model.log_px(x) + 1e-10).all()
    for mu in torch.linspace(-3, 3, 61, dtype=torch.float64):
        for log_var in (-6.0, -4.5, -3.0, -1.5, 0.0):
            assert (model.elbo(x, mu, torch.tensor(log_var)) < best + 1e-10).all()


def test_log_px_is_checked_half_way_between_the_points_of_the_grid():
    seen = []
    NonlinearModel(lambda z: seen.append(z) or z, 0.25, points=101).log_px(SCALARS)
    grid, between = seen[-2:]
    close(between, (grid[:-1] + grid[1:]) / 2, 1e-12)


@pytest.mark.parametrize("x, ends", [(-0.4, {"low": -1}), (0.4, {"high": 1})])  # six standard deviations away
def test_a_posterior_that_reaches_either_end_of_the_grid_is_refused(x, ends):
    with pytest.raises(ValueError, match="^x: wanted values whose posterior fits a grid"):
        NonlinearModel(lambda z: z, 0.01, **ends).log_px(torch.tensor([x]).double())


def test_nonlinear_model_with_a_kink_needs_a_finer_grid():
    x = torch.tensor([0.3, -0.2], dtype=torch.float64)
    with pytest.raises(ValueError, match="x: wanted values whose posterior fits a grid of 101 points"):
        NonlinearModel(torch.relu, 0.1, points=101).log_px(x)
    fine = NonlinearModel(torch.relu, 0.1, points=20_001).log_px(x)
    for n, value in enumerate(x.tolist()):
        joint = lambda z: math.exp(log_normal(value, max(z, 0), 0.1) + log_normal(z, 0, 1))  # noqa: B023
        expected = math.log(quad(joint, -9, 9, points=[0], epsabs=1e-12)[0])
        assert fine[n].item() == pytest.approx(expected, abs=1e-6)


def test_nonlinear_model_passes_gradients_to_its_decoder():
    slope = torch.tensor(0.8, dtype=torch.float64, requires_grad=True)
    model = NonlinearModel(lambda z: slope * z, 0.25)
    model.log_px(SCALARS).sum().backward()
    covariance = 0.8**2 + 0.25
    expected = (0.8 * (SCALARS**2 / covariance**2 - 1 / covariance)).sum()
    close(slope.grad, expected, 1e-9)
    slope.grad = None
    model.best_gaussian_q(SCALARS)
    assert slope.grad is None


def test_nonlinear_samples_come_from_the_joint_and_their_own_stream():
    state = torch.get_rng_state()
    x, z = WAVY.sample(50_000, torch.Generator().manual_seed(0))
    assert torch.equal(torch.get_rng_state(), state)
    noise = x - wavy(z)
    for values, variance in ((z, 1.0), (noise, 0.2)):
        assert values.mean().abs() < 5 * math.sqrt(variance / 50_000)
        assert (values.var() - variance).abs() < 5 * variance * math.sqrt(2 / 50_000)
    assert torch.equal(WAVY.sample(50_000, torch.Generator().manual_seed(0))[0], x)


@pytest.mark.parametrize("arguments, error, message", [
    ({"decode": 3.0}, TypeError, "decode: wanted a function of z, got float"),
    ({"decode": lambda z: z.float()}, TypeError, r"decode\(z\): wanted float64, as z is, got torch.float32"),
    ({"decode": lambda z: 0.0}, TypeError, r"decode\(z\): wanted .* shape \(4001\), got float"),
    ({"decode": lambda z: z[:-1]}, ValueError, r"decode\(z\): .* got float64 of shape \(4000,"),
    ({"decode": torch.log}, ValueError, r"decode\(z\): wanted finite numbers, got NaN"),
    ({"variance": 0.0}, ValueError, "variance: wanted a positive finite number, got 0.0"),
    ({"points": 2}, ValueError, "points: wanted an integer, 3 or more, got 2"),
    ({"points": 100.0}, ValueError, "points: wanted an integer, 3 or more, got 100.0"),
    ({"low": 1.0, "high": 1.0}, ValueError, r"low and high: wanted two finite numbers, .*, got \(1"),
    ({"high": math.inf}, ValueError, r"low and high: .* got \(-10.0, inf\)"),
    ({"low": math.nan}, ValueError, r"low and high: .* got \(nan, 10.0\)"),
])
def test_nonlinear_model_refuses(arguments, error, message):
    with pytest.raises(error, match=message):
        NonlinearModel(**{"decode": torch.tanh, "variance": 1.0, **arguments})


@pytest.mark.parametrize("model", [MODEL, WAVY])
def test_no_draw_is_refused(model):
    with pytest.raises(ValueError, match="^num: wanted an integer, 1 or more, got 0"):
        model.sample(0)


@pytest.mark.parametrize("method, arguments, message", [
    ("log_px", (SCALARS[:, None],), r"x: wanted .* shape \(N\), got float64 of shape \(6, 1\)"),
    ("posterior_density", (SCALARS[0],), r"x: wanted .* shape \(N\), got float64 of shape \(\)"),
    ("best_gaussian_q", (SCALARS * math.nan,), "x: wanted finite numbers, got NaN"),
    ("best_gaussian_q", (SCALARS[:, None],), r"x: wanted .* shape \(N\), got float64 of shape \(6, 1\)"),
    *((method, tuple(values * (math.inf if name == bad else 1) for name, values in
                     (("x", SCALARS), ("mu", MEANS), ("log_var", LOG_VARS))), f"^{bad}: wanted finite numbers")
      for method in ("elbo", "kl_to_posterior") for bad in ("x", "mu", "log_var")),
    ("log_joint", (SCALARS, MEANS * math.nan), "z: wanted finite numbers"),
    ("log_joint", (SCALARS * math.nan, MEANS), "^x: wanted finite numbers"),
    ("log_px", (SCALARS + 300,), "x: .* posterior fits a grid of 4001 points from -10 to 10"),
])
def test_nonlinear_methods_refuse(method, arguments, message):
    with pytest.raises(ValueError, match=message):
        getattr(WAVY, method)(*arguments)


@pytest.mark.parametrize("decode, x, options", [
    (lambda z: 50 * z, 0.123, {"points": 401}),  # the posterior is narrower than a step
    (lambda z: 0 * z, 3.0, {"low": -5.0, "high": 5.0}),  # the grid cuts a posterior off, of an unlikely x
    (lambda z: z.sign(), 0.123, {}),  # a jump
])
def test_log_px_refuses_a_grid_that_does_not_fit(decode, x, options):
    model = NonlinearModel(decode, 0.01, **options)
    for method, more in (("log_px", ()), ("kl_to_posterior", (MEANS[:1], LOG_VARS[:1]))):
        with pytest.raises(ValueError, match="change low, high or points"):
            getattr(model, method)(torch.tensor([x], dtype=torch.float64), *more)
