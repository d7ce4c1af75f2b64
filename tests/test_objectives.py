"""The bound's two parts, recomputed with torch.distributions; its mean against an exact integral."""

import math
from functools import partial
from types import SimpleNamespace

import pytest
import torch
from scipy.integrate import quad
from torch.distributions import Independent, MultivariateNormal, Normal, kl_divergence

from vae_lib.exact import LinearGaussian
from vae_lib.flow import RealNVP
from vae_lib.gaussian import kl_to_standard_normal
from vae_lib.likelihoods import Bernoulli, Gaussian
from vae_lib.models import conv_vae, dense_ae
from vae_lib.objectives import (
    article_loss,
    averaged_elbo,
    dreg,
    elbo,
    ex_post,
    iwae,
    log_mean_exp,
    log_ratio,
    log_weights,
    reconstruction,
    resampled_dreg,
    sleep_phase,
)
from vae_lib.training import fit

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
    model = dense_ae((1, 4, 4), (8,), 3, likelihood=Gaussian(0.5)).double()
    bound = reconstruction(model, X)
    expected = Independent(Normal(model.decoder(model.encoder(X)), 0.5**0.5), 3).log_prob(X)
    torch.testing.assert_close(bound.elbo, expected)
    torch.testing.assert_close(bound.log_px_given_z, expected)
    assert torch.equal(bound.kl, torch.zeros(9, dtype=torch.float64))
    with pytest.raises(ValueError, match=r"^x: wanted images of shape \(batch, 1, 4, 4\), got \(9, 1, 2, 8\)"):
        reconstruction(model, X.reshape(9, 1, 2, 8))
    with pytest.raises(TypeError, match="^x: wanted a tensor of torch.float64, .* got torch.float32"):
        reconstruction(model, X.float())


WIDTH, K = 3, 7
LINEAR = LinearGaussian(torch.randn(16, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(3)) / 4,
                        torch.zeros(16, dtype=torch.float64), 0.5)


class LinearVAE(torch.nn.Module):
    """LINEAR as a VAE whose q(z|x) is the exact posterior, made wrong: means moved by `shift`, variances widened."""

    def __init__(self, shift=0.0, widen=0.0):
        super().__init__()
        self.shift = torch.nn.Parameter(torch.full((3,), shift, dtype=torch.float64))
        self.widen = torch.nn.Parameter(torch.full((3,), widen, dtype=torch.float64))
        self.weight = torch.nn.Parameter(LINEAR.weight.clone())
        self.likelihood = Gaussian(LINEAR.variance)

    def encoder(self, x):
        mu, covariance = LINEAR.posterior(x.flatten(1))
        return mu + self.shift, covariance.diagonal().log().expand_as(mu) + self.widen

    def decoder(self, z):
        return (z @ self.weight.T).unflatten(-1, (1, 4, 4))


def moved_posterior(mu, log_var, shifts, x):
    return mu + shifts[:, :3], log_var + shifts[:, 3:]


def linear_data(num):
    return LINEAR.sample(num, torch.Generator().manual_seed(0))[0].unflatten(-1, (1, 4, 4))


def test_averaged_elbo_is_the_mean_of_elbos_and_less_noisy():
    model = small_model(Bernoulli())
    bound = averaged_elbo(model, X[:1].expand(4000, 1, 4, 4), 5, torch.Generator().manual_seed(0)).elbo
    single = elbo(model, X[:1].expand(20_000, 1, 4, 4), torch.Generator().manual_seed(1)).elbo
    assert abs(bound.mean() - single.mean()) < 4 * single.std() / 20_000**0.5 * 2**0.5
    assert 0.9 < bound.std() / (single.std() / 5**0.5) < 1.1
    parts = averaged_elbo(model, X, 1, torch.Generator().manual_seed(5))
    for one, other in zip(parts, elbo(model, X, torch.Generator().manual_seed(5))):
        torch.testing.assert_close(one, other)


