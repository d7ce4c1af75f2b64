"""Held-out bounds and likelihoods against exact models."""

import math
import subprocess
import sys

import numpy as np
import pytest
import torch
from affine_vae import LIKELIHOOD, AffineVAE, X, affine_vae, close, exact_vae, normals
from torch import nn
from torch.distributions import (
    Independent,
    MultivariateNormal,
    Normal,
    kl_divergence,
)

from vae_lib import evaluation
from vae_lib.evaluation import average_estimates, held_out_elbo, importance_estimates, nll
from vae_lib.exact import LinearGaussian
from vae_lib.latents import average_kl_split, encode_all
from vae_lib.likelihoods import Bernoulli
from vae_lib.models import dense_ae
from vae_lib.objectives import log_weights
from vae_lib.residual import ResidualBlock, residual_vae

# --- held_out_elbo and encode_all

def test_held_out_elbo_converges_to_the_exact_elbo_of_the_linear_gaussian_model():
    model = affine_vae()
    exact = LinearGaussian(model.to_output.weight.detach(), model.to_output.bias.detach(), 0.3)
    mu, log_var = encode_all(model, X)
    expected = exact.elbo(X.flatten(1), mu, log_var)
    result = held_out_elbo(model, X, num_samples=4000)
    assert all(isinstance(value, float) for value in result)
    assert result.elbo == pytest.approx(expected.mean().item(), abs=0.05)
    assert result.stderr == pytest.approx(expected.std().item() / math.sqrt(50), rel=0.02)
    divergence = kl_divergence(Normal(mu, (0.5 * log_var).exp()), Normal(0.0, 1.0)).sum(-1).mean()
    assert result.kl == pytest.approx(divergence.item(), abs=1e-10)
    assert result.elbo == pytest.approx(result.log_px_given_z - result.kl, abs=1e-10)


def test_held_out_elbo_samples_z_and_never_takes_the_mean():
    model = affine_vae()
    mu, log_var = encode_all(model, X)
    at_mean = Normal(model.decoder(mu), 0.3**0.5).log_prob(X).sum((1, 2, 3)).mean().item()
    lost = ((model.to_output.weight**2).sum(0) * log_var.exp()).sum(-1).mean().item() / 0.6
    assert lost > 1
    result = held_out_elbo(model, X, num_samples=2000)
    assert result.log_px_given_z == pytest.approx(at_mean - lost, abs=0.1)


def test_held_out_elbo_depends_on_its_seed_alone():
    model = affine_vae()
    state = torch.get_rng_state()
    first = held_out_elbo(model, X, seed=3)
    torch.randn(7)
    assert held_out_elbo(model, X, seed=3) == first
    assert held_out_elbo(model, X, seed=4) != first
    torch.set_rng_state(state)
    held_out_elbo(model, X)
    assert torch.equal(torch.get_rng_state(), state)


def test_held_out_elbo_takes_every_image_once_in_batches():
    model = affine_vae()
    model.to_log_var.weight.data.zero_()
    model.to_log_var.bias.data.fill_(-80.0)  # q is a point: nothing depends on the draws
    whole = held_out_elbo(model, X, batch_size=50)
    parts = held_out_elbo(model, X, num_samples=2, batch_size=7)
    assert parts == pytest.approx(whole, abs=1e-9)
    assert len(model.modes) == 1 + 2 * 8


def test_evaluation_mode_without_gradients_and_the_old_modes_afterwards():
    model = affine_vae()
    running_mean = model.norm.running_mean.clone()
    mu, log_var = encode_all(model, X, batch_size=20)
    held_out_elbo(model, X)
    nll(model, X, 2, progress=False)
    assert len(model.modes) == 3 + 1 + 1 and set(model.modes) == {(False, False, False)}
    assert torch.equal(model.norm.running_mean, running_mean)
    assert not mu.requires_grad and not log_var.requires_grad
    assert model.training and model.norm.training and not model.to_log_var.training
    model.encoder = lambda x: 1 / 0
    with pytest.raises(ZeroDivisionError):
        encode_all(model, X)
    assert model.training and model.norm.training and not model.to_log_var.training
    assert torch.is_grad_enabled()


