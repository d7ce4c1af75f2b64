"""Training: steps by hand, batches, the history, a known optimum."""

import math

import pytest
import torch
from small_runs import (
    GREY,
    SHAPE,
    Steps,
    Toy,
    assert_same_bits,
    bound_of,
    noiseless,
    quiet,
    small_conv_vae,
    small_vae,
    stop_at,
    weights_of,
)
from torch import nn

from vae_lib.likelihoods import Gaussian
from vae_lib.models import dense_vae
from vae_lib.objectives import Bound, elbo
from vae_lib.training import fit

# One step, by hand


def test_steps_are_adams_steps_by_hand():
    images = torch.rand(12, *SHAPE, dtype=torch.float64)
    model = small_vae(likelihood=Gaussian(0.5)).double()
    by_hand = small_vae(likelihood=Gaussian(0.5)).double()
    history = quiet(model, images, steps=3, batch_size=12, learning_rate=0.01, objective=noiseless)
    m, v = ([torch.zeros_like(weights) for weights in by_hand.parameters()] for _ in range(2))
    for t in (1, 2, 3):
        bound = noiseless(by_hand, images)
        means = [part.mean().item() for part in bound]
        assert [history[name][t - 1] for name in Bound._fields] == pytest.approx(means, rel=1e-12)
        gradients = torch.autograd.grad(-bound.elbo.mean(), list(by_hand.parameters()))
        for weights, gradient, mean, square in zip(by_hand.parameters(), gradients, m, v):
            mean.mul_(0.9).add_(0.1 * gradient)
            square.mul_(0.999).add_(0.001 * gradient**2)
            step = 0.01 * (mean / (1 - 0.9**t)) / ((square / (1 - 0.999**t)).sqrt() + 1e-8)
            weights.data -= step
    for weights, expected in zip(model.parameters(), by_hand.parameters()):
        torch.testing.assert_close(weights, expected, rtol=0, atol=1e-10)


def test_warm_up_raises_the_weight_of_the_kl_from_0_to_1():
    model, seen = Toy(), []
    model.a.register_hook(lambda gradient: seen.append(["a", -gradient.item()]))
    model.b.register_hook(lambda gradient: seen.append(["b", gradient.item()]))

    def linear_bound(model, x):
        return bound_of(x, model.a - model.b, model.a, model.b)

    quiet(model, GREY, steps=7, warm_up=5, objective=linear_bound, batch_size=4)
    assert [weight for name, weight in seen if name == "a"] == [1.0] * 7
    weights = [weight for name, weight in seen if name == "b"]
    assert weights == pytest.approx([0, 0.2, 0.4, 0.6, 0.8, 1, 1], abs=1e-6)


def test_the_bound_that_the_objective_gives_is_what_is_maximised():
    """It need not be the difference of its two parts: an importance-weighted bound is not."""
    model = Toy()
    history = quiet(model, GREY, steps=1, batch_size=4, learning_rate=0.1,
                    objective=lambda model, x: bound_of(x, model.a, model.b, 0 * model.b))
    assert (model.a.item(), model.b.item()) == (pytest.approx(0.1, rel=1e-5), 0.0)
    assert history == {"elbo": [0.0], "log_px_given_z": [0.0], "kl": [0.0]}


@pytest.mark.parametrize("build", [small_vae, small_conv_vae])
def test_output_bias_starts_at_the_logit_of_the_mean_image(build):
    """Seen before the first step: a decoder whose last weights are zero then predicts the mean."""
    model, seen = build(), []
    with torch.no_grad():
        model.decoder.to_output.weight.zero_()

    def watch(model, x):
        seen.append(model.likelihood.mean(model.decoder(torch.zeros(1, model.latent_dim))).detach()[0])
        return elbo(model, x)

    quiet(model, GREY, steps=1, objective=watch, batch_size=4, output_bias=True)
    mean = (GREY / 255).mean(0).clamp(1e-3, 1 - 1e-3)
    torch.testing.assert_close(seen[0], mean if build is small_vae else mean.mean().expand_as(seen[0]))