def test_averaged_elbo_and_its_gradient_are_the_exact_ones_on_average():
    """One image, q off its posterior: the gradient in q's means and log-variances, by autograd of the closed form."""
    exact, x, copies = LinearVAE(shift=0.4, widen=0.3), linear_data(1), 20_000
    closed = LINEAR.elbo(x.flatten(1), *exact.encoder(x))
    wanted = torch.cat(torch.autograd.grad(closed.sum(), (exact.shift, exact.widen)))
    moves = torch.zeros(copies, 6, dtype=torch.float64, requires_grad=True)
    mu, log_var = (part.detach().expand(copies, 3) for part in exact.encoder(x))
    model = SimpleNamespace(encoder=partial(moved_posterior, mu, log_var, moves), decoder=exact.decoder,
                            likelihood=exact.likelihood)
    bound = averaged_elbo(model, x.expand(copies, 1, 4, 4), 3, torch.Generator().manual_seed(0)).elbo
    (found,) = torch.autograd.grad(bound.sum(), moves)
    for values, value in ((bound.detach(), closed.detach().squeeze()), (found, wanted)):
        assert ((values.mean(0) - value).abs() < 4 * values.std(0) / copies**0.5).all()
    assert wanted.abs().min() > 0.1 > 4 * (found.std(0) / copies**0.5).max()


def test_log_weights_are_those_of_torch_distributions():
    mu, log_var = torch.randn(2, 4, WIDTH, dtype=torch.float64)
    z, log_px_given_z = torch.randn(K, 4, WIDTH, dtype=torch.float64), torch.randn(K, 4, dtype=torch.float64)
    prior = Independent(Normal(torch.zeros_like(mu), torch.ones_like(mu)), 1)
    q = Independent(Normal(mu, (0.5 * log_var).exp()), 1)
    expected = log_px_given_z + prior.log_prob(z) - q.log_prob(z)
    torch.testing.assert_close(log_weights(log_px_given_z, z, mu, log_var), expected)
    other = Independent(Normal(torch.ones(WIDTH).double(), 2.0), 1)
    torch.testing.assert_close(log_ratio(other, z), other.log_prob(z) - prior.log_prob(z))
    with pytest.raises(ValueError, match=r"^prior: wanted log_prob to turn shape .* into \(\d+, 4\), got"):
        log_ratio(Normal(0.0, 2.0), z)
    torch.testing.assert_close(log_mean_exp(expected), expected.exp().mean(0).log())
    with pytest.raises(ValueError, match="log_w: wanted at least one entry along a first dimension, got shape"):
        log_mean_exp(expected[:0])


@pytest.mark.parametrize("objective", [averaged_elbo, iwae, dreg, resampled_dreg])
@pytest.mark.parametrize("num_samples", [0, -1, 1.5, True, None])
def test_objectives_refuse_a_number_of_samples_that_is_none(objective, num_samples):
    with pytest.raises(ValueError, match="num_samples: wanted an integer, 1 or more, got "):
        objective(LinearVAE(shift=0.0, widen=0.0), X, num_samples)


@pytest.mark.parametrize("objective", [iwae, dreg, resampled_dreg])
def test_importance_weighted_bound_of_an_exact_posterior_is_log_px_whatever_k(objective):
    """A model of one latent, whose posterior is diagonal: all weights are then p(x)."""
    exact = LinearGaussian(LINEAR.weight[:, :1], torch.zeros(16, dtype=torch.float64), 0.5)
    x = X.flatten(1)
    mu, covariance = exact.posterior(x)
    model = SimpleNamespace(encoder=lambda _: (mu, covariance.diagonal().log().expand_as(mu)),
                            decoder=lambda z: (z @ exact.weight.T).unflatten(-1, (1, 4, 4)), likelihood=Gaussian(0.5))
    for num_samples in (1, 6):
        bound = objective(model, X, num_samples)
        torch.testing.assert_close(bound.elbo, exact.log_px(x))
        torch.testing.assert_close(bound.kl, kl_to_standard_normal(mu, covariance.diagonal().log().expand_as(mu)))


def test_importance_weighted_bounds_rise_with_k_to_log_px():
    model, x = LinearVAE(shift=0.3, widen=0.5), linear_data(1)
    means, errors = [], []
    for k in (1, 2, 8, 64):
        bound = iwae(model, x.expand(4000, 1, 4, 4), k, torch.Generator().manual_seed(k)).elbo
        means.append(bound.mean().item())
        errors.append(bound.std().item() / len(bound) ** 0.5)
    exact = LINEAR.log_px(x.flatten(1)).item()
    assert all(b - a > 4 * (e + f) for a, b, e, f in zip(means, means[1:], errors, errors[1:]))
    assert -0.01 - 4 * errors[-1] < means[-1] - exact < 4 * errors[-1]
    assert abs(means[0] - LINEAR.elbo(x.flatten(1), *model.encoder(x)).item()) < 4 * errors[0]


