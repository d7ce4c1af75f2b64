"""Training: steps by hand, a known optimum, interruptions, refused checkpoints, rejected inputs."""

import functools
import math
import os
import resource
import signal
import subprocess
import sys

import pytest
import safetensors.torch
import torch
from torch import nn
from torch.distributions import Normal

from vae_lib import checkpoints
from vae_lib.checkpoints import load_weights, save_weights
from vae_lib.likelihoods import Gaussian
from vae_lib.models import conv_vae, dense_vae
from vae_lib.objectives import Bound, elbo
from vae_lib.training import fit

SHAPE = (1, 4, 4)
GREY = torch.randint(0, 256, (40, *SHAPE), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
quiet = functools.partial(fit, device="cpu", progress=False)


def small_vae(seed=0, **options):
    torch.manual_seed(seed)
    return dense_vae(SHAPE, (5,), 2, **options)


def small_conv_vae(seed=0):
    torch.manual_seed(seed)
    return conv_vae(SHAPE, (3, 4), 2)


def weights_of(model):
    return {name: value.clone() for name, value in model.state_dict().items()}


def assert_same_bits(one, other):
    assert one.keys() == other.keys()
    for name in one:
        assert torch.equal(one[name], other[name]), name


class Toy(nn.Module):
    """Two numbers to learn, and objectives with gradients that the test chooses."""

    def __init__(self, size=1):
        super().__init__()
        self.a, self.b = nn.Parameter(torch.zeros(size)), nn.Parameter(torch.zeros(1))


def bound_of(x, *values):
    """The same three values, of shape (1,), for each image of x."""
    return Bound(*(value.expand(len(x)) for value in values))


class Steps:
    """The ELBO, after a call of before(model, x, step), and changed by `change` at `bad_step`."""

    def __init__(self, before=lambda model, x, step: None, bad_step=None, change=None):
        self.before, self.bad_step, self.change, self.step = before, bad_step, change, 0

    def __call__(self, model, x):
        self.step += 1
        self.before(model, x, self.step)
        bound = elbo(model, x)
        return self.change(bound) if self.step == self.bad_step else bound

    def __repr__(self):
        return "elbo in steps"


def stop_at(stop):
    """An objective that is interrupted in that step, as by the reader's hand."""
    def before(model, x, step):
        if step == stop:
            raise KeyboardInterrupt
    return Steps(before)


# One step, by hand


def noiseless(model, x):
    """A bound without noise, by torch.distributions: z is the mean of q."""
    mu, log_var = model.encoder(x)
    log_px_given_z = Normal(model.decoder(mu), 0.5**0.5).log_prob(x).sum((1, 2, 3))
    kl = torch.distributions.kl_divergence(Normal(mu, (log_var / 2).exp()), Normal(0.0, 1.0)).sum(1)
    return Bound(log_px_given_z - kl, log_px_given_z, kl)


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
    without_bias = small_vae()
    without_bias.decoder.to_output = nn.Linear(5, 16, bias=False)
    for model in (small_vae(likelihood=Gaussian(0.5)), without_bias):
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
    assert "ELBO {:.2f} = {:.2f} - {:.2f} nats".format(*means) in capsys.readouterr().err
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


# Checkpoints

OPTIONS = {
    "plain": dict(steps=13, batch_size=8),
    "everything": dict(steps=13, batch_size=8, warm_up=9, decay=True, weight_decay=0.1, clip=1.0, ema=0.9,
                       checkpoint_every=3),
    "autocast": dict(steps=13, batch_size=8, autocast=True, ema=0.9, checkpoint_every=4),
}


@pytest.mark.parametrize("stop", [2, 4, 7, 8, 13])
@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_resume_reaches_the_same_bits(tmp_path, options, stop):
    uninterrupted, interrupted = small_conv_vae(), small_conv_vae()
    history = quiet(uninterrupted, GREY, objective=Steps(), **options)
    path = tmp_path / "folder" / "run.safetensors"
    options = {**options, "checkpoint": path}
    with pytest.raises(KeyboardInterrupt):
        quiet(interrupted, GREY, objective=stop_at(stop), **options)
    stranger = small_conv_vae(seed=5 if path.exists() else 0)
    assert quiet(stranger, GREY, objective=Steps(), resume=True, **options) == history
    assert_same_bits(weights_of(stranger), weights_of(uninterrupted))
    finished = small_conv_vae(seed=6)
    assert quiet(finished, GREY, objective=Steps(), resume=True, **options) == history
    assert_same_bits(weights_of(finished), weights_of(uninterrupted))


def test_resume_can_go_further_than_planned(tmp_path):
    longer, prolonged = small_vae(), small_vae()
    options = dict(batch_size=8, ema=0.9)
    history = quiet(longer, GREY, steps=12, **options)
    for steps in (4, 12):
        again = quiet(prolonged, GREY, steps=steps, checkpoint=tmp_path / "run", resume=True, **options)
    assert again == history
    assert_same_bits(weights_of(prolonged), weights_of(longer))


KILLED = """
import sys, time, torch
sys.path.insert(0, {folder!r})
from test_training import GREY, Steps, quiet, small_conv_vae
torch.set_num_threads({threads})
def slow(model, x, step):
    print(step, flush=True)
    time.sleep(0.02)
quiet(small_conv_vae(), GREY, objective=Steps(slow), steps=1000, batch_size=8, ema=0.9, checkpoint={path!r},
      checkpoint_every=3)
"""


def test_kill_9_in_the_middle_then_resume(tmp_path):
    path = tmp_path / "run.safetensors"
    code = KILLED.format(folder=os.path.dirname(__file__), threads=torch.get_num_threads(), path=str(path))
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    for line in process.stdout:
        if int(line) == 20:
            process.send_signal(signal.SIGKILL)
            break
    process.stdout.close()
    assert process.wait() == -signal.SIGKILL and path.exists()
    with safetensors.safe_open(path, "pt") as file:
        assert 3 <= len(file.get_tensor("history.elbo")) <= 21
    uninterrupted, resumed = small_conv_vae(), small_conv_vae(seed=1)
    options = dict(objective=Steps(), steps=30, batch_size=8, ema=0.9, checkpoint_every=3)
    history = quiet(uninterrupted, GREY, **options)
    assert quiet(resumed, GREY, checkpoint=path, resume=True, **options) == history
    assert_same_bits(weights_of(resumed), weights_of(uninterrupted))


def test_a_write_that_fails_half_way_leaves_the_old_file(tmp_path):
    path = tmp_path / "run.safetensors"
    options = dict(batch_size=8, checkpoint=path, resume=True)
    quiet(small_vae(), GREY, steps=5, **options)
    before = path.read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) // 2, limits[1]))
    try:
        with pytest.raises(OSError, match="File too large"):
            quiet(small_vae(), GREY, steps=10, **options)
        with pytest.raises(OSError, match="File too large"):
            save_weights(dense_vae(), path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert path.read_bytes() == before
    assert len(quiet(small_vae(), GREY, steps=10, **options)["elbo"]) == 10
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


def test_a_file_is_replaced_in_one_move(tmp_path):
    """Whoever has the old file open still reads all of it: nothing is ever written into it."""
    path = tmp_path / "weights.safetensors"
    save_weights(small_vae(), path)
    before = path.read_bytes()
    with open(path, "rb") as file:
        save_weights(small_vae(seed=1), path)
        assert file.read() == before != path.read_bytes()


CHANGES = {
    "log_px_given_z is nan": lambda bound: bound._replace(log_px_given_z=bound.log_px_given_z * math.nan),
    "kl is inf": lambda bound: bound._replace(elbo=bound.elbo - math.inf, kl=bound.kl + math.inf),
    "elbo is nan": lambda bound: bound._replace(elbo=bound.elbo * math.nan),
}


@pytest.mark.parametrize("message", CHANGES)
def test_a_bound_that_is_not_finite_stops_before_any_harm(tmp_path, message):
    path, model, seen = tmp_path / "run.safetensors", small_conv_vae(), []
    objective = Steps(lambda model, x, step: seen.append(weights_of(model)), 6, CHANGES[message])
    with pytest.raises(FloatingPointError, match=f"^step 6: {message}"):
        quiet(model, GREY, steps=9, batch_size=8, objective=objective, checkpoint=path, checkpoint_every=4)
    with safetensors.safe_open(path, "pt") as file:
        assert len(file.get_tensor("history.elbo")) == 4
        for name, value in seen[4].items():
            assert value.equal(file.get_tensor(f"model.{name}"))
    assert all(value.isfinite().all() for value in model.state_dict().values()) and not model.training


def test_weights_that_are_not_finite_are_never_written(tmp_path):
    """The bound can still be finite when its gradient is not."""
    path, model = tmp_path / "run.safetensors", Toy()
    root = lambda model, x: bound_of(x, model.a.abs().sqrt(), model.b, 0 * model.b)
    with pytest.raises(FloatingPointError, match="run.safetensors was not written: model.a is not finite"):
        quiet(model, GREY, steps=1, objective=root, checkpoint=path, batch_size=4)
    assert not path.exists()


OTHER = {
    "batch_size=8, got batch_size=4": dict(batch_size=4),
    "learning_rate=0.001, got learning_rate=0.002": dict(learning_rate=0.002),
    "seed=0, got seed=1": dict(seed=1),
    "binarized=True, got binarized=False": dict(binarized=False),
    "output_bias=False, got output_bias=True": dict(output_bias=True),
    "warm_up=0, got warm_up=5": dict(warm_up=5),
    "decay=False, got decay=over 10 steps": dict(decay=True),
    "weight_decay=0.0, got weight_decay=0.1": dict(weight_decay=0.1),
    "clip=None, got clip=1.0": dict(clip=1.0),
    "ema=None, got ema=0.9": dict(ema=0.9),
    "autocast=False, got autocast=True": dict(autocast=True),
    r"objective=<function elbo>, got objective=<function noiseless>": dict(objective=noiseless),
    r"images=torch.uint8 \(40, 1, 4, 4\) \w+, got images=torch.uint8 \(39, 1, 4, 4\)": dict(images=GREY[1:]),
    r"images=torch.uint8 .*, got images=torch.uint8 \(40, 1, 4, 4\)": dict(images=GREY.flip(1, 2)),
}


@pytest.mark.parametrize("message", OTHER)
def test_resume_refuses_other_settings(tmp_path, message):
    path, model = tmp_path / "run.safetensors", small_vae(seed=1)
    quiet(small_vae(), GREY, steps=5, batch_size=8, checkpoint=path)
    before, stored = weights_of(model), path.read_bytes()
    with pytest.raises(ValueError, match=f"^resume: .*run.safetensors was written with {message}"):
        options = {"images": GREY, "batch_size": 8, **OTHER[message]}
        quiet(model, steps=10, checkpoint=path, resume=True, **options)
    assert_same_bits(weights_of(model), before)
    assert path.read_bytes() == stored


def test_resume_takes_files_older_than_weight_decay(tmp_path):
    options = dict(batch_size=8, checkpoint=tmp_path / "run", resume=True)
    quiet(small_vae(), GREY, steps=5, **options)
    tensors, settings = checkpoints.read(tmp_path / "run")
    del settings["weight_decay"]
    checkpoints.write(tmp_path / "run", tensors, settings)
    assert len(quiet(small_vae(), GREY, steps=7, **options)["elbo"]) == 7


def test_decay_holds_for_the_number_of_steps_it_began_with(tmp_path):
    quiet(small_vae(), GREY, steps=5, batch_size=8, checkpoint=tmp_path / "run", decay=True)
    with pytest.raises(ValueError, match="decay=over 5 steps, got decay=over 10 steps"):
        quiet(small_vae(), GREY, steps=10, batch_size=8, checkpoint=tmp_path / "run", resume=True, decay=True)


def test_resume_refuses_another_model_fewer_steps_and_other_files(tmp_path):
    path = tmp_path / "run.safetensors"
    options = dict(batch_size=8, checkpoint=path, resume=True)
    quiet(small_vae(), GREY, steps=5, **options)
    wider, frozen = dense_vae(SHAPE, (6,), 2), small_vae()
    frozen.decoder.requires_grad_(False)
    with pytest.raises(ValueError, match=r"fit this model: adam.* is \(5,\) in the file, \(6,\) here"):
        quiet(wider, GREY, steps=10, **options)
    with pytest.raises(ValueError, match=r"fit this model: adam.decoder.* is \(5,\) in the file, absent"):
        quiet(frozen, GREY, steps=10, **options)
    with pytest.raises(ValueError, match="^steps: .*run.safetensors has 5 steps behind it, got 4"):
        quiet(small_vae(), GREY, steps=4, **options)
    with pytest.raises(FileExistsError, match="^checkpoint: .*run.safetensors exists; .* resume=True"):
        quiet(small_vae(), GREY, steps=5, batch_size=8, checkpoint=path)
    with pytest.raises(ValueError, match="^checkpoint: wanted a path to resume from, got None"):
        quiet(small_vae(), GREY, steps=5, batch_size=8, resume=True)
    whole = path.read_bytes()
    for damaged in (whole[:-1], whole[:len(whole) // 2], whole[:5], b""):
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match="run.safetensors is truncated or no safetensors file"):
            quiet(small_vae(), GREY, steps=10, **options)
    save_weights(small_vae(), path)
    with pytest.raises(ValueError, match="^checkpoint: .*run.safetensors was not written by fit"):
        quiet(small_vae(), GREY, steps=10, **options)


# Weights


def test_weights_are_shipped_as_float16(tmp_path):
    model, path = small_conv_vae(), tmp_path / "new" / "weights.safetensors"
    quiet(model, GREY, steps=3, batch_size=8)
    save_weights(model, path)
    stored = safetensors.torch.load_file(path)
    assert {value.dtype for value in stored.values()} == {torch.float16, torch.int64}
    loaded = small_conv_vae(seed=1)
    assert load_weights(loaded, path) is loaded and not loaded.training
    for name, value in model.state_dict().items():
        expected = value.half().to(value.dtype) if value.is_floating_point() else value
        assert loaded.state_dict()[name].equal(expected), name
    assert path.stat().st_mode & 0o777 == 0o666 & ~umask()


def umask():
    mask = os.umask(0)
    os.umask(mask)
    return mask


def test_weights_are_kept_whole_if_asked(tmp_path):
    model, path = small_conv_vae().to(memory_format=torch.channels_last), tmp_path / "weights.safetensors"
    save_weights(model, path, half=False)
    assert_same_bits(weights_of(load_weights(small_conv_vae(seed=1), path)), weights_of(model))


def test_weights_that_do_not_fit_are_refused(tmp_path):
    path, model = tmp_path / "weights.safetensors", small_vae()
    save_weights(small_vae(), path)
    with pytest.raises(ValueError, match="weights.safetensors does not fit this model: decoder.* is absent"):
        load_weights(small_conv_vae(), path)
    with pytest.raises(FileNotFoundError):
        load_weights(model, tmp_path / "nothing")
    before = path.read_bytes()
    model.encoder.to_mu.bias.data[0] = 1e5
    with pytest.raises(FloatingPointError, match="weights.safetensors was not written: encoder.to_mu.bias"):
        save_weights(model, path)
    assert path.read_bytes() == before
    with pytest.raises(ValueError, match="path: wanted a safetensors file, got the folder"):
        load_weights(model, tmp_path)
    run = tmp_path / "run.safetensors"
    quiet(small_vae(), GREY, steps=1, batch_size=8, checkpoint=run)
    with pytest.raises(ValueError, match="path: wanted weights, got .*run.safetensors, a checkpoint of fit"):
        load_weights(small_vae(), run)
    path.write_bytes(before[:-3])
    with pytest.raises(ValueError, match="weights.safetensors is truncated or no safetensors file"):
        load_weights(model, path)


# What fit refuses


@pytest.mark.parametrize("images, error, message", [
    (GREY.numpy(), TypeError, "wanted a uint8 or float32 tensor .*, got ndarray"),
    (GREY.int(), TypeError, r"got int32 of shape \(40, 1, 4, 4\)"),
    (GREY.half(), TypeError, "got float16 of shape"),
    (GREY[:, 0], ValueError, r"wanted .* \(N, C, H, W\), got uint8 of shape \(40, 4, 4\)"),
    (GREY[:0], ValueError, r"got uint8 of shape \(0, 1, 4, 4\)"),
    ((GREY > 99).byte(), ValueError, "wanted uint8 grey values, 0 to 255, got 0 to 1"),
    (torch.full((8, *SHAPE), math.nan), ValueError, "wanted finite values, got nan to nan"),
    (torch.full((8, *SHAPE), math.inf), ValueError, "wanted finite values, got inf to inf"),
    (GREY / 127.5 - 1, ValueError, r"a Bernoulli likelihood wants values in \[0, 1\], got -1 to 1"),
    (GREY.float(), ValueError, r"a Bernoulli likelihood wants values in \[0, 1\], got 0 to 255"),
])
def test_fit_refuses_other_images(images, error, message):
    with pytest.raises(error, match=f"^images: .*{message}"):
        quiet(small_vae(), images, steps=1, batch_size=4)


@pytest.mark.parametrize("name, values, wanted", [
    ("steps", [0, -1, 2.0, None, "7"], "a positive integer"),
    ("batch_size", [0, 41, 4.0, None], "1 to 40, the number of images"),
    ("learning_rate", [0, -1e-3, math.inf, math.nan, None, "fast"], "a positive finite number"),
    ("seed", [-1, 0.5, None], "an integer, 0 or more"),
    ("warm_up", [-1, 0.5, None], "an integer, 0 or more"),
    ("weight_decay", [-1, math.nan, math.inf, None, "0"], "a finite number, 0 or more"),
    ("clip", [0, -1, math.nan, math.inf, "1"], "None or a positive finite number"),
    ("ema", [0, 1, 1.5, math.nan, "0.9"], "None or a number between 0 and 1"),
    ("checkpoint_every", [0, -1, 2.5], "None or a positive integer"),
])
def test_fit_refuses_other_numbers(name, values, wanted):
    for value in values:
        with pytest.raises(ValueError, match=f"^{name}: wanted {wanted}, got {value!r}"):
            quiet(small_vae(), GREY, **{"steps": 1, "batch_size": 8, name: value})


def test_fit_refuses_what_is_no_model():
    with pytest.raises(TypeError, match="model: wanted a VAE, or a torch.nn.Module that .* takes, got NoneType"):
        fit(None, GREY, steps=1)


def test_fit_refuses_a_model_with_nothing_to_train():
    with pytest.raises(ValueError, match="^model: wanted weights that require gradients, got none"):
        quiet(small_vae().requires_grad_(False), GREY, steps=1, batch_size=8)


@pytest.mark.parametrize("options, message", [
    (dict(autocast=True), "autocast: wanted a model with an encoder and a decoder, got Linear"),
    (dict(output_bias=True), "output_bias: wanted a Bernoulli likelihood, and a decoder"),
])
def test_fit_refuses_options_that_want_a_vae(options, message):
    with pytest.raises(ValueError, match=message):
        fit(torch.nn.Linear(2, 2), torch.rand(8, 1, 2, 2), steps=1, batch_size=4, progress=False, **options)


def test_fit_refuses_other_devices():
    with pytest.raises(ValueError, match="^device: wanted cpu or cuda, got meta"):
        quiet(small_vae(), GREY, steps=1, batch_size=8, device="meta")


def test_fit_chooses_a_device(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    model = small_vae()
    fit(model, GREY, steps=1, batch_size=8, progress=False)
    assert {weights.device.type for weights in model.parameters()} == {"cpu"}