def test_output_bias_wants_a_bernoulli_and_a_last_bias():
    bare, without_bias = small_vae(), small_vae()
    del bare.likelihood
    without_bias.decoder.to_output = nn.Linear(5, 16, bias=False)
    for model in (small_vae(likelihood=Gaussian(0.5)), without_bias, bare):
        with pytest.raises(ValueError, match="output_bias: wanted a Bernoulli likelihood, and a decoder whose layer"):
            quiet(model, GREY, steps=1, batch_size=4, output_bias=True)


def test_decay_follows_half_a_cosine_to_zero():
    """With a gradient that never changes, Adam's step is the learning rate."""
    places = []

    def slope(model, x):
        places.append(model.a.item())
        return bound_of(x, model.a, model.a, 0 * model.a)

    quiet(Toy(), GREY, steps=8, batch_size=4, learning_rate=0.1, decay=True, objective=slope)
    expected = [0.05 * (1 + math.cos(math.pi * t / 8)) for t in range(7)]
    assert [b - a for a, b in zip(places, places[1:])] == pytest.approx(expected, abs=1e-5)


def test_weight_decay_shrinks_the_weights_by_the_learning_rate_of_each_step():
    """With a gradient that never changes, Adam's step is the learning rate: a goes to a * (1 - rate * 2) + rate."""
    places = []

    def slope(model, x):
        places.append(model.a.item())
        return bound_of(x, model.a, model.a, 0 * model.a)

    model = Toy()
    torch.nn.init.constant_(model.a, 3.0)
    quiet(model, GREY, steps=4, batch_size=4, learning_rate=0.1, decay=True, weight_decay=2.0, objective=slope)
    expected = [3.0]
    for t in range(3):
        rate = 0.05 * (1 + math.cos(math.pi * t / 4))
        expected.append(expected[-1] * (1 - rate * 2) + rate)
    assert places == pytest.approx(expected, abs=1e-5)


def test_muon_steps_along_the_nearest_orthogonal_matrix_and_adam_takes_the_rest():
    """By the SVD: singular vectors are the gradient's, singular values about 1 in place of it; Liu et al.'s length."""
    options = dict(steps=1, batch_size=len(GREY), learning_rate=0.01, objective=noiseless)
    model, by_adam, before = small_conv_vae(), small_conv_vae(), small_conv_vae()
    quiet(model, GREY, muon=True, **options)
    quiet(by_adam, GREY, **options)
    gradients = {name: weights.grad for name, weights in model.named_parameters()}
    old, adams = dict(before.named_parameters()), dict(by_adam.named_parameters())
    filters = 0
    for name, weights in model.named_parameters():
        if weights.dim() < 4:
            torch.testing.assert_close(weights, adams[name], rtol=0, atol=0)
            continue
        filters += 1
        moved = (old[name] - weights).detach().flatten(1)
        u, s, vt = torch.linalg.svd(gradients[name].flatten(1), full_matrices=False)
        along = u.T @ moved @ vt.T / (0.01 * 0.2 * max(moved.shape) ** 0.5)
        large = s > 0.01 * s[0]  # smaller ones are not brought to 1 in five iterations
        assert large.any() and (along.diagonal()[large] - 1).abs().max() < 0.5
        assert (along - along.diagonal().diag()).abs().max() < 0.1
    assert filters >= 3


