"""The arguments that fit refuses, each by name."""

import math
import re

import pytest
import torch
from small_runs import GREY, SHAPE, quiet, small_vae

from vae_lib.models import conv_vae
from vae_lib.objectives import Bound, elbo
from vae_lib.training import fit


@pytest.mark.parametrize("images, error, message", [
    (GREY.numpy(), TypeError, "wanted a uint8, float32 or float64 tensor .*, got ndarray"),
    (GREY.int(), TypeError, r"got int32 of shape \(40, 1, 4, 4\)"),
    (GREY.half(), TypeError, "got float16 of shape"),
    (GREY[:, 0], ValueError, r"wanted .* \(N, C, H, W\), got uint8 of shape \(40, 4, 4\)"),
    (GREY[:0], ValueError, r"got uint8 of shape \(0, 1, 4, 4\)"),
    ((GREY > 99).byte(), ValueError, "wanted uint8 grey values, 0 to 255, got 0 to 1"),
    (torch.full((8, *SHAPE), math.nan), ValueError, "wanted finite numbers, got NaN or infinity"),
    (torch.full((8, *SHAPE), math.inf), ValueError, "wanted finite numbers, got NaN or infinity"),
    (GREY / 127.5 - 1, ValueError, r"wanted values in \[0, 1\] for a Bernoulli, got -1 to 1"),
    (GREY.float(), ValueError, r"wanted values in \[0, 1\] for a Bernoulli, got 0 to 255"),
])
def test_fit_refuses_other_images(images, error, message):
    with pytest.raises(error, match=f"^images: .*{message}"):
        quiet(small_vae(), images, steps=1, batch_size=4)


@pytest.mark.parametrize("name, values, wanted", [
    ("steps", [0, -1, 2.0, None, "7", True], "an integer, 1 or more"),
    ("batch_size", [0, 4.0, None, True], "an integer, 1 or more"),
    ("batch_size", [41], "an integer, 1 to 40"),
    ("learning_rate", [0, -1e-3, math.inf, math.nan, None, "fast", True], "a positive finite number"),
    ("seed", [-1, 0.5, None], "an integer, 0 or more"),
    ("warm_up", [-1, 0.5, None], "an integer, 0 or more"),
    ("weight_decay", [-1, math.nan, math.inf, None, "0"], "a finite number, 0 or more"),
    ("clip", [0, -1, math.nan, math.inf, "1"], "a positive finite number"),
    ("ema", [0, 1, 1.5, math.nan, "0.9"], "a number between 0 and 1"),
    ("checkpoint_every", [0, -1, 2.5], "an integer, 1 or more"),
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


def test_fit_refuses_a_wrapped_model():
    with pytest.raises(TypeError, match="^model: wanted the model itself, got DataParallel around it: give its `mod"):
        quiet(torch.nn.DataParallel(small_vae()), GREY, steps=1, batch_size=8)


def test_fit_refuses_one_image_at_a_time_where_batch_norm_gets_one_number_a_channel():
    with pytest.raises(ValueError, match="^batch_size: wanted 2 or more, as this model's batch norm .*, got 1"):
        quiet(conv_vae((1, 4, 4), (2, 3), latent_dim=2), GREY, steps=1, batch_size=1)
    history = quiet(conv_vae((1, 8, 8), (2, 3), latent_dim=2), GREY.repeat(1, 1, 2, 2), steps=1, batch_size=1)
    assert len(history["elbo"]) == 1, "with more numbers than one a channel it works"


def test_an_error_of_the_objective_stays_what_it_is():
    def refuses(model, x):
        raise ValueError("mine")

    with pytest.raises(ValueError, match="^mine$"):
        quiet(small_vae(), GREY, steps=1, batch_size=1, objective=refuses)


@pytest.mark.parametrize("wrong, error, got", [
    (lambda model, x: elbo(model, x).elbo, TypeError, "Tensor"),
    (lambda model, x: Bound(*[part.mean() for part in elbo(model, x)]), ValueError, r"\[\(\), \(\), \(\)\]"),
    (lambda model, x: Bound(*[part[:, None] for part in elbo(model, x)]), ValueError, r"\[\(8, 1\), .*"),
    (lambda model, x: elbo(model, x)[:2], ValueError, r"\[\(8,\), \(8,\)\]"),
])
def test_fit_refuses_an_objective_that_returns_no_bound_for_each_image(wrong, error, got):
    with pytest.raises(error, match=rf"^objective: wanted a Bound of three tensors of shape \(8,\), got {got}"):
        quiet(small_vae(), GREY, steps=1, batch_size=8, objective=wrong)


def test_fit_refuses_outputs_that_are_broadcast_over_the_batch():
    model = small_vae()
    model.decoder.register_forward_hook(lambda network, inputs, output: output[:, None])
    with pytest.raises(ValueError, match=r"^objective: wanted a Bound .*, got \[\(8, 8\), \(8, 8\), \(8,\)\]"):
        quiet(model, GREY, steps=1, batch_size=8)


@pytest.mark.parametrize("options, message", [
    (dict(autocast=True), "autocast: wanted a model with an encoder and a decoder, got Linear"),
    (dict(output_bias=True), "output_bias: wanted a Bernoulli likelihood, and a decoder"),
])
def test_fit_refuses_options_that_want_a_vae(options, message):
    with pytest.raises(ValueError, match=message):
        fit(torch.nn.Linear(2, 2), torch.rand(8, 1, 2, 2), steps=1, batch_size=4, progress=False, **options)


def test_fit_refuses_other_devices():
    for device in "meta", "gpu", torch.device("meta"), 0.5:
        with pytest.raises(ValueError, match=re.escape(f"device: wanted cpu or cuda, got {device!r}")):
            quiet(small_vae(), GREY, steps=1, batch_size=8, device=device)


def test_fit_refuses_a_gpu_that_is_not_there(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ValueError, match="^device: wanted cpu, as torch finds no CUDA here, got 'cuda:1'"):
        quiet(small_vae(), GREY, steps=1, batch_size=8, device="cuda:1")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(ValueError, match="^device: wanted one of 1 CUDA devices, counted from 0, got 'cuda:1'"):
        quiet(small_vae(), GREY, steps=1, batch_size=8, device="cuda:1")


def test_fit_refuses_an_objective_that_is_none():
    with pytest.raises(TypeError, match="^objective: wanted a function, got NoneType"):
        quiet(small_vae(), GREY, steps=1, batch_size=8, objective=None)


def test_fit_chooses_a_device(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    model = small_vae()
    fit(model, GREY, steps=1, batch_size=8, progress=False)
    assert {weights.device.type for weights in model.parameters()} == {"cpu"}