def test_generators_and_images_go_to_the_device_of_the_model(monkeypatch):
    class Arrived(Exception):
        pass

    def encoder(x):
        raise Arrived(x.device.type)

    model, devices, generator = affine_vae().to("meta"), [], torch.Generator()
    model.encoder = encoder
    monkeypatch.setattr(torch, "Generator", lambda device: devices.append(device.type) or generator)
    with pytest.raises(Arrived, match="meta"):
        held_out_elbo(model, X)
    assert set(devices) == {"meta"}


def test_encode_all_equals_the_encoder_at_once():
    model = affine_vae()
    mu, log_var = encode_all(model, X, batch_size=7)
    expected = model.eval().encoder(X)
    assert mu.shape == log_var.shape == (50, 2)
    close(mu, expected[0].detach(), 1e-12)
    close(log_var, expected[1].detach(), 1e-12)


def test_encode_all_takes_a_model_without_parameters():
    model = nn.Identity()
    model.likelihood, model.encoder = Bernoulli(), lambda x: (x.flatten(1), -x.flatten(1))
    mu, log_var = encode_all(model, torch.ones(3, 1, 2, 2))
    assert torch.equal(mu, torch.ones(3, 4)) and torch.equal(log_var, -mu)


@pytest.mark.parametrize("function", [held_out_elbo, nll])
def test_a_model_without_parameters_is_measured_too(function):
    model = nn.Identity()
    model.likelihood, model.encoder = Bernoulli(), lambda x: (x.flatten(1), -x.flatten(1))
    model.decoder = lambda z: z.unflatten(-1, (1, 2, 2))
    found = function(model, torch.ones(3, 1, 2, 2), 5)
    assert found.elbo == pytest.approx(found.log_px_given_z - found.kl, abs=1e-6)


BINARY = torch.ones(4, 1, 2, 3, dtype=torch.float64)


@pytest.mark.parametrize("x, error, message", [
    (BINARY.numpy(), TypeError, r"x: wanted a floating-point tensor of shape \(N, C, H, W\).* got ndarray"),
    (BINARY.byte(), TypeError, r"x: wanted .* got uint8 of shape \(4, 1, 2, 3\)"),
    (BINARY[0], ValueError, r"x: wanted .* got float64 of shape \(1, 2, 3\)"),
    (BINARY[:0], ValueError, r"x: wanted .* got float64 of shape \(0, 1, 2, 3\)"),
    (BINARY[:, :0], ValueError, r"x: wanted .* got float64 of shape \(4, 0, 2, 3\)"),
    (BINARY * math.nan, ValueError, "x: wanted finite numbers, got NaN or infinity"),
    (BINARY * 255, ValueError, r"x: wanted values in \[0, 1\] for a Bernoulli, got 255 to 255"),
    (-BINARY, ValueError, r"x: wanted values in \[0, 1\] for a Bernoulli, got -1 to -1"),
])
@pytest.mark.parametrize("function", [held_out_elbo, encode_all, nll])
def test_images_that_are_refused(function, x, error, message):
    with pytest.raises(error, match=message):
        function(affine_vae(Bernoulli()), x)


@pytest.mark.parametrize("options, error, message", [
    ({"model": "conv"}, TypeError, "model: wanted a VAE, got str"),
    ({"x": BINARY[:1]}, ValueError, "x: wanted .* N >= 2, got float64 of shape"),
    ({"num_samples": 0}, ValueError, "num_samples: wanted an integer, 1 or more, got 0"),
    ({"num_samples": 1.0}, ValueError, "num_samples: wanted an integer, 1 or more, got 1.0"),
    ({"batch_size": 0}, ValueError, "batch_size: wanted an integer, 1 or more, got 0"),
    ({"seed": -1}, ValueError, "seed: wanted an integer, 0 or more, got -1"),
])
def test_held_out_elbo_refuses(options, error, message):
    with pytest.raises(error, match=message):
        held_out_elbo(**{"model": affine_vae(), "x": BINARY, **options})


@pytest.mark.parametrize("function", [held_out_elbo, encode_all])
def test_a_model_that_has_diverged_gives_no_measurement(function):
    model = affine_vae()
    model.to_mu.weight.data.fill_(math.nan)
    with pytest.raises(FloatingPointError, match="is not finite: the model or its prior has diverged"):
        function(model, BINARY)


def test_a_split_that_overflows_gives_no_measurement():
    with pytest.raises(ValueError, match="log_var: wanted values between -700 and 700, got 10000 to 10000"):
        average_kl_split(torch.zeros(4, 2), torch.full((4, 2), 1e4))