def test_muon_decays_its_learning_rate_and_its_weights_as_adam_does():
    """Three steps on one fixed gradient: the momentum keeps its direction, so each step is one of the same matrix."""
    start = small_conv_vae().encoder.stages[0][0].weight.detach()
    slope = torch.randn(start.shape, generator=torch.Generator().manual_seed(0))

    def linear_bound(model, x):
        value = -(model.encoder.stages[0][0].weight * slope).sum()
        return bound_of(x, value, value, 0 * value)

    def moved(**options):
        model = small_conv_vae()
        quiet(model, GREY, batch_size=8, learning_rate=0.01, muon=True, objective=linear_bound, **options)
        return model.encoder.stages[0][0].weight.detach()

    unit, expected = (start - moved(steps=1)) / 0.01, start
    for rate in (0.01 * 0.5 * (1 + math.cos(math.pi * step / 3)) for step in range(3)):
        expected = expected * (1 - rate * 5.0) - rate * unit
    torch.testing.assert_close(moved(steps=3, decay=True, weight_decay=5.0), expected, rtol=0, atol=2e-4)
    assert (expected - start).abs().max() > 0.01


def test_muon_wants_convolutions():
    with pytest.raises(ValueError, match="^muon: wanted a model with filters of 2-d convolutions to train"):
        quiet(small_vae(), GREY, steps=1, batch_size=8, muon=True)


def test_clip_bounds_the_norm_of_the_whole_gradient():
    """Gradients (30, 40) and (0.6, 0.8), clipped to norm 1, are the same, and so are Adam's steps."""
    def moves(clip):
        model, places = Toy(size=2), []

        def slope(model, x):
            places.append(model.a.detach().clone())
            value = (50.0 if len(places) == 1 else 1.0) * (0.6 * model.a[:1] + 0.8 * model.a[1:])
            return bound_of(x, value, value, 0 * value)

        quiet(model, GREY, steps=2, learning_rate=0.1, clip=clip, objective=slope, batch_size=4)
        return torch.stack([places[1] - places[0], model.a.detach() - places[1]])

    torch.testing.assert_close(moves(clip=1.0), torch.full((2, 2), 0.1), rtol=0, atol=1e-5)
    m, v = (0.9 * 0.1 * 50 + 0.1) / (1 - 0.9**2), (0.999 * 0.001 * 50**2 + 0.001) / (1 - 0.999**2)
    torch.testing.assert_close(moves(clip=None)[1], torch.full((2,), 0.1 * m / v**0.5), rtol=0, atol=1e-5)
    torch.testing.assert_close(moves(clip=60.0), moves(clip=None), rtol=0, atol=0)


@pytest.mark.parametrize("decay_rate", [0.5, 0.99])
def test_ema_leaves_the_weighted_average_of_weights_and_batch_norm(decay_rate):
    seen = []
    objective = Steps(lambda model, x, step: seen.append(weights_of(model)))
    raw, averaged = small_conv_vae(), small_conv_vae()
    quiet(raw, GREY, steps=6, batch_size=16, learning_rate=0.1, objective=objective)
    quiet(averaged, GREY, steps=6, batch_size=16, learning_rate=0.1, ema=decay_rate)
    after_each_step = [*seen[1:], weights_of(raw)]
    shares = torch.tensor([decay_rate ** (6 - t) for t in range(1, 7)], dtype=torch.float64)
    for name, value in averaged.state_dict().items():
        history = torch.stack([weights[name].double() for weights in after_each_step])
        expected = torch.tensordot(shares / shares.sum(), history, 1)
        if name.endswith("num_batches_tracked"):
            expected = history[-1]
        torch.testing.assert_close(value.double(), expected, rtol=1e-5, atol=1e-6)
    assert any(name.endswith("running_var") for name in averaged.state_dict())


