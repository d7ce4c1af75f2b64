"""What must hold for any numbers: hypothesis looks for those that break it."""

import itertools
import math

import numpy
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.affine_vae import close
from vae_lib import objectives
from vae_lib.evaluation import held_out_elbo, importance_estimates, nll
from vae_lib.exact import LinearGaussian, NonlinearModel, linear_vae
from vae_lib.flow import RealNVP
from vae_lib.gaussian import kl_between_normals, kl_to_standard_normal, log_normal, reparameterize
from vae_lib.latents import active_units, encode_all, log_aggregate_posterior
from vae_lib.likelihoods import Bernoulli, Gaussian, LearnedVarianceGaussian, optimal_variance
from vae_lib.mixture import Mixture, m_step
from vae_lib.models import conv_vae, dense_vae

settings.register_profile("properties", derandomize=True, deadline=None, max_examples=40, database=None)
settings.load_profile("properties")

DTYPES = (torch.float32, torch.float64)
some, few, seeds = st.integers(1, 6), st.integers(1, 3), st.integers(0, 10**6)


def numbers(*shape, low=-3.0, high=3.0):
    """Tensors of this shape, float64: random, or with one number throughout, or at the limits."""
    def tensor(kind, seed):
        generator = torch.Generator().manual_seed(seed)
        drawn = low + (high - low) * torch.rand(shape, dtype=torch.float64, generator=generator)
        extreme = torch.where(drawn < (low + high) / 2, low, high).double()
        return {"random": drawn, "equal": drawn.flatten()[:1].expand(shape).clone(), "extreme": extreme}[kind]
    return st.builds(tensor, st.sampled_from(["random", "equal", "extreme"]), seeds)


@st.composite
def gaussians(draw, how_many=1, log_var=80.0):
    """Means and log-variances of diagonal Gaussians of the same size, up to this log-variance either way."""
    shape = draw(few), draw(some)
    return [draw(numbers(*shape, low=-top, high=top)) for _ in range(how_many) for top in (5.0, log_var)]


# --- Densities and divergences


@given(gaussians(2))
def test_a_divergence_is_zero_for_equal_gaussians_and_positive_for_others(q_and_p):
    """Where a difference is beyond what float64 resolves; KL is at least 0, up to rounding, everywhere."""
    mu_q, log_var_q, mu_p, log_var_p = q_and_p
    assert kl_between_normals(mu_q, log_var_q, mu_q, log_var_q).eq(0).all()
    kl = kl_between_normals(*q_and_p)
    differ = ((log_var_q - log_var_p).abs() > 1e-6) | ((mu_q - mu_p).abs() > 1e-6 * (0.5 * log_var_p).exp())
    assert (kl > -1e-12 * mu_q.shape[1]).all() and (kl[differ.any(1)] > 0).all()
    standard = kl_between_normals(mu_q, log_var_q, torch.zeros(()), torch.zeros(()))
    torch.testing.assert_close(kl_to_standard_normal(mu_q, log_var_q), standard)


@given(gaussians(2), st.sampled_from(DTYPES))
def test_formulas_keep_the_dtype_and_are_finite_for_log_variances_up_to_eighty(q_and_p, dtype):
    mu_q, log_var_q, mu_p, log_var_p = (part.to(dtype).requires_grad_() for part in q_and_p)
    z = reparameterize(mu_q, log_var_q, torch.Generator().manual_seed(0))
    found = [log_normal(z, mu_q, log_var_q), kl_to_standard_normal(mu_q, log_var_q)]
    sum(part.sum() for part in found).backward()
    for part in (z, *found, mu_q.grad, log_var_q.grad):
        assert part.dtype == dtype and part.isfinite().all()
    assert not kl_between_normals(mu_q, log_var_q, mu_p, log_var_p).isnan().any()


@given(gaussians(2, log_var=5.0), st.floats(-5, 5), st.floats(-40, 40))
def test_a_divergence_does_not_depend_on_origin_or_unit(q_and_p, origin, log_unit):
    mu_q, log_var_q, mu_p, log_var_p = q_and_p
    moved = ((mu_q + origin) * math.exp(log_unit), log_var_q + 2 * log_unit,
             (mu_p + origin) * math.exp(log_unit), log_var_p + 2 * log_unit)
    torch.testing.assert_close(kl_between_normals(*moved), kl_between_normals(*q_and_p), rtol=1e-9, atol=1e-9)
    lost = mu_q.shape[1] * log_unit
    torch.testing.assert_close(log_normal(moved[2], *moved[:2]), log_normal(mu_p, mu_q, log_var_q) - lost,
                               rtol=1e-9, atol=1e-9)