@pytest.mark.parametrize("function", [held_out_elbo, encode_all, nll])
def test_an_autoencoder_is_refused(function):
    """Two images would otherwise pass, as its codes unpack into two."""
    with pytest.raises(TypeError, match="model: wanted a VAE, got AE"):
        function(dense_ae((1, 2, 3), (4,), 2), X[:2].float().clamp(0, 1))


def test_encode_all_refuses_a_batch_size():
    with pytest.raises(ValueError, match="batch_size: wanted an integer, 1 or more, got -1"):
        encode_all(affine_vae(), BINARY, batch_size=-1)


def test_pixels_of_any_range_pass_under_a_gaussian():
    assert math.isfinite(held_out_elbo(affine_vae(), BINARY * -3).elbo)


def test_nll_converges_to_the_exact_likelihood_and_comes_with_the_exact_elbo():
    model, exact = exact_vae(shift=0.3, widen=0.4)
    found = nll(model, X, num_samples=4000, progress=False)
    log_px = exact.log_px(X.flatten(1))
    assert abs(found.nll + log_px.mean().item()) < 0.01
    assert found.stderr == pytest.approx(log_px.std().item() / 50**0.5, rel=0.02)
    bound = exact.elbo(X.flatten(1), *model.encoder(X)).mean().item()
    assert abs(found.elbo - bound) < 0.02 and found.elbo == pytest.approx(found.log_px_given_z - found.kl)
    assert found.kl == pytest.approx(kl_to_prior(model, X), rel=1e-6) and found.num_samples == 4000


def kl_to_prior(model, x):
    mu, log_var = model.encoder(x)
    q = Normal(mu, (0.5 * log_var).exp())
    return kl_divergence(q, Normal(torch.zeros_like(mu), torch.ones_like(mu))).sum(1).mean().item()


def test_nll_falls_with_the_number_of_samples():
    model, exact = exact_vae(shift=0.5, widen=1.0)
    copies = X[:1].expand(2000, 1, 2, 3)
    found = [nll(model, copies, k, progress=False) for k in (1, 4, 32, 256)]
    assert all(a.nll - b.nll > 4 * math.hypot(a.stderr, b.stderr) for a, b in zip(found, found[1:]))
    assert found[0].nll == pytest.approx(-found[0].elbo, abs=4 * found[0].stderr * 2)
    assert abs(found[-1].nll + exact.log_px(X[:1].flatten(1)).item()) < 0.02


def test_effective_sample_size_is_all_samples_for_the_posterior_and_few_for_a_bad_q():
    weight = torch.tensor([[1.0, 0.0]] * 3 + [[0.0, 1.0]] * 3, dtype=torch.float64)  # a diagonal posterior
    model = AffineVAE(LIKELIHOOD)
    with torch.no_grad():
        model.to_output.weight.copy_(weight)
    exact = LinearGaussian(weight, model.to_output.bias.detach(), LIKELIHOOD.variance)
    posterior = lambda x: (exact.posterior(x.flatten(1))[0],
                           exact.posterior(x.flatten(1))[1].diagonal().log().expand(len(x), 2))
    model.encoder = posterior
    best = nll(model, X, 40, progress=False)
    assert best.effective_sample_size == pytest.approx(40, abs=1e-6)
    assert best.nll == pytest.approx(-exact.log_px(X.flatten(1)).mean().item(), abs=1e-9)
    model.encoder = lambda x: (posterior(x)[0] + 3, posterior(x)[1])
    worst = nll(model, X, 40, progress=False)
    assert 1 <= worst.effective_sample_size < 3


def test_effective_sample_size_and_nll_are_what_numpy_makes_of_the_weights(monkeypatch):
    model, _ = exact_vae(shift=0.4)
    seen = []
    monkeypatch.setattr(evaluation, "log_weights", lambda *a: seen.append(log_weights(*a)) or seen[-1])
    found = nll(model, X[:3], num_samples=7, batch_size=7, progress=False)
    weights = np.exp(np.concatenate([log_w.numpy() for log_w in seen], axis=1))
    assert weights.shape == (7, 3)
    sizes = weights.sum(0) ** 2 / (weights**2).sum(0)
    assert found.effective_sample_size == pytest.approx(sizes.mean())
    assert found.nll == pytest.approx(-np.log(weights.mean(0)).mean())