def test_autocast_runs_networks_in_bfloat16_and_the_rest_in_float32():
    """Steps by hand, by an Adam that is not fused: the state of ours must lie in memory as its weights do."""
    model, by_hand = small_conv_vae(), small_conv_vae().to(memory_format=torch.channels_last)
    images = (GREY[:1].float() / 255).repeat(8, 1, 1, 1)  # all alike, so that their order does not matter
    layouts = []

    def objective(model, x):
        layouts.append(model.encoder.stages[1][0].weight.is_contiguous(memory_format=torch.channels_last))
        return noiseless(model, x)

    history = quiet(model, images, steps=3, batch_size=8, objective=objective, autocast=True)
    optimizer = torch.optim.Adam(by_hand.parameters(), 1e-3, fused=False, foreach=False)
    for step in range(3):
        with torch.autocast("cpu", torch.bfloat16):
            mu, log_var = by_hand.encoder(images)
            assert mu.dtype == log_var.dtype == torch.bfloat16
            output = by_hand.decoder(mu.float())
            assert output.dtype == torch.bfloat16
        part = Bound(*noiseless(Recorded(mu.float(), log_var.float(), output.float()), images))
        assert [history[name][step] for name in Bound._fields] == [mean.mean().item() for mean in part]
        optimizer.zero_grad()
        (-part.elbo.mean()).backward()
        optimizer.step()
    for (name, weights), expected in zip(model.named_parameters(), by_hand.parameters()):
        assert weights.dtype == torch.float32
        torch.testing.assert_close(weights, expected, rtol=0, atol=1e-6, msg=name)
    assert layouts == [True] * 3 and model.encoder.stages[1][0].weight.is_contiguous()
    with torch.autocast("cpu", torch.bfloat16):  # nothing of fit stays behind
        assert model.decoder(torch.zeros(1, 2)).dtype == torch.bfloat16


class Recorded:
    """A model that gives what another one computed."""

    def __init__(self, mu, log_var, output):
        self.encoder, self.decoder = lambda x: (mu, log_var), lambda z: output


# Batches and randomness


def test_each_epoch_goes_once_through_the_images_in_a_new_order():
    images = torch.arange(10).float().reshape(10, 1, 1, 1).expand(10, *SHAPE) / 10
    batches = []
    objective = Steps(lambda model, x, step: batches.append((x[:, 0, 0, 0] * 10).round().int().tolist()))
    quiet(small_vae(), images, steps=9, batch_size=3, objective=objective)
    epochs = [sum(batches[i:i + 3], []) for i in (0, 3, 6)]
    assert all(len(set(epoch)) == 9 for epoch in epochs)  # of ten images, one is left over
    assert len({tuple(epoch) for epoch in epochs}) == 3


def test_uint8_images_are_binarised_anew_for_each_batch_or_scaled():
    images = torch.tensor([0, 51, 204, 255], dtype=torch.uint8).reshape(1, 1, 2, 2).expand(500, 1, 2, 2)

    def batches(binarized):
        seen = []
        quiet(dense_vae((1, 2, 2), (), 1), images, steps=8, batch_size=250, binarized=binarized,
              objective=Steps(lambda model, x, step: seen.append(x)))
        return torch.stack(seen)

    grey, bits = batches(binarized=False).flatten(0, 1), batches(binarized=True).flatten(0, 1)
    torch.testing.assert_close(grey[0].flatten(), torch.tensor([0, 0.2, 0.8, 1]))
    assert (grey == grey[0]).all() and set(bits.unique().tolist()) == {0.0, 1.0}
    mean = bits.mean(0).flatten()
    assert mean[0] == 0 and mean[3] == 1
    assert ((mean - torch.tensor([0, 0.2, 0.8, 1])).abs() < 5 * (0.16 / 2000) ** 0.5).all()
    assert len({part.sum().item() for part in bits.split(250)}) > 1


def test_float_images_are_used_as_they_stand():
    images, seen = torch.randn(8, *SHAPE), []
    quiet(small_vae(likelihood=Gaussian(0.5)), images, steps=1, batch_size=8,
          objective=Steps(lambda model, x, step: seen.append(x)))
    assert sorted(seen[0].flatten().tolist()) == sorted(images.flatten().tolist())