@given(gaussians(2, log_var=5.0), seeds)
def test_the_order_of_latents_and_of_images_does_not_matter(q_and_p, seed):
    torch.manual_seed(seed)
    n, latents = (torch.randperm(size) for size in q_and_p[0].shape)
    moved = [part[n][:, latents] for part in q_and_p]
    close(kl_between_normals(*moved), kl_between_normals(*q_and_p)[n], atol=1e-9)
    close(log_normal(moved[2], *moved[:2]), log_normal(q_and_p[2], *q_and_p[:2])[n], atol=1e-9)
    mu, log_var, z, _ = q_and_p
    close(log_aggregate_posterior(z[:, latents], mu[n][:, latents], log_var[n][:, latents]),
          log_aggregate_posterior(z, mu, log_var, block_size=1), atol=1e-9)
    if len(mu) > 1:
        assert torch.equal(active_units(moved[0]), active_units(mu)[latents])


# --- Weights


@given(st.integers(1, 5).flatmap(lambda n: numbers(n, 3, low=-900, high=900)), st.sampled_from([0.0, 1e4, -1e4]),
       st.sampled_from(DTYPES))
def test_log_mean_exp_lies_between_mean_and_maximum_and_moves_with_its_weights(log_w, shift, dtype):
    log_w = log_w.to(dtype)
    found, slack = objectives.log_mean_exp(log_w), 1e-3 if dtype == torch.float32 else 1e-9
    assert found.dtype == dtype
    assert (log_w.mean(0) - slack <= found).all() and (found <= log_w.amax(0) + slack).all()
    assert (log_w.amax(0) - math.log(len(log_w)) <= found + slack).all()
    torch.testing.assert_close(objectives.log_mean_exp(log_w + shift), found + shift, rtol=0, atol=10 * slack)
    torch.testing.assert_close(objectives.log_mean_exp(log_w.flip(0)), found, rtol=0, atol=slack)


@given(numbers(5, 2, low=-30, high=30))
def test_the_bound_from_more_of_the_same_weights_is_higher_on_average(log_w):
    """Over all subsets of k of five weights, the argument of Burda et al. 2016 for any density."""
    averages = []
    for k in range(1, 6):
        chosen = torch.tensor(list(itertools.combinations(range(5), k)))
        averages.append(objectives.log_mean_exp(log_w[chosen].transpose(0, 1)).mean(0))
    assert all((more >= less - 1e-9).all() for less, more in itertools.pairwise(averages))


# --- Exact models


@st.composite
def linear_models(draw, latent_dim=few):
    """A LinearGaussian, one to four numbers wide, and points and means and log-variances of its size."""
    dim, latent_dim, n = draw(st.integers(1, 4)), draw(latent_dim), draw(few)
    weight, bias = draw(numbers(dim, latent_dim)), draw(numbers(dim))
    model = LinearGaussian(weight, bias, draw(st.sampled_from([1e-3, 0.3, 5.0])))
    return model, draw(numbers(n, dim)), draw(numbers(n, latent_dim)), draw(numbers(n, latent_dim, low=-80, high=5))


def at_most(left, right):
    """left <= right, up to rounding of numbers that large."""
    assert (left <= right + 1e-9 * (1 + left.abs() + right.abs())).all(), (left - right).max()


def is_the_gap(kl, bound, log_px):
    """KL = log p(x) - ELBO, up to rounding of numbers that large."""
    assert (kl - (log_px - bound)).abs().le(1e-9 * (1 + kl.abs() + bound.abs() + log_px.abs())).all()


def obeys_the_bound(model, x, mu, log_var, best_q):
    """log p(x) and the ELBO, once no ELBO is above log p(x), the best q's is no lower, and the gap is the KL."""
    log_px, bound, best = model.log_px(x), model.elbo(x, mu, log_var), model.elbo(x, *best_q)
    is_the_gap(model.kl_to_posterior(x, mu, log_var), bound, log_px)
    at_most(bound, best)
    at_most(best, log_px)
    at_most(bound, log_px)
    return log_px, bound


@given(linear_models(), seeds)
def test_no_elbo_of_a_linear_model_is_above_log_px(case, seed):
    model, x, mu, log_var = case
    log_px, bound = obeys_the_bound(model, x, mu, log_var, model.best_diagonal_q(x))
    order = torch.randperm(model.latent_dim, generator=torch.Generator().manual_seed(seed))
    turned = LinearGaussian(model.weight[:, order], model.bias, model.variance)
    torch.testing.assert_close(turned.log_px(x), log_px)
    torch.testing.assert_close(turned.elbo(x, mu[:, order], log_var[:, order]), bound)


