"""Weights on disk: what is read is what was written, and what does not fit is refused."""

import os

import pytest
import safetensors.torch
import torch
from small_runs import (
    GREY,
    assert_same_bits,
    quiet,
    small_conv_vae,
    small_vae,
    weights_of,
)

from vae_lib.checkpoints import load_weights, save_weights


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


def test_a_layer_that_stands_in_two_places_is_kept(tmp_path):
    def tied(seed):
        model = small_vae(seed)
        model.again = model.encoder.to_mu
        return model

    model, path = tied(0), tmp_path / "run.safetensors"
    quiet(model, GREY, steps=2, batch_size=8, checkpoint=path)
    save_weights(model, tmp_path / "weights.safetensors", half=False)
    assert_same_bits(weights_of(load_weights(tied(1), tmp_path / "weights.safetensors")), weights_of(model))
    resumed, whole = tied(1), tied(0)
    quiet(resumed, GREY, steps=4, batch_size=8, checkpoint=path, resume=True)
    quiet(whole, GREY, steps=4, batch_size=8)
    assert_same_bits(weights_of(resumed), weights_of(whole))


def test_weights_that_do_not_fit_are_refused(tmp_path):
    path, model = tmp_path / "weights.safetensors", small_vae()
    save_weights(small_vae(), path)
    with pytest.raises(ValueError, match="weights.safetensors does not fit this model: decoder.* is absent"):
        load_weights(small_conv_vae(), path)
    with pytest.raises(FileNotFoundError):
        load_weights(model, tmp_path / "nothing")
    before = path.read_bytes()
    model.encoder.to_mu.bias.data[0] = 1e5
    with pytest.raises(FloatingPointError, match="to_mu.bias is not finite: .*weights.safetensors was not written"):
        save_weights(model, path)
    assert path.read_bytes() == before
    with pytest.raises(ValueError, match="path: wanted a safetensors file, got the folder"):
        load_weights(model, tmp_path)
    run = tmp_path / "run.safetensors"
    quiet(small_vae(), GREY, steps=1, batch_size=8, checkpoint=run)
    with pytest.raises(ValueError, match="run.safetensors does not fit this model"):
        load_weights(small_vae(), run)
    path.write_bytes(before[:-3])
    with pytest.raises(ValueError, match="weights.safetensors is truncated or no safetensors file"):
        load_weights(model, path)