def test_all_that_is_random_comes_from_the_seed_and_the_callers_stream_is_left_alone():
    def trained(seed, stream):
        model = small_vae()
        torch.manual_seed(stream)
        torch.rand(7)
        before = torch.get_rng_state()
        history = quiet(model, GREY, steps=12, batch_size=8, seed=seed)
        assert torch.get_rng_state().equal(before)
        return history, weights_of(model)

    (history, weights), (again, same), (other, _) = trained(3, 0), trained(3, 99), trained(4, 0)
    assert history == again and history != other
    assert_same_bits(weights, same)


# The model, history and bar


def test_history_has_each_step_and_the_model_is_left_in_eval_mode():
    model, modes = small_conv_vae().eval(), []
    objective = Steps(lambda model, x, step: modes.append(model.training))
    history = quiet(model, GREY, steps=11, batch_size=16, objective=objective)
    assert modes == [True] * 11
    assert list(history) == ["elbo", "log_px_given_z", "kl"] and not model.training
    assert all(len(values) == 11 and isinstance(values[0], float) for values in history.values())
    for bound, log_px_given_z, kl in zip(*history.values()):
        assert bound == pytest.approx(log_px_given_z - kl, rel=1e-5)
    with pytest.raises(KeyboardInterrupt):
        quiet(model, GREY, steps=2, batch_size=16, objective=stop_at(2))
    assert not model.training


def test_bar_shows_the_bound_and_its_parts(capsys):
    history = fit(small_vae(), GREY, steps=5, batch_size=8, device="cpu")
    means = [sum(history[name]) / 5 for name in ("elbo", "log_px_given_z", "kl")]
    assert "bound {:.2f}, log p(x|z) {:.2f}, KL {:.2f} nats".format(*means) in capsys.readouterr().err
    quiet(small_vae(), GREY, steps=5, batch_size=8)
    assert capsys.readouterr().err == ""


def test_frozen_weights_stay():
    model = small_vae()
    before = weights_of(model)
    model.encoder.requires_grad_(False)
    quiet(model, GREY, steps=3, batch_size=8)
    for name, value in model.state_dict().items():
        assert value.equal(before[name]) == name.startswith("encoder"), name


def test_linear_vae_reaches_the_optimum_of_probabilistic_pca():
    """With variance s2 the best covariance has eigenvalues max(l, s2) for the k largest l, then s2."""
    generator = torch.Generator().manual_seed(0)
    s2, dim, k = 0.3, 6, 2
    weight = torch.tensor([[1.5], [0.9], [0.4]]) * torch.randn(3, dim, generator=generator)
    z, noise = torch.randn(1000, 3, generator=generator), torch.randn(1000, dim, generator=generator)
    x = 0.5 + z @ weight + 0.5 * noise
    eigenvalues = torch.linalg.eigvalsh(torch.cov(x.double().T, correction=0)).flip(0)
    best = torch.full((dim,), s2, dtype=torch.float64)
    best[:k] = eigenvalues[:k].clamp(min=s2)
    optimum = -0.5 * (math.log(2 * math.pi) + best.log() + eigenvalues / best).sum().item()

    torch.manual_seed(0)
    model = dense_vae((1, 2, 3), (), k, activation=None, likelihood=Gaussian(s2))
    history = quiet(model, x.reshape(-1, 1, 2, 3), steps=1500, batch_size=100, learning_rate=0.03, decay=True)
    model, x = model.double(), x.double()
    mu, log_var = model.encoder(x.reshape(-1, 1, 2, 3))
    spread = log_var.exp() @ (model.decoder.to_output.weight**2).sum(0)
    squared_error = ((x - model.decoder(mu).flatten(1)) ** 2).sum(1) + spread
    log_px_given_z = -0.5 * (dim * math.log(2 * math.pi * s2) + squared_error / s2)
    kl = 0.5 * (mu**2 + log_var.exp() - log_var - 1).sum(1)
    reached = (log_px_given_z - kl).mean().item()
    assert optimum - 0.01 < reached <= optimum + 1e-9
    assert history["elbo"][0] < optimum - 5
    assert sum(history["elbo"][-100:]) / 100 == pytest.approx(reached, abs=0.2)
