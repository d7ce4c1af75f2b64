"""Published losses, written as their authors' torch code has them, against densities of torch.distributions."""

import math
from inspect import Parameter, signature

import pytest
import torch
from torch.distributions import Bernoulli, Normal, kl_divergence
from torch.nn import functional as F

from vae_lib.loss_translator import translate_loss


def kld(mu, log_var):
    """The KL as most of these authors write it, (batch, latent_dim)."""
    return -0.5 * (1 + log_var - mu.pow(2) - log_var.exp())


def article(x, output, mu, log_var):
    return F.mse_loss(output, x, reduction="sum") / len(x) + kld(mu, log_var).sum(1).mean()


def pytorch_examples(x, probs, mu, log_var):
    """Both terms are sums over the batch; the optimiser cares only for their ratio."""
    return (F.binary_cross_entropy(probs, x, reduction="sum") + kld(mu, log_var).sum()) / len(x)


def mean_mse(x, output, mu, log_var):
    return F.mse_loss(output, x) + kld(mu, log_var).sum(1).mean()


def both_mean(error):
    return lambda x, output, mu, log_var: error(output, x) + kld(mu, log_var).mean()


def weighted_kl(weight):
    return lambda x, output, mu, log_var: F.mse_loss(output, x) + weight * kld(mu, log_var).sum(1).mean()


def scaled_by_255(x, output, mu, log_var):
    return F.mse_loss(output * 255, x * 255, reduction="sum") / 255 / len(x) + kld(mu, log_var).sum(1).mean()


def foster(x, probs, mu, log_var):
    per_image = F.binary_cross_entropy(probs, x, reduction="none").mean((1, 2, 3))
    return (500 * per_image).mean() + kld(mu, log_var).sum(1).mean()


def half_sse(x, output, mu, log_var):
    return 0.5 * ((x - output) ** 2).flatten(1).sum(1).mean() + kld(mu, log_var).sum(1).mean()


def mean_mse_kl_of_the_batch(x, output, mu, log_var):
    return F.mse_loss(output, x) + kld(mu, log_var).sum()