def test_both_gradients_are_those_of_the_expected_bound_and_dreg_is_less_noisy():
    """Two samples, one image. The exact gradient by finite differences of a bound with many common draws."""
    model, x = LinearVAE(shift=0.4, widen=0.3), linear_data(1)
    repeats, k = 20_000, 2

    def expected_bound(name, change):
        moved = LinearVAE(shift=0.4, widen=0.3)
        with torch.no_grad():
            getattr(moved, name)[0] += change
            return iwae(moved, x.expand(200_000, 1, 4, 4), k, torch.Generator().manual_seed(0)).elbo.mean().item()

    exact = torch.tensor([(expected_bound(name, 1e-3) - expected_bound(name, -1e-3)) / 2e-3
                          for name in ("shift", "widen")])
    found = {}
    for objective in (iwae, dreg, resampled_dreg):
        shifts = torch.zeros(repeats, 6, dtype=torch.float64, requires_grad=True)
        mu, log_var = (part.detach().expand(repeats, 3) for part in LinearVAE(0.4, 0.3).encoder(x))
        model.encoder = partial(moved_posterior, mu, log_var, shifts)
        bound = objective(model, x.expand(repeats, 1, 4, 4), k, torch.Generator().manual_seed(1)).elbo
        (gradient,) = torch.autograd.grad(bound.sum(), shifts, retain_graph=True)
        found[objective] = gradient[:, [0, 3]]
        found[objective, "weight"] = torch.stack([  # of each thousand bounds
            torch.autograd.grad(part.mean(), model.weight, retain_graph=True)[0] for part in bound.split(1000)])
    for objective in (iwae, dreg, resampled_dreg):
        stderr = found[objective].std(0) / repeats**0.5
        assert ((found[objective].mean(0) - exact).abs() < 4 * stderr + 0.01).all()
    assert (found[dreg].var(0) < 0.7 * found[iwae].var(0)).all()
    torch.testing.assert_close(found[iwae, "weight"], found[dreg, "weight"])
    difference = found[resampled_dreg, "weight"] - found[dreg, "weight"]
    stderr = difference.std(0) / len(difference) ** 0.5
    assert 0 < stderr.max() < 0.02 * found[dreg, "weight"].mean(0).abs().max()
    assert (difference.mean(0).abs() < 6 * stderr).all()
    assert (found[dreg].var(0) < found[resampled_dreg].var(0)).all()


@pytest.mark.parametrize("objective", [dreg, resampled_dreg])
def test_dreg_has_the_value_of_iwae_with_gradients_and_without(objective):
    for enabled in (True, False):
        with torch.set_grad_enabled(enabled):
            one = objective(LinearVAE(0.1), linear_data(5), 3, torch.Generator().manual_seed(0))
            two = iwae(LinearVAE(0.1), linear_data(5), 3, torch.Generator().manual_seed(0))
        torch.testing.assert_close(one, two)


@pytest.mark.parametrize("objective", [dreg, resampled_dreg])
def test_dreg_takes_latents_in_half_precision(objective):
    """Whose gradient has their type too, though weights are float32."""
    model = small_model(Gaussian(0.5))
    mu, log_var = (part.bfloat16().requires_grad_() for part in model.encoder(X))
    half = SimpleNamespace(encoder=lambda x: (mu, log_var), likelihood=model.likelihood,
                           decoder=lambda z: model.decoder(z.double()).bfloat16())
    bound = objective(half, X.bfloat16(), 4)
    bound.elbo.sum().backward()
    assert bound.elbo.dtype == torch.float32 and mu.grad.dtype == log_var.grad.dtype == torch.bfloat16
    assert mu.grad.all() and log_var.grad.all()


@pytest.mark.parametrize("objective", [elbo, sleep_phase, *(
    partial(objective, num_samples=3) for objective in (averaged_elbo, iwae, dreg, resampled_dreg))])