@given(linear_models(latent_dim=st.just(1)))
def test_with_one_latent_the_best_elbo_of_a_linear_model_is_log_px(case):
    model, x, _, _ = case
    torch.testing.assert_close(model.elbo(x, *model.best_diagonal_q(x)), model.log_px(x), rtol=1e-9, atol=1e-7)


@given(numbers(3), numbers(3, low=-4.0, high=4.0), numbers(3, low=-80, high=5), st.sampled_from([0.1, 1.0]))
@settings(max_examples=8)
def test_no_elbo_of_a_nonlinear_model_is_above_log_px(x, mu, log_var, variance):
    model = NonlinearModel(lambda z: z + z.sin(), variance, points=801)
    obeys_the_bound(model, x, mu, log_var, model.best_gaussian_q(x))


# --- Mixtures


@st.composite
def mixtures(draw):
    """A Mixture of one to four components, some of which may have no weight, and points of its size."""
    num, dim, n = draw(st.integers(1, 4)), draw(few), draw(st.integers(2, 6))
    counts = draw(st.lists(st.integers(0, 3), min_size=num, max_size=num).filter(sum))
    factors = draw(numbers(num, dim, dim, low=-1, high=1)).tril() + 2 * torch.eye(dim)
    weights = torch.tensor(counts, dtype=torch.float64) / sum(counts)
    return Mixture(weights, draw(numbers(num, dim, low=-40, high=40)), factors @ factors.mT), draw(numbers(n, dim))