BCE = dict(reconstruction="cross entropy")
# the loss, image shape, latents, how it is described, and the variance (None: Bernoulli), the variance on
# [0, 1], the KL weight and the constant, worked out by hand
PUBLISHED = {
    "the article at 64x64": (
        article, (1, 64, 64), 5, dict(pixel_range=(-1, 1)), 1 / 2, 1 / 8, 1, 2048 * math.log(math.pi)),
    "sum of squares on [0, 1] at 28x28": (
        article, (1, 28, 28), 5, dict(), 1 / 2, 1 / 2, 1, 392 * math.log(math.pi)),
    "sum of squares, said to be of unit variance": (
        article, (1, 28, 28), 5, dict(variance=1), 1, 1, 1 / 2, 392 * math.log(2 * math.pi)),
    "half the sum of squares": (
        half_sse, (1, 28, 28), 5, dict(weight=0.5), 1, 1, 1, 392 * math.log(2 * math.pi)),
    "pytorch/examples": (pytorch_examples, (1, 28, 28), 20, BCE, None, None, 1, 0),
    "mean MSE, summed KL at 28x28": (
        mean_mse, (1, 28, 28), 5, dict(reduction="mean"), 392, 392, 1, 392 * math.log(784 * math.pi)),
    "mean MSE, summed KL, said to be of unit variance": (
        mean_mse, (1, 28, 28), 5, dict(reduction="mean", variance=1.0), 1, 1, 392, 392 * math.log(2 * math.pi)),
    "mean MSE, KL summed over a batch of 3": (
        mean_mse_kl_of_the_batch, (1, 28, 28), 5, dict(reduction="mean", kl_weight=3),
        1176, 1176, 1, 392 * math.log(2352 * math.pi)),
    "fastai 29_vae": (
        both_mean(F.binary_cross_entropy), (1, 28, 28), 200,
        BCE | dict(reduction="mean", kl_reduction="mean", latent_dim=200), None, None, 3.92, 0),
    "both terms mean-reduced, squared error": (
        both_mean(F.mse_loss), (1, 28, 28), 200, dict(reduction="mean", kl_reduction="mean", latent_dim=200),
        1.96, 1.96, 1, 392 * math.log(3.92 * math.pi)),
    "AntixK/PyTorch-VAE, in training": (
        weighted_kl(0.00025), (3, 64, 64), 128, dict(reduction="mean", kl_weight=0.00025),
        1.536, 1.536, 1, 6144 * math.log(3.072 * math.pi)),
    "AntixK/PyTorch-VAE, in validation": (
        weighted_kl(1.0), (3, 64, 64), 128, dict(reduction="mean"),
        6144, 6144, 1, 6144 * math.log(12288 * math.pi)),
    "disentangling-vae, gaussian": (
        scaled_by_255, (1, 32, 32), 10, dict(weight=255), 1 / 510, 1 / 510, 1, 512 * math.log(math.pi / 255)),
    "the same, on pixels of 0 to 255": (
        scaled_by_255, (1, 32, 32), 10, dict(weight=1 / 255, pixel_range=[0, 255]),
        127.5, 1 / 510, 1, 512 * math.log(255 * math.pi)),
    "Foster, fashion VAE": (
        foster, (1, 32, 32), 2, BCE | dict(reduction="mean", weight=500), None, None, 2.048, 0),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_published_loss_is_what_its_translation_says(name):
    loss, image_shape, latent_dim, description, variance, on_unit_range, beta, constant = PUBLISHED[name]
    found = translate_loss(pixels=math.prod(image_shape), **description)
    expected = (variance, on_unit_range, beta, constant)
    assert (found.variance, found.variance_on_unit_range, found.beta, found.constant) == pytest.approx(expected)

    generator = torch.Generator().manual_seed(0)
    x = torch.rand(3, *image_shape, dtype=torch.float64, generator=generator)
    output = torch.rand(3, *image_shape, dtype=torch.float64, generator=generator)
    mu, log_var = torch.randn(2, 3, latent_dim, dtype=torch.float64, generator=generator)
    low, high = description.get("pixel_range", (0, 1))
    if variance is None:
        x = x.round()
        likelihood = lambda x, output: Bernoulli(output).log_prob(x)
    else:  # pixels as the description counts them; the loss of 0 to 255 takes them on [0, 1]
        x, output = (low + (high - low) * pixels for pixels in (x, output))
        likelihood = lambda x, output: Normal(output, math.sqrt(variance)).log_prob(x)
    unit = 255 if high == 255 else 1
    inputs = [values.requires_grad_() for values in (output, mu, log_var)]

    log_px_given_z = likelihood(x, output).sum((1, 2, 3))
    kl = kl_divergence(Normal(mu, (0.5 * log_var).exp()), Normal(torch.zeros_like(mu), 1.0)).sum(1)
    objective = -(log_px_given_z - beta * kl).mean()
    in_nats = found.nats_per_unit * loss(x / unit, output / unit, mu, log_var) + found.constant
    assert in_nats.item() == pytest.approx(objective.item(), rel=1e-12)
    for left, right in zip(*(torch.autograd.grad(value, inputs) for value in (in_nats, objective))):
        torch.testing.assert_close(left, right, rtol=1e-9, atol=1e-12)


def test_published_losses_are_eight_at_least():
    assert len({loss[0] for loss in PUBLISHED.values()}) >= 8


def test_the_variance_is_four_times_as_large_on_pixels_from_minus_one_to_one():
    wide, narrow = translate_loss(pixels=784, pixel_range=(-1, 1)), translate_loss(pixels=784, weight=4)
    assert wide.variance == 4 * narrow.variance == 4 * wide.variance_on_unit_range


def test_a_stated_variance_is_one_point_of_a_line():
    """c / (2 w) = beta * s2 whatever the author calls the variance."""
    for variance in (0.01, 0.5, 392):
        found = translate_loss(pixels=10, weight=0.2, kl_weight=3.0, variance=variance)
        assert found.beta * found.variance == pytest.approx(7.5) and found.variance == variance


def test_beta_is_exactly_one_unless_a_variance_is_stated():
    assert {translate_loss(pixels=10, weight=tenths / 10).beta for tenths in range(1, 100)} == {1}


def test_to_state_a_default_changes_nothing():
    defaults = {name: parameter.default for name, parameter in signature(translate_loss).parameters.items()
                if parameter.default is not Parameter.empty}
    assert len(defaults) == 8
    for name, value in defaults.items():
        assert translate_loss(pixels=10, **{name: value}) == translate_loss(pixels=10)


def test_translations_print_as_tables():
    assert str(translate_loss(pixels=4096, pixel_range=(-1, 1))) == (
        "decoder variance s2     = 0.5\n"
        "s2 on pixels in [0, 1]  = 0.125\n"
        "weight beta of the KL   = 1\n"
        "-(log p(x|z) - beta KL) = 1 * loss + 2344.41 nats")
    assert str(translate_loss("cross entropy", "mean", pixels=1024, weight=500)) == (
        "decoder                 = Bernoulli, for binary pixels\n"
        "weight beta of the KL   = 2.048\n"
        "-(log p(x|z) - beta KL) = 2.048 * loss + 0 nats")


@pytest.mark.parametrize("arguments, message", [
    (dict(reconstruction="mse"), "reconstruction: wanted 'squared error' or 'cross entropy', got 'mse'"),
    (dict(reduction="none"), "reduction: wanted 'sum' or 'mean', got 'none'"),
    (dict(kl_reduction=None), "kl_reduction: wanted 'sum' or 'mean', got None"),
    (dict(pixels=0), "pixels: wanted an integer, 1 or more, got 0"),
    (dict(pixels=784.0), "pixels: wanted an integer, 1 or more"),
    (dict(kl_reduction="mean"), "^latent_dim: wanted a positive integer, for a KL averaged over latents, got None$"),
    (dict(latent_dim=0), "latent_dim: wanted an integer, 1 or more"),
    (dict(pixel_range=(1, 0)), r"pixel_range: wanted two finite numbers, the lower one first, got \(1, 0\)"),
    (dict(pixel_range=(0, math.inf)), "pixel_range: wanted two finite"),
    (dict(pixel_range=(0, math.nan)), "pixel_range: wanted two finite"),
    (dict(pixel_range=(0, 1, 2)), "pixel_range: wanted two finite"),
    (dict(pixel_range="01"), "pixel_range: wanted two finite"),
    (dict(pixel_range=("0", "1")), "pixel_range: wanted two finite"),
    (BCE | dict(pixel_range=(-1, 1)), r"pixel_range: wanted None and \(0, 1\) for cross entropy, got None and \(-1"),
    (BCE | dict(variance=0.5), r"variance, pixel_range: wanted None and \(0, 1\) for cross entropy, got 0.5 and"),
    (dict(variance=0), "variance: wanted a positive finite number, got 0"),
    (dict(weight=0), "^weight: wanted a positive finite number, got 0"),
    (dict(kl_weight=-1.0), "kl_weight: wanted a positive finite number, got -1.0"),
    (dict(kl_weight=math.inf), "kl_weight: .* got inf"),
])
def test_what_has_no_meaning_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        translate_loss(**{"pixels": 784, **arguments})
