"""Likelihoods against torch.distributions, on images with more than one channel and more than one sample of z."""

import math

import numpy as np
import pytest
import torch
from torch.distributions import Bernoulli as TorchBernoulli
from torch.distributions import Independent, Normal

from vae_lib.evaluation import held_out_elbo, nll
from vae_lib.likelihoods import (
    Bernoulli,
    Gaussian,
    LearnedVarianceGaussian,
    bernoulli_log_prob,
    gaussian_log_prob,
    learned_gaussian_log_prob,
    optimal_variance,
)
from vae_lib.models import dense_vae
from vae_lib.objectives import article_loss
from vae_lib.training import fit

OUTPUT = torch.randn(6, 4, 2, 5, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def test_bernoulli_log_prob_equals_torch_distributions():
    x = torch.bernoulli(torch.full((4, 2, 5, 5), 0.3, dtype=torch.float64))
    expected = Independent(TorchBernoulli(logits=OUTPUT), 3).log_prob(x.expand_as(OUTPUT))
    assert expected.shape == (6, 4)
    torch.testing.assert_close(bernoulli_log_prob(x, OUTPUT), expected, rtol=0, atol=1e-12)
    torch.testing.assert_close(Bernoulli().log_prob(x, OUTPUT), expected, rtol=0, atol=1e-12)


def test_bernoulli_log_prob_stays_finite_for_extreme_logits():
    logits = torch.tensor([[[200.0, -200.0]]])
    assert bernoulli_log_prob(torch.tensor([[[1.0, 0.0]]]), logits).item() == 0.0
    assert bernoulli_log_prob(torch.tensor([[[0.0, 1.0]]]), logits).item() == -400.0


def test_a_gaussian_whose_variance_is_zero_in_float32_has_a_density_at_its_mean():
    x = torch.zeros(3, 1, 2, 2)
    expected = -2 * math.log(2 * math.pi * 1e-60)
    for found in (gaussian_log_prob(x, x, 1e-60), learned_gaussian_log_prob(x, x, torch.tensor(math.log(1e-60)))):
        torch.testing.assert_close(found, torch.full((3,), expected, dtype=found.dtype))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_and_answered_in_float32(dtype):
    """A square of 300 is infinite in float16, and a sum over 784 pixels is rounded in both."""
    x = torch.bernoulli(torch.full((2, 1, 28, 28), 0.3), generator=torch.Generator().manual_seed(0)).to(dtype)
    output, log_var = 300 * x + 1, torch.tensor(0.5, dtype=dtype)
    for formula, args in ((bernoulli_log_prob, (x, output)), (gaussian_log_prob, (x, output, 0.5)),
                          (learned_gaussian_log_prob, (x, output, log_var)), (optimal_variance, (x, output)),
                          (article_loss, (x, output, output.flatten(1), x.flatten(1)))):
        found = formula(*args)
        expected = formula(*(part.double() if isinstance(part, torch.Tensor) else part for part in args))
        assert found.dtype == torch.float32
        torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=0)
    for likelihood in (Bernoulli(), Gaussian(0.5), LearnedVarianceGaussian().to(dtype)):
        assert likelihood.log_prob(x, output).dtype == torch.float32
        assert likelihood.sample(output).dtype == likelihood.mean(output).dtype == dtype


@pytest.mark.parametrize("variance", [0.5, 0.01, 3])
def test_gaussian_log_prob_equals_torch_distributions(variance):
    x = torch.randn(4, 2, 5, 5, dtype=torch.float64)
    expected = Independent(Normal(OUTPUT, variance**0.5), 3).log_prob(x)
    torch.testing.assert_close(gaussian_log_prob(x, OUTPUT, variance), expected, rtol=0, atol=1e-9)
    torch.testing.assert_close(Gaussian(variance).log_prob(x, OUTPUT), expected, rtol=0, atol=1e-9)
    log_var = torch.tensor(math.log(variance), dtype=torch.float64)
    torch.testing.assert_close(learned_gaussian_log_prob(x, OUTPUT, log_var), expected, rtol=0, atol=1e-9)
    learned = LearnedVarianceGaussian(variance).double()
    torch.testing.assert_close(learned.log_prob(x, OUTPUT), expected, rtol=1e-6, atol=0)
    assert learned.variance == pytest.approx(variance, rel=1e-6)
    torch.testing.assert_close(learned.mean(OUTPUT), Gaussian(variance).mean(OUTPUT), rtol=0, atol=0)


def test_samples_have_the_likelihood_s_mean_and_spread():
    generator = torch.Generator().manual_seed(1)
    output = torch.linspace(-2, 2, 5).reshape(1, 1, 5).expand(100_000, 1, 1, 5)
    binary = Bernoulli().sample(output, generator)
    probs = Bernoulli().mean(output[0])
    torch.testing.assert_close(probs, 1 / (1 + (-output[0]).exp()))
    assert set(binary.unique().tolist()) == {0.0, 1.0}
    assert ((binary.mean(0) - probs).abs() < 4 * (probs * (1 - probs) / 100_000).sqrt()).all()
    for gaussian in (Gaussian(0.25), LearnedVarianceGaussian(0.25)):
        draws = gaussian.sample(output, generator)
        assert ((draws.mean(0) - gaussian.mean(output[0])).abs() < 4 * 0.5 / 100_000**0.5).all()
        assert ((draws.std(0) - 0.5).abs() < 4 * 0.5 / (2 * 100_000) ** 0.5).all()