@pytest.mark.parametrize("batch_size", [1, 6, 7, 64, 1000])
def test_nll_takes_every_sample_of_every_image_once_in_batches(batch_size):
    model, exact = exact_vae()
    decoded, decode = [], model.decoder
    model.decoder = lambda z: decoded.append(z) or decode(z)
    found = nll(model, X[:10], num_samples=30, batch_size=batch_size, progress=False)
    assert sum(z.shape[0] * z.shape[1] for z in decoded) == 300
    assert max(z.shape[0] * z.shape[1] for z in decoded) <= batch_size
    assert abs(found.nll + exact.log_px(X[:10].flatten(1)).mean().item()) < 0.1


def test_nll_averages_log_px_given_z_in_float64():
    model, _ = exact_vae()
    decoded, decode = [], model.decoder
    model.decoder = lambda z: decoded.append(z) or decode(z)
    found = nll(model, X[:2], num_samples=30, batch_size=7, progress=False)
    z = torch.cat(decoded).view(2, 30, 1, 2).transpose(0, 1).squeeze(2)  # one image after another
    expected = LIKELIHOOD.log_prob(X[:2], decode(z)).mean().item()
    assert found.log_px_given_z == pytest.approx(expected, rel=1e-13)


def test_nll_depends_on_its_seed_alone_and_leaves_the_model_as_it_was():
    torch.manual_seed(0)
    model = residual_vae((1, 4, 4), channels=(3,), latent_dim=2).train()
    x = (normals(6, 1, 4, 4) > 0).float()
    before = torch.random.get_rng_state()
    one, two, other = (nll(model, x, 20, seed=seed, progress=False) for seed in (1, 1, 2))
    assert one == two != other and model.training
    assert torch.equal(torch.random.get_rng_state(), before)
    assert all(weights.is_contiguous() for weights in model.parameters())


def test_500_samples_in_batches_of_500_from_seed_0_in_float32_unless_stated():
    torch.manual_seed(0)
    model, x = residual_vae((1, 4, 4), channels=(3,), latent_dim=2), (normals(600, 1, 4, 4) > 0).float()
    assert held_out_elbo(model, x) == held_out_elbo(model, x, num_samples=1, batch_size=500, seed=0)
    stated = dict(num_samples=500, seed=0, autocast=False, progress=False)
    assert nll(model, x[:3]) == nll(model, x[:3], batch_size=500, **stated)
    assert nll(model, x[:3], 600) == nll(model, x[:3], **stated | dict(num_samples=600), batch_size=500)
    for number in (500, 600):
        estimates = importance_estimates(model, x[:3], **stated | dict(num_samples=number), batch_size=500)
        implied = importance_estimates(model, x[:3], *([] if number == 500 else [number]))
        assert all(map(torch.equal, implied, estimates))


def test_convolutions_run_in_the_faster_memory_format():
    model, formats = residual_vae((1, 4, 4), channels=(3,), latent_dim=2), []
    kernels = [weights for weights in model.parameters() if weights.dim() == 4]
    model.decoder.register_forward_hook(lambda *_: formats.extend(
        weights.is_contiguous(memory_format=torch.channels_last) for weights in kernels))
    nll(model, (normals(6, 1, 4, 4) > 0).float(), 2, progress=False)
    assert formats and all(formats)


def test_nll_in_bfloat16_is_near_that_in_float32():
    torch.manual_seed(0)
    model = residual_vae((1, 8, 8), channels=(8, 8), latent_dim=2)
    for module in model.modules():
        if isinstance(module, ResidualBlock):
            nn.init.normal_(module.second.weight, std=0.1)
    x = (normals(20, 1, 8, 8) > 0).float()
    one, two = (nll(model, x, 50, autocast=autocast, progress=False) for autocast in (False, True))
    assert one != two and abs(one.nll - two.nll) < 0.1


def test_nll_stays_small_however_many_samples():
    model, _ = exact_vae()
    model.decoder = lambda z, decode=model.decoder: sizes.append(z.numel()) or decode(z)
    sizes = []
    nll(model, X[:2], num_samples=3000, progress=False)
    assert max(sizes) == 500 * 2