def test_no_objective_leaves_the_device_of_the_images(objective):
    with torch.device("meta"):  # a device without memory: only types and shapes
        model, x = conv_vae((1, 16, 16), (4, 8), 3), torch.zeros(5, 1, 16, 16)
    assert {part.device.type for part in objective(model, x)} == {"meta"}


def test_resampling_draws_by_the_normalised_weights():
    """Many copies of one image and its samples: the mean gradient of each, given the samples, is that of `dreg`."""
    model, copies = LinearVAE(shift=0.4, widen=0.3), 50_000
    x = linear_data(1)
    epsilon = torch.randn(4, 1, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    mu, log_var = (part.detach() for part in model.encoder(x))
    gradients = {}
    for objective in (dreg, resampled_dreg):
        shifts = torch.zeros(copies, 6, dtype=torch.float64, requires_grad=True)
        model.encoder = partial(moved_posterior, mu, log_var.expand(copies, 3), shifts)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(torch, "randn_like", lambda like, **_: epsilon.expand_as(like))
            bound = objective(model, x.expand(copies, 1, 4, 4), 4, torch.Generator().manual_seed(1)).elbo.sum()
        (gradients[objective],) = torch.autograd.grad(bound, shifts)
    expected, found = gradients[dreg][0], gradients[resampled_dreg]
    assert len(found.round(decimals=9).unique(dim=0)) == 4
    stderr = found.std(0) / copies**0.5
    assert ((found.mean(0) - expected).abs() < 4.5 * stderr).all()


def test_resampling_repeats_with_its_generator():
    gradients = []
    for seed in (0, 0, 1):
        model = LinearVAE(shift=0.4, widen=0.3)
        resampled_dreg(model, linear_data(5), 4, torch.Generator().manual_seed(seed)).elbo.sum().backward()
        gradients.append(model.weight.grad)
    assert torch.equal(gradients[0], gradients[1]) and not torch.equal(gradients[0], gradients[2])


@pytest.mark.parametrize("objective", [dreg, resampled_dreg])
def test_a_decoder_that_yields_nan_gives_a_bound_that_is_nan(objective):
    model = LinearVAE()
    with torch.no_grad():
        model.weight[0] = torch.nan
    bound = objective(model, linear_data(2), 3)
    assert bound.elbo.isnan().all() and bound.log_px_given_z.isnan().all()


def test_sleep_phase_is_the_encoders_density_at_the_latents_of_the_models_own_images():
    """Its mean in closed form: minus the posterior's entropy, less KL(posterior || q), the same for each image."""
    model = LinearVAE(shift=0.3, widen=0.5)
    model.latent_dim = WIDTH
    bound = sleep_phase(model, X[:1].expand(50_000, 1, 4, 4), torch.Generator().manual_seed(0))
    mu, covariance = LINEAR.posterior(torch.zeros(1, 16, dtype=torch.float64))
    posterior = MultivariateNormal(mu, covariance)
    q = Independent(Normal(mu + 0.3, (covariance.diagonal() * math.exp(0.5)).sqrt().expand_as(mu)), 1)
    exact = -posterior.entropy() - kl_divergence(posterior, MultivariateNormal(q.mean, q.variance.diag_embed()))
    assert bound.elbo.shape == (50_000,)
    assert abs(bound.elbo.mean() - exact).item() < 4 * bound.elbo.std().item() / 50_000**0.5
    assert torch.equal(bound.elbo, bound.log_px_given_z) and not bound.kl.any()


def test_sleep_phase_repeats_with_its_generator_and_teaches_the_encoder_alone():
    values = []
    for seed in (0, 0, 1):
        model = conv_vae((1, 16, 16), (4, 8), 3).train()
        before = {name: value.clone() for name, value in model.decoder.state_dict().items()}
        with torch.random.fork_rng():
            torch.manual_seed(3)
            for weights in model.parameters():
                torch.nn.init.normal_(weights, std=0.3)
        values.append(sleep_phase(model, torch.zeros(6, 1, 16, 16), torch.Generator().manual_seed(seed)).elbo)
        values[-1].sum().backward()
        assert all(weights.grad is None for weights in model.decoder.parameters()) and model.decoder.training
        assert all(torch.equal(before[name], value) for name, value in model.decoder.state_dict().items()
                   if "running" in name or "num_batches" in name)
        assert all(weights.grad is not None for weights in model.encoder.parameters())
        assert model.encoder.stages[0][1].num_batches_tracked == 1
    model.eval()
    sleep_phase(model, torch.zeros(6, 1, 16, 16))
    assert not model.training and model.encoder.stages[0][1].num_batches_tracked == 1
    assert torch.equal(values[0], values[1]) and not torch.equal(values[0], values[2])


def test_sleep_phase_draws_images_of_the_type_that_it_is_given_under_autocast():
    with torch.autocast("cpu", torch.bfloat16):
        bound = sleep_phase(conv_vae((1, 16, 16), (4, 8), 3), torch.zeros(6, 1, 16, 16))
    assert bound.elbo.dtype == torch.float32 and bound.elbo.isfinite().all()


def test_sleep_phase_makes_q_cover_the_posterior():
    """The best diagonal q of this objective has the posterior's mean and marginal variances: no gradient there."""
    model = LinearVAE()
    model.latent_dim = WIDTH
    bound = sleep_phase(model, X[:1].expand(50_000, 1, 4, 4), torch.Generator().manual_seed(0)).elbo
    gradients = torch.cat(torch.autograd.grad(bound.mean(), (model.shift, model.widen)))
    # by mu: (z - mu) / variance, with variance 1 / variance; by log variance: (t**2 - 1) / 2, with variance 1/2
    _, covariance = LINEAR.posterior(torch.zeros(1, 16, dtype=torch.float64))
    stderr = torch.cat([covariance.diagonal() ** -0.5, torch.full((3,), 0.5**0.5)]) / 50_000**0.5
    assert (gradients.abs() < 4 * stderr).all()


def test_fitting_to_a_sleep_phase_leaves_the_decoder_to_the_bit():
    model = conv_vae((1, 16, 16), (4, 8), 3)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    images = torch.randint(0, 256, (40, 1, 16, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    fit(model, images, steps=7, batch_size=8, objective=sleep_phase, weight_decay=1.0, ema=0.9, clip=1.0, decay=True,
        autocast=True, progress=False)
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]) == name.startswith("decoder"), name


def test_ex_post_is_the_mean_log_density_of_the_prior_under_the_encoder():
    """Its mean is minus the cross-entropy of two Gaussians: minus the entropy of q, less KL(q || r)."""
    model = LinearVAE(shift=0.3, widen=0.5)
    prior = MultivariateNormal(torch.full((WIDTH,), 0.2).double(), (1 + torch.arange(WIDTH)).double().diag())
    bound = ex_post(prior, X[:1].expand(50_000, 1, 4, 4), model, generator=torch.Generator().manual_seed(0))
    mu, log_var = (part[0].detach() for part in model.encoder(X[:1]))
    q = MultivariateNormal(mu, log_var.exp().diag())
    exact = -q.entropy() - kl_divergence(q, prior)
    assert bound.elbo.shape == (50_000,)
    assert abs(bound.elbo.mean() - exact).item() < 4 * bound.elbo.std().item() / 50_000**0.5
    assert torch.equal(bound.elbo, bound.log_px_given_z) and not bound.kl.any()
    averaged = ex_post(prior, X[:1].expand(10_000, 1, 4, 4), model, 4, torch.Generator().manual_seed(1)).elbo
    assert averaged.std().item() == pytest.approx(bound.elbo.std().item() / 2, rel=0.05)


def test_ex_post_teaches_the_prior_alone_by_fit_and_repeats_with_its_generator():
    torch.manual_seed(0)
    model, prior = conv_vae((1, 16, 16), (4, 8), 4).train(), RealNVP(4, hidden=8, couplings=2)
    model.encoder.to_mu.bias.data += 1  # away from N(0, I), which a new flow is
    x = torch.rand(64, 1, 16, 16)
    values = [ex_post(prior, x, model, 3, torch.Generator().manual_seed(seed)).elbo for seed in (0, 0, 1)]
    assert torch.equal(values[0], values[1]) and not torch.equal(values[0], values[2])
    before = {name: value.clone() for name, value in model.state_dict().items()}
    history = fit(prior, x, steps=60, batch_size=32, learning_rate=1e-2, objective=partial(ex_post, vae=model),
                  device="cpu", progress=False)["elbo"]
    assert sum(history[-10:]) > sum(history[:10]) + 1
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items()) and model.training
    assert all(weights.grad is None for weights in model.parameters())