def test_the_optimal_variance_is_where_gradient_ascent_on_the_learned_one_ends():
    x = torch.rand(4, 2, 5, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    best = optimal_variance(x, OUTPUT)
    assert best.item() == pytest.approx(torch.nn.functional.mse_loss(OUTPUT, x.expand_as(OUTPUT)).item(), abs=1e-12)
    likelihood = LearnedVarianceGaussian(0.1).double()
    optimizer = torch.optim.LBFGS(likelihood.parameters(), max_iter=100, tolerance_grad=1e-10, tolerance_change=0,
                                  line_search_fn="strong_wolfe")

    def loss():
        optimizer.zero_grad()
        value = -likelihood.log_prob(x, OUTPUT).mean()
        value.backward()
        return value

    optimizer.step(loss)
    assert likelihood.variance == pytest.approx(best.item(), rel=1e-6)
    for other in (0.99, 1.01):
        assert (gaussian_log_prob(x, OUTPUT, other * best.item()).sum()
                < gaussian_log_prob(x, OUTPUT, best.item()).sum())


def test_fit_trains_the_variance_with_the_networks():
    """Images of noise about one mean: the learned variance ends at the noise's."""
    noise = torch.randn(512, 1, 4, 4, generator=torch.Generator().manual_seed(2))
    torch.manual_seed(0)
    model = dense_vae((1, 4, 4), (8,), 2, likelihood=LearnedVarianceGaussian())
    names = [name for name, _ in model.named_parameters()]
    assert "likelihood.log_var" in names and "likelihood.log_var" in model.state_dict()
    fit(model, 0.5 + 0.2 * noise, steps=400, learning_rate=0.02, progress=False, clip=100.0, ema=0.9, warm_up=10)
    assert model.likelihood.variance == pytest.approx(0.04, rel=0.15)


def test_a_draw_is_what_its_generator_makes_of_it():
    seeded = lambda: torch.Generator().manual_seed(3)
    torch.testing.assert_close(Bernoulli().sample(OUTPUT, seeded()),
                               torch.bernoulli(1 / (1 + (-OUTPUT).exp()), generator=seeded()), rtol=0, atol=0)
    eps = torch.randn(OUTPUT.shape, dtype=torch.float64, generator=seeded())
    torch.testing.assert_close(Gaussian(0.25).sample(OUTPUT, seeded()), OUTPUT + 0.5 * eps)


@pytest.mark.parametrize("x, output", [
    ((8, 28, 28), (8, 1, 28, 28)), ((8, 1, 28, 28), (8, 28, 28)), ((28, 28), (28, 28)),
    ((8, 1, 28, 28), (8, 3, 28, 28)), ((8, 1, 1, 28), (8, 1, 28, 28)),
])
def test_images_of_another_size_than_the_output_are_refused(x, output):
    """Not broadcast, which would compare each image with each output, and give a wrong number for all."""
    for likelihood in (Bernoulli(), Gaussian(0.5), LearnedVarianceGaussian()):
        with pytest.raises(ValueError, match=r"^x: wanted images of shape \(..., .*28\), as the decoder's output has"):
            likelihood.log_prob(torch.zeros(x), torch.zeros(output))
    with pytest.raises(ValueError, match="^x: wanted images of shape"):
        article_loss(torch.zeros(x), torch.zeros(output), torch.zeros(8, 2), torch.zeros(8, 2))


def test_training_and_measuring_refuse_a_decoder_of_another_size():
    model = dense_vae((1, 4, 4), (), 2)
    model.decoder.register_forward_hook(lambda decoder, inputs, output: output.squeeze(-3))
    x = torch.bernoulli(torch.full((8, 1, 4, 4), 0.5))
    for call in (lambda: fit(model, x, steps=1, batch_size=8, progress=False), lambda: held_out_elbo(model, x),
                 lambda: nll(model, x, 3, progress=False)):
        with pytest.raises(ValueError, match=r"^x: wanted images of shape \(..., 8, 4, 4\), as the decoder's"):
            call()


@pytest.mark.parametrize("variance", [0.5, 2, np.float32(0.5), np.int64(2)])
def test_a_variance_may_be_any_real_number(variance):
    assert type(Gaussian(variance).variance) is float and Gaussian(variance).variance == variance
    assert LearnedVarianceGaussian(variance).variance == pytest.approx(float(variance))


@pytest.mark.filterwarnings("error")
def test_a_learned_variance_is_said_without_a_warning_and_where_float32_would_round_it_to_zero():
    assert LearnedVarianceGaussian(1e-60).variance == pytest.approx(1e-60, rel=1e-5)


@pytest.mark.parametrize("variance", [0, True, np.True_, -1.0, float("nan"), float("inf"), "0.5", None])
@pytest.mark.parametrize("likelihood", [Gaussian, LearnedVarianceGaussian])
def test_a_variance_that_is_none_is_refused(likelihood, variance):
    with pytest.raises(ValueError, match="variance: wanted a positive finite number, got"):
        likelihood(variance)


def test_a_draw_with_a_learned_variance_is_that_with_the_same_one_fixed():
    seeded = lambda: torch.Generator().manual_seed(3)
    learned = LearnedVarianceGaussian(0.25).double()
    torch.testing.assert_close(learned.sample(OUTPUT, seeded()), Gaussian(0.25).sample(OUTPUT, seeded()))
    assert LearnedVarianceGaussian().variance == 1


@pytest.mark.parametrize("value", [-0.01, 1.01])
def test_measuring_refuses_pixels_that_no_bernoulli_takes(value):
    with pytest.raises(ValueError, match=r"x: wanted values in \[0, 1\] for a Bernoulli"):
        held_out_elbo(dense_vae((1, 4, 4), (), 2), torch.full((2, 1, 4, 4), value))