MOST_MEMORY = """
import torch
from vae_lib.evaluation import importance_estimates
from vae_lib.recipes import pretrained

def most():
    (kibibytes,) = (line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM"))
    return int(kibibytes)

model, x = pretrained("two_hours"), torch.zeros(4000, 1, 28, 28)
before = most()
importance_estimates(model, x, 1, progress=False)
importance_estimates(model, x[:1], 5000, progress=False)
print(most(), most() - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="how large a process has been is asked of Linux")
def test_five_thousand_samples_of_any_number_of_images_stay_under_four_gib():
    """Images come in turn, so 4,000 with one sample and one with 5,000 should take what all with 5,000 do: 0.1 GiB.

    The 4,000 images at once would take 0.35 GiB, and one image's 5,000 samples at once 0.5 GiB.
    """
    done = subprocess.run([sys.executable, "-c", MOST_MEMORY], capture_output=True, text=True, check=True)
    most, added = (int(kibibytes) / 2**20 for kibibytes in done.stdout.split())
    assert most < 4 and added < 0.25


def with_a_gaussian_prior():
    """A linear-Gaussian VAE with the prior N(m, C), and its exact density of images, N(Wm + b, WCW' + s2 I)."""
    model, exact = exact_vae(shift=0.2, widen=1.0)
    factor = torch.tensor([[0.9, 0.0], [0.4, 0.7]], dtype=torch.float64)
    prior = MultivariateNormal(torch.tensor([0.5, -0.3], dtype=torch.float64), scale_tril=factor)
    mean = exact.weight @ prior.mean + model.to_output.bias.detach()
    covariance = exact.weight @ prior.covariance_matrix @ exact.weight.T + LIKELIHOOD.variance * torch.eye(6)
    return model, prior, MultivariateNormal(mean, covariance.double())


def test_nll_with_another_prior_converges_to_its_exact_likelihood_and_elbo():
    model, prior, exact = with_a_gaussian_prior()
    found, plain = (nll(model, X, 4000, progress=False, prior=density) for density in (prior, None))
    log_px = exact.log_prob(X.flatten(1))
    assert abs(found.nll + log_px.mean().item()) < 0.02 and abs(plain.nll - found.nll) > 0.3
    mu, log_var = model.encoder(X)
    q = MultivariateNormal(mu, log_var.exp().diag_embed())
    kl = kl_divergence(q, MultivariateNormal(prior.mean, prior.covariance_matrix)).mean().item()
    assert abs(found.kl - kl) < 0.03 and found.log_px_given_z == plain.log_px_given_z
    assert found.elbo == pytest.approx(found.log_px_given_z - found.kl)


def test_with_another_prior_the_kl_of_each_image_has_the_log_ratios_at_its_own_draws():
    model, prior, _ = with_a_gaussian_prior()
    decoded, decode = [], model.decoder
    model.decoder = lambda z: decoded.append(z) or decode(z)
    found = importance_estimates(model, X[:4], 20, batch_size=80, progress=False, prior=prior).kl
    (z,), (mu, log_var) = decoded, model.encoder(X[:4])
    normal = Independent(Normal(torch.zeros(4, 2).double(), torch.ones(4, 2).double()), 1)
    kl = kl_divergence(Independent(Normal(mu, (0.5 * log_var).exp()), 1), normal)
    close(found, kl - (prior.log_prob(z) - normal.log_prob(z)).mean(0), 1e-12)


def test_held_out_elbo_with_another_prior_has_its_kl():
    model, prior, _ = with_a_gaussian_prior()
    x = X.repeat(20, 1, 1, 1)  # 3,000 samples of each image
    found, plain = (held_out_elbo(model, x, 150, batch_size=len(x) // 2, prior=density) for density in (prior, None))
    mu, log_var = model.encoder(X)
    q = MultivariateNormal(mu, log_var.exp().diag_embed())
    kl = kl_divergence(q, MultivariateNormal(prior.mean, prior.covariance_matrix)).mean().item()
    assert abs(found.kl - kl) < 0.01 and abs(plain.kl - kl) > 0.05
    assert found.elbo == pytest.approx(found.log_px_given_z - found.kl)
    assert found.log_px_given_z == plain.log_px_given_z


def test_held_out_elbo_takes_the_prior_at_the_draws_of_z():
    """The gain is the log ratio at the latents that were decoded."""
    model, prior, _ = with_a_gaussian_prior()
    decoded, decode = [], model.decoder
    model.decoder = lambda z: decoded.append(z) or decode(z)
    found, plain = (held_out_elbo(model, X, batch_size=20, prior=density) for density in (prior, None))
    z = torch.cat(decoded[:3])
    normal = MultivariateNormal(torch.zeros(2).double(), torch.eye(2).double())
    gain = (prior.log_prob(z) - normal.log_prob(z)).mean().item()
    assert found.elbo - plain.elbo == pytest.approx(gain, abs=1e-10) and abs(gain) > 1e-3


@pytest.mark.parametrize("function", [held_out_elbo, nll])
def test_a_prior_is_in_evaluation_mode_and_gets_its_mode_back(function):
    class Prior(nn.Module):
        def log_prob(self, z):
            modes.append(self.training)
            return Independent(Normal(torch.zeros(2), torch.ones(2)), 1).log_prob(z)

    model, modes, prior = exact_vae()[0], [], Prior().train()
    function(model, X, 2, prior=prior)
    assert modes and not any(modes) and prior.training


@pytest.mark.parametrize("function", [held_out_elbo, nll])
def test_a_prior_of_another_shape_is_refused(function):
    with pytest.raises(ValueError, match=r"prior: .* to turn shape \(.*50, 2\) into \((1, )?50,?\), got"):
        function(exact_vae()[0], X, 1, prior=Normal(0.0, 1.0))


def test_the_standard_normal_as_a_prior_changes_nothing():
    model, _ = exact_vae(shift=0.2)
    normal = Independent(Normal(torch.zeros(2).double(), torch.ones(2).double()), 1)
    assert nll(model, X, 5, progress=False, prior=normal) == pytest.approx(nll(model, X, 5, progress=False), abs=1e-12)
    assert held_out_elbo(model, X, prior=normal) == pytest.approx(held_out_elbo(model, X), abs=1e-12)


def test_a_prior_computes_in_the_precision_of_the_latents_under_autocast():
    seen = []

    class Recorded(nn.Linear):
        def log_prob(self, z):
            seen.append(self(z).dtype)
            return Independent(Normal(torch.zeros(2), torch.ones(2)), 1).log_prob(z)

    model = residual_vae((1, 4, 4), channels=(3,), latent_dim=2)
    nll(model, (normals(6, 1, 4, 4) > 0).float(), 2, autocast=True, progress=False, prior=Recorded(2, 2))
    assert set(seen) == {torch.float32}


@pytest.mark.parametrize("function", [held_out_elbo, nll])
@pytest.mark.parametrize("prior", ["N(0, I)", Normal])
def test_a_prior_that_is_no_density_is_refused(function, prior):
    with pytest.raises(TypeError, match="prior: wanted a density with a method log_prob"):
        function(exact_vae()[0], X, prior=prior)


def test_one_image_has_an_estimate_but_no_average():
    """The standard error over one image would be nan."""
    model, _ = exact_vae()
    estimates = importance_estimates(model, X[:1], 5, progress=False)
    assert len(estimates.log_px) == 1
    with pytest.raises(ValueError, match=r"log_px: wanted .* N >= 2, got float64 of shape \(1,\)"):
        average_estimates(estimates, 5)


def test_numbers_of_numpy_are_numbers():
    model, _ = exact_vae()
    found = nll(model, X, np.int64(5), batch_size=np.int32(100), progress=False)
    assert found == nll(model, X, 5, batch_size=100, progress=False) and type(found.num_samples) is int


def test_nll_shows_its_progress(capsys):
    model, _ = exact_vae()
    for function in (nll, importance_estimates):
        function(model, X, num_samples=2)
        assert "50/50" in (shown := capsys.readouterr().err) and "images/s" in shown
        function(model, X, num_samples=2, progress=False)
        assert not capsys.readouterr().err


@pytest.mark.parametrize("options, message", [
    (dict(num_samples=0), "num_samples: wanted an integer, 1 or more, got 0"),
    (dict(batch_size=1.5), "batch_size: wanted an integer, 1 or more, got 1.5"),
    (dict(seed=1.5), "seed: wanted an integer, 0 or more, got 1.5"),
    (dict(x=X[:1]), r"^x: wanted .* N >= 2, got float64 of shape \(1, 1, 2, 3\)"),
])
def test_nll_refuses(options, message):
    with pytest.raises(ValueError, match=message):
        nll(**{"model": exact_vae()[0], "x": X, **options})


def test_nll_of_a_diverged_model_is_no_measurement():
    model, _ = exact_vae()
    model.decoder = lambda z: z.new_full((*z.shape[:-1], 1, 2, 3), torch.nan)
    with pytest.raises(FloatingPointError, match="log_px is not finite: the model or its prior has"):
        nll(model, X, 3, progress=False)
