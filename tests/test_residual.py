"""The residual networks: what they compute, and that the two halves fit together."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from vae_lib.likelihoods import Bernoulli, Gaussian
from vae_lib.residual import ResidualBlock, ResidualDecoder, ResidualEncoder, residual_vae


def awake(model):
    """The model with second convolutions that are not zero, as after training."""
    for module in model.modules():
        if isinstance(module, ResidualBlock):
            nn.init.normal_(module.second.weight, std=0.1)
    return model


def test_a_new_block_changes_nothing_and_a_trained_one_adds_to_its_input():
    torch.manual_seed(0)
    block, x = ResidualBlock(3), torch.randn(2, 3, 5, 5)
    assert torch.equal(block(x), x)
    x, block = x.double(), awake(nn.Sequential(block)).double()[0]
    inner = F.conv2d(x.clamp(min=0), block.first.weight, block.first.bias, padding=1)
    added = F.conv2d(inner.clamp(min=0), block.second.weight, block.second.bias, padding=1)
    torch.testing.assert_close(block(x), x + added)


def test_encoder_and_decoder_compute_what_their_docstrings_say():
    """Two stages, one block each, on the weights in their order."""
    torch.manual_seed(0)
    model = awake(residual_vae((2, 8, 12), channels=(3, 5), latent_dim=4)).double()
    weights = iter(model.parameters())

    def convolve(features, **options):
        return F.conv2d(features, next(weights), next(weights), padding=1, **options)

    def block(features):
        return features + convolve(F.relu(convolve(F.relu(features))))

    x, z = torch.rand(6, 2, 8, 12, dtype=torch.float64), torch.randn(6, 4, dtype=torch.float64)
    folded = x.unflatten(2, (4, 2)).unflatten(4, (6, 2)).permute(0, 1, 3, 5, 2, 4).flatten(1, 3)
    features = F.relu(block(convolve(block(convolve(folded)), stride=2))).flatten(1)
    mu, log_var = (F.linear(features, next(weights), next(weights)) for _ in range(2))
    torch.testing.assert_close(model.encoder(x), (mu, log_var))

    def unfold(features):
        parts = features.unflatten(1, (-1, 2, 2)).permute(0, 1, 4, 2, 5, 3)
        return parts.flatten(2, 3).flatten(3, 4)

    features = block(F.linear(z, next(weights), next(weights)).reshape(6, 2, 3, 5).permute(0, 3, 1, 2))
    output = unfold(convolve(F.relu(block(unfold(convolve(features))))))
    torch.testing.assert_close(model.decoder(z), output)
    assert next(weights, None) is None


def test_the_number_of_weights_by_hand():
    convolution = lambda a, b: 9 * a * b + b
    block = lambda c: 2 * convolution(c, c)
    heads, first = 2 * (64 * 49 * 40 + 40), 40 * 64 * 49 + 64 * 49
    encoder = convolution(4, 32) + block(32) + convolution(32, 64) + block(64) + heads
    decoder = first + block(64) + convolution(64, 128) + block(32) + convolution(32, 4)
    assert sum(weights.numel() for weights in residual_vae().parameters()) == encoder + decoder == 658_932


@pytest.mark.parametrize("image_shape, channels, blocks", [((1, 28, 28), (4, 6), 2), ((3, 16, 8), (2, 3, 4), 1),
                                                           ((1, 2, 2), (5,), 3)])
def test_sizes(image_shape, channels, blocks):
    model = residual_vae(image_shape, channels, latent_dim=7, blocks=blocks, likelihood=Gaussian(0.5))
    output, mu, log_var = model(torch.rand(2, *image_shape))
    assert output.shape == (2, *image_shape) and mu.shape == log_var.shape == (2, 7)
    assert model.decoder(torch.zeros(3, 2, 7)).shape == (3, 2, *image_shape)
    count = sum(isinstance(part, ResidualBlock) for part in model.modules())
    assert count == 2 * blocks * len(channels) and isinstance(model.likelihood, Gaussian)
    assert isinstance(residual_vae().likelihood, Bernoulli)


@pytest.mark.parametrize("build, message", [
    (lambda: residual_vae(blocks=0), "blocks: wanted an integer, 1 or more, got 0"),
    (lambda: ResidualEncoder((1, 28, 28), (3, 4, 5), 2), "image_shape: .*8 divides"),
    (lambda: ResidualDecoder((1, 28, 28), (), 2), "channels: wanted a positive integer for each stage"),
    (lambda: residual_vae().decoder(torch.zeros(3)), "z: wanted latents of shape"),
    (lambda: residual_vae().encoder(torch.zeros(1, 1, 14, 14)), "x: wanted images of shape"),
])
def test_sizes_that_are_refused(build, message):
    with pytest.raises(ValueError, match=message):
        build()