@given(mixtures(), seeds)
def test_no_elbo_of_a_mixture_is_above_log_px_and_that_of_its_posterior_is_log_px(case, seed):
    model, x = case
    log_px, posterior = model.log_px(x), model.responsibilities(x)
    assert log_px.isfinite().all() and (posterior[:, model.weights == 0] == 0).all()
    torch.testing.assert_close(model.elbo(x, posterior), log_px)
    close(model.kl_to_posterior(x, posterior), torch.zeros(len(x)), atol=1e-9)
    q = torch.rand(len(x), len(model.weights), dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    bound, kl = model.elbo(x, q / q.sum(1, keepdim=True)), model.kl_to_posterior(x, q / q.sum(1, keepdim=True))
    at_most(bound, log_px)
    assert (kl >= -1e-12).all()
    possible = bound.isfinite()  # else q chooses a component of weight zero
    is_the_gap(kl[possible], bound[possible], log_px[possible])


@given(mixtures(), seeds)
def test_the_order_of_components_and_points_does_not_matter(case, seed):
    model, x = case
    torch.manual_seed(seed)
    k, n = torch.randperm(len(model.weights)), torch.randperm(len(x))
    moved = Mixture(model.weights[k], model.means[k], model.covariances[k])
    torch.testing.assert_close(moved.log_px(x[n]), model.log_px(x)[n])
    one, other = model.em_step(x), moved.em_step(x[n])
    torch.testing.assert_close(other.log_px(x), one.log_px(x), rtol=1e-6, atol=1e-6)


@given(mixtures())
def test_em_never_lowers_log_px_nor_wakes_a_component_without_weight(case):
    model, x = case
    without = model.weights == 0
    model = m_step(x, model.responsibilities(x))  # from here on no variance is below the least
    for _ in range(4):
        following = model.em_step(x)
        at_most(model.log_px(x).mean(), following.log_px(x).mean())
        model = following
    assert (model.weights[without] == 0).all()


# --- Training objectives and evaluation of exact models


def normal_grid(k, points=24):
    """Noise (k, points^k, 1) and weights (points^k,) of Gauss and Hermite's rule for k standard normal numbers."""
    nodes, weights = (torch.from_numpy(part) for part in numpy.polynomial.hermite_e.hermegauss(points))
    weights = weights / weights.sum()
    grid = torch.cartesian_prod(*[nodes] * k).view(-1, k)
    return grid.T[..., None], torch.cartesian_prod(*[weights] * k).view(-1, k).prod(1)


@given(linear_models(latent_dim=st.just(1)), st.floats(-0.5, 0.5), st.floats(-1.0, 0.5))
@settings(max_examples=15)
def test_the_expected_bound_of_a_linear_vae_rises_with_its_samples_from_elbo_to_log_px(case, shift, widen):
    """The expectation over the noise by quadrature, for 1 to 3 samples."""
    exact, x, _, _ = case
    x = x[:1]
    mu, log_var = exact.best_diagonal_q(x)
    mu, log_var = mu + shift * (0.5 * log_var).exp(), log_var + widen
    model = linear_vae(exact, log_var[0])
    model.encoder.to_mu.bias.data += mu[0] - model.encoder(x.view(1, 1, 1, -1))[0][0]
    expected = []
    for k in (1, 2, 3):
        noise, weights = normal_grid(k)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(torch, "randn_like", lambda mu, generator: noise)  # noqa: B023
            bound = objectives.iwae(model, x.view(1, 1, 1, -1).expand(len(weights), -1, -1, -1), k)
        expected.append((weights * bound.elbo).sum())
    torch.testing.assert_close(expected[0], exact.elbo(x, mu, log_var)[0])
    assert all(more >= less - 1e-6 for less, more in itertools.pairwise([*expected, exact.log_px(x)[0]]))


@given(linear_models(latent_dim=st.just(1)), some, some, seeds)
@settings(max_examples=15)
def test_with_the_exact_posterior_every_estimate_is_log_px_whatever_the_batches(case, num_samples, batch_size, seed):
    """Each weight p(x, z) / q(z|x) is p(x) then, for any noise."""
    exact, x, _, _ = case
    images, model, log_px = x.view(len(x), 1, 1, -1), linear_vae(exact), exact.log_px(x)
    found = importance_estimates(model, images, num_samples, batch_size, seed, progress=False)
    torch.testing.assert_close(found.log_px, log_px, rtol=1e-9, atol=1e-6)
    torch.testing.assert_close(found.effective_sample_size, torch.full_like(log_px, num_samples))
    again = importance_estimates(model, images.flip(0), 1, 500, seed + 1, progress=False)
    torch.testing.assert_close(again.log_px.flip(0), log_px, rtol=1e-9, atol=1e-6)
    for objective in (objectives.iwae, objectives.dreg, objectives.resampled_dreg):
        torch.testing.assert_close(objective(model, images, num_samples).elbo, log_px, rtol=1e-9, atol=1e-6)
    if len(x) > 1:
        assert nll(model, images, num_samples, batch_size, progress=False).nll == pytest.approx(-log_px.mean().item())


@given(linear_models(), some, seeds)
@settings(max_examples=15)
def test_without_noise_the_held_out_elbo_is_exact_whatever_the_batches(case, batch_size, seed):
    """An encoder of log-variance -80 draws its mean, up to 1e-17; then no order and no batch changes a thing."""
    exact, x, _, _ = case
    x = x.repeat(2, 1)  # 2 images at least
    log_var = torch.full((exact.latent_dim,), -80.0).double()
    model, images = linear_vae(exact, log_var), x.view(len(x), 1, 1, -1)
    mu = exact.posterior(x)[0]
    expected = exact.elbo(x, mu, log_var.expand_as(mu)).mean().item()
    found = held_out_elbo(model, images, 2, batch_size, seed)
    again = held_out_elbo(model, images.flip(0), 1, 500, seed + 1)
    assert found.elbo == pytest.approx(expected) and again.elbo == pytest.approx(expected)
    assert found.kl == pytest.approx(kl_to_standard_normal(mu, log_var).mean().item())
    close(encode_all(model, images, batch_size)[0], mu, atol=1e-9)


# --- Sizes and types


SMALL = {"one pixel": lambda: dense_vae((1, 1, 1), (3,), 2), "no hidden layer": lambda: dense_vae((1, 1, 1), (), 1),
         "convolutions": lambda: conv_vae((1, 2, 2), (3,), 2).eval()}
BOUNDS = {"elbo": objectives.elbo, "averaged_elbo": lambda *a: objectives.averaged_elbo(*a, 3),
          "iwae": lambda *a: objectives.iwae(*a, 3), "dreg": lambda *a: objectives.dreg(*a, 3),
          "resampled_dreg": lambda *a: objectives.resampled_dreg(*a, 3), "sleep_phase": objectives.sleep_phase}


@pytest.mark.parametrize("name", BOUNDS)
@pytest.mark.parametrize("size", SMALL)
@pytest.mark.parametrize("dtype", [*DTYPES, torch.float16, torch.bfloat16])
def test_bounds_of_one_image_of_none_and_of_one_pixel_in_every_precision(name, size, dtype):
    """Half precision gives bounds in float32, and gradients in the weights' type."""
    torch.manual_seed(0)
    model = SMALL[size]().to(dtype)
    for n in (0, 1, 3):
        x = torch.bernoulli(torch.full((n, *model.encoder.image_shape), 0.5)).to(dtype)
        bound = BOUNDS[name](model, x)
        for part in bound:
            assert part.shape == (n,) and part.dtype == max(torch.float32, dtype, key=lambda it: it.itemsize)
        model.zero_grad()
        bound.elbo.sum().backward()
        assert all(p.grad is None or p.grad.dtype == dtype and p.grad.isfinite().all() for p in model.parameters())


@pytest.mark.parametrize("size", SMALL)
def test_evaluation_takes_one_pixel_and_one_image_and_refuses_none(size):
    model = SMALL[size]()
    x = torch.bernoulli(torch.full((2, *model.encoder.image_shape), 0.5))
    assert math.isfinite(nll(model, x, 3, progress=False).nll) and math.isfinite(held_out_elbo(model, x).elbo)
    assert importance_estimates(model, x[:1], 3, progress=False).log_px.isfinite().all()
    for function in (held_out_elbo, encode_all, lambda *a: nll(*a, progress=False), importance_estimates):
        with pytest.raises(ValueError, match=r"^x: wanted a floating-point tensor of shape \(N, C, H, W\)"):
            function(model, x[:0])


@pytest.mark.parametrize("dtype", DTYPES)
def test_formulas_of_no_image_give_no_number_and_keep_the_dtype(dtype):
    none, pixels = torch.zeros(0, 3, dtype=dtype), torch.zeros(0, 1, 2, 2, dtype=dtype)
    found = [log_normal(none, none, none), kl_to_standard_normal(none, none), kl_between_normals(none, *[none] * 3),
             *(it.log_prob(pixels, pixels) for it in (Bernoulli(), Gaussian(1), LearnedVarianceGaussian())),
             RealNVP(4).to(dtype).log_prob(torch.zeros(0, 4, dtype=dtype)), objectives.log_mean_exp(none.T)]
    for part in found:
        assert part.shape == (0,) and part.dtype == dtype
    assert optimal_variance(pixels, pixels).isnan()  # torch's mean of nothing


@pytest.mark.parametrize("log_w", [torch.zeros(0, 3), torch.tensor(1.0)])
def test_the_mean_of_no_weights_is_refused(log_w):
    with pytest.raises(ValueError, match="log_w: wanted at least one entry along a first dimension, got shape"):
        objectives.log_mean_exp(log_w)


ONE = torch.ones(1, 1).double()


@pytest.mark.parametrize("draw, name", [
    (LinearGaussian(ONE, ONE[0], 1.0).sample, "num"), (NonlinearModel(torch.sin, 1.0).sample, "num"),
    (Mixture(ONE[0], ONE, ONE[None]).sample, "num"), (RealNVP(2).sample, "num_samples")])
@pytest.mark.parametrize("count", [0, -1, 2.0, True])
def test_a_number_of_draws_that_is_none_is_refused(draw, name, count):
    with pytest.raises(ValueError, match=f"{name}: wanted an integer, 1 or more, got"):
        draw(count)


def test_one_number_has_no_direction_left_for_noise():
    with pytest.raises(ValueError, match=r"x: wanted points of at least 2 numbers, or a stated variance, got"):
        LinearGaussian.maximum_likelihood(torch.randn(5, 1), 1)


# --- Flows


@given(st.sampled_from([2, 4, 6]), some, numbers(4, 6, low=-8, high=8), seeds)
@settings(max_examples=15)
def test_a_flow_is_inverted_and_its_log_det_is_that_of_autograd(latent_dim, couplings, z, seed):
    torch.manual_seed(seed)
    flow, z = RealNVP(latent_dim, 5, couplings).double(), z[:, :latent_dim]
    for weights in flow.parameters():
        torch.nn.init.normal_(weights, std=0.7)
    u, log_det = flow(z)
    torch.testing.assert_close(flow.inverse(u), z, rtol=1e-7, atol=1e-7)
    jacobians = torch.stack([torch.autograd.functional.jacobian(lambda z: flow(z)[0], one) for one in z])
    torch.testing.assert_close(log_det, jacobians.slogdet().logabsdet, rtol=1e-7, atol=1e-7)
    torch.testing.assert_close(flow.log_prob(z.view(2, 2, -1)).flatten().flip(0), flow.log_prob(z.flip(0)))
