"""The networks: shapes, parameter counts by hand, the article's networks re-expressed, rejected inputs."""

import inspect
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import nn

from vae_lib import models
from vae_lib.likelihoods import Bernoulli, Gaussian
from vae_lib.models import (
    AE,
    VAE,
    ConvDecoder,
    ConvEncoder,
    DenseDecoder,
    DenseEncoder,
    article_conv_vae,
    article_dense_vae,
    conv_block,
    conv_vae,
    dense_ae,
    dense_vae,
    transposed_conv_block,
)
from vae_lib.objectives import reconstruction
from vae_lib.training import fit


def count(module):
    return sum(weights.numel() for weights in module.parameters())


NETWORKS = AE | VAE | ConvEncoder | ConvDecoder | DenseEncoder | DenseDecoder
SHOWN = {
    nn.Linear: ("in_features", "out_features"),
    nn.Conv2d: ("in_channels", "out_channels", "kernel_size", "stride", "padding"),
    nn.ConvTranspose2d: ("in_channels", "out_channels", "kernel_size", "stride", "padding", "output_padding"),
    nn.BatchNorm2d: ("num_features", "eps", "affine", "track_running_stats"),
    nn.LeakyReLU: ("negative_slope",), nn.ReLU: (), nn.Tanh: (), nn.Identity: (),
}


def layers(network):
    """The layers of a network in order, each as (type, sizes...), without what only contains them."""
    return [(type(part), *(getattr(part, name) for name in SHOWN[type(part)]))
            for part in network.modules() if not isinstance(part, nn.Sequential | nn.Flatten | NETWORKS)]


def down(size_in, size_out):
    return [(nn.Conv2d, size_in, size_out, (3, 3), (2, 2), (1, 1)),
            (nn.BatchNorm2d, size_out, 1e-5, True, True), (nn.LeakyReLU, 0.2)]


def up(size_in, size_out):
    return [(nn.ConvTranspose2d, size_in, size_out, (3, 3), (2, 2), (1, 1), (1, 1)),
            *down(size_in, size_out)[1:]]


def linear(*sizes):
    """Linear layers from each size to the next."""
    return [(nn.Linear, *pair) for pair in pairwise(sizes)]


@pytest.mark.parametrize("in_channel, img_size, latent_dim", [(1, 64, 128), (3, 32, 5)])
def test_article_conv_vae_has_the_articles_layers(in_channel, img_size, latent_dim):
    model = article_conv_vae((in_channel, img_size, img_size), latent_dim)
    original_dim = 256 * (img_size // 16) ** 2
    assert layers(model.encoder) == [
        *down(in_channel, 96), *down(96, 128), *down(128, 256), *down(256, 256),
        *linear(original_dim, latent_dim), *linear(original_dim, latent_dim)]
    assert layers(model.decoder) == [
        *linear(latent_dim, original_dim), *up(256, 256), *up(256, 128), *up(128, 96), *up(96, 96),
        (nn.Conv2d, 96, in_channel, (3, 3), (1, 1), (1, 1)), (nn.Tanh,)]
    assert isinstance(model.likelihood, Gaussian) and model.likelihood.variance == 0.5


def test_article_conv_vae_has_the_articles_parameter_count():
    stages_down = [(1, 96), (96, 128), (128, 256), (256, 256)]
    stages_up = [(256, 256), (256, 128), (128, 96), (96, 96)]
    convolutions = sum(9 * a * b + b + 2 * b for a, b in stages_down + stages_up)  # kernel, bias, batch norm
    features = 256 * 4 * 4
    heads, recover = 2 * (features * 128 + 128), 128 * features + features
    assert count(article_conv_vae()) == convolutions + heads + recover + 9 * 96 * 1 + 1 == 3_656_481


def test_article_conv_vae_computes_what_the_article_computes():
    """The article's forward pass, in torch.nn.functional, on the preset's weights in their order."""
    torch.manual_seed(0)
    model = article_conv_vae((1, 32, 32), latent_dim=3)
    weights = iter(model.parameters())
    x, z = torch.rand(4, 1, 32, 32) * 2 - 1, torch.randn(4, 3)

    def blocks(features, convolve, **options):
        for _ in range(4):
            features = convolve(features, next(weights), next(weights), stride=2, padding=1, **options)
            features = nn.functional.batch_norm(features, None, None, next(weights), next(weights), True)
            features = nn.functional.leaky_relu(features, 0.2)
        return features

    features = torch.flatten(blocks(x, nn.functional.conv2d), start_dim=1)
    mu, log_var = (nn.functional.linear(features, next(weights), next(weights)) for _ in range(2))
    features = nn.functional.linear(z, next(weights), next(weights)).view(-1, 256, 2, 2)
    features = blocks(features, nn.functional.conv_transpose2d, output_padding=1)
    output = torch.tanh(nn.functional.conv2d(features, next(weights), next(weights), padding=1))
    torch.testing.assert_close(model.encoder(x), (mu, log_var))
    torch.testing.assert_close(model.decoder(z), output)


def test_article_dense_vae_has_the_articles_layers_and_no_activation():
    model = article_dense_vae()
    assert layers(model.encoder) == [*linear(4096, 512, 256, 32), *linear(256, 32)]
    assert layers(model.decoder) == linear(32, 256, 512, 4096)
    sizes = [(4096, 512), (512, 256), (256, 32), (256, 32), (32, 256), (256, 512), (512, 4096)]
    assert count(model) == sum(a * b + b for a, b in sizes) == 4_486_720
    assert isinstance(model.likelihood, Gaussian) and model.likelihood.variance == 0.5


def test_article_dense_vae_is_affine():
    torch.manual_seed(0)
    model = article_dense_vae((1, 6, 6), latent_dim=4).double()
    x, y = torch.randn(2, 5, 1, 6, 6, dtype=torch.float64)
    for at_x, at_y, between in zip(model.encoder(x), model.encoder(y), model.encoder(0.3 * x + 0.7 * y)):
        torch.testing.assert_close(between, 0.3 * at_x + 0.7 * at_y, rtol=0, atol=1e-12)
    z, w = torch.randn(2, 5, 4, dtype=torch.float64)
    between = 0.3 * model.decoder(z) + 0.7 * model.decoder(w)
    torch.testing.assert_close(model.decoder(0.3 * z + 0.7 * w), between, rtol=0, atol=1e-12)


def test_conv_vae_of_page_09():
    model = conv_vae()
    assert layers(model.encoder) == [*down(1, 32), *down(32, 64), *linear(3136, 32), *linear(3136, 32)]
    assert layers(model.decoder) == [
        *linear(32, 3136), *up(64, 32), *up(32, 32),
        (nn.Conv2d, 32, 1, (3, 3), (1, 1), (1, 1)), (nn.Identity,)]
    assert isinstance(model.likelihood, Bernoulli) and model.latent_dim == 32


def test_dense_vae_of_page_08():
    model, relu = dense_vae(), (nn.ReLU,)
    assert layers(model.encoder) == [
        *linear(784, 512), relu, *linear(512, 256), relu, *linear(256, 32), *linear(256, 32)]
    assert layers(model.decoder) == [*linear(32, 256), relu, *linear(256, 512), relu, *linear(512, 784)]
    assert isinstance(model.likelihood, Bernoulli) and model.latent_dim == 32
    tanh = dense_vae((1, 2, 2), [5], 3, activation=nn.Tanh, likelihood=Gaussian(0.1))
    assert layers(tanh.decoder) == [*linear(3, 5), (nn.Tanh,), *linear(5, 4)]
    assert tanh.likelihood.variance == 0.1


def test_dense_vae_without_hidden_layers_is_linear():
    model = dense_vae((2, 3, 1), (), 4)
    assert layers(model) == [*linear(6, 4), *linear(6, 4), *linear(4, 6)]


@pytest.mark.parametrize("image_shape, channels, latent_dim", [
    ((1, 28, 28), (32, 64), 32), ((3, 32, 48), (4, 5, 6), 7), ((2, 6, 10), [3], 1),
    ((5, 16, 16), 4 * (2,), 3)])
def test_conv_vae_fits_any_image_that_the_strides_divide(image_shape, channels, latent_dim):
    model = conv_vae(image_shape, channels, latent_dim)
    x = torch.rand(4, *image_shape)
    output, mu, log_var = model(x)
    assert output.shape == x.shape and mu.shape == log_var.shape == (4, latent_dim)
    last = model.encoder.stages(x)
    assert last.shape[1:] == model.decoder.start_shape
    assert last.shape[2] == image_shape[1] // 2 ** len(channels)
    assert last.shape[3] == image_shape[2] // 2 ** len(channels)


def test_blocks_halve_and_double():
    assert conv_block(3, 5)(torch.rand(2, 3, 8, 6)).shape == (2, 5, 4, 3)
    assert transposed_conv_block(5, 3)(torch.rand(2, 5, 4, 3)).shape == (2, 3, 8, 6)


def test_the_bias_before_a_batch_norm_has_no_effect_and_is_not_trained():
    block, x = transposed_conv_block(5, 3), torch.rand(8, 5, 4, 3)
    before = block(x)
    assert [name for name, weights in block.named_parameters() if not weights.requires_grad] == ["0.bias"]
    with torch.no_grad():
        block[0].bias += 3
    torch.testing.assert_close(block(x), before)


@pytest.mark.parametrize("make", [conv_vae, dense_vae])
@pytest.mark.parametrize("leading", [(), (3,), (5, 4), (2, 1, 3)])
def test_decoders_take_any_leading_dimensions(make, leading):
    torch.manual_seed(0)
    decoder = make((2, 4, 8), (3, 2), 6).decoder.eval()
    z = torch.randn(*leading, 6)
    output = decoder(z)
    assert output.shape == (*leading, 2, 4, 8)
    one_by_one = torch.stack([decoder(row) for row in z.reshape(-1, 6)]).reshape(output.shape)
    torch.testing.assert_close(output, one_by_one)


def test_vae_draws_z_by_the_reparameterization_trick():
    torch.manual_seed(0)
    model, x = dense_vae((1, 2, 3), (4,), 2), torch.rand(5, 1, 2, 3)
    torch.manual_seed(1)
    output, mu, log_var = model(x)
    torch.manual_seed(1)
    z = mu + log_var.exp().sqrt() * torch.randn(5, 2)
    torch.testing.assert_close(output, model.decoder(z))
    output.sum().backward()
    assert all(weights.grad is not None for weights in model.parameters())


def test_dense_ae_of_page_08_has_the_layers_of_the_vae_but_one_head():
    model, vae = dense_ae(latent_dim=2), dense_vae(latent_dim=2)
    heads = linear(256, 2)
    assert layers(vae.encoder) == [*layers(model.encoder), *heads] and layers(model.encoder)[-1:] == heads
    assert layers(model.decoder) == layers(vae.decoder)
    assert count(vae) - count(model) == 256 * 2 + 2
    assert isinstance(model.likelihood, Bernoulli) and model.latent_dim == 2
    tanh = dense_ae((1, 2, 2), [5], 3, activation=nn.Tanh, likelihood=Gaussian(0.1))
    assert layers(tanh) == [*linear(4, 5), (nn.Tanh,), *linear(5, 3), *linear(3, 5), (nn.Tanh,), *linear(5, 4)]
    assert tanh.likelihood.variance == 0.1


def test_dense_ae_and_dense_vae_of_one_seed_start_with_the_same_weights():
    x = torch.rand(5, 1, 2, 3)
    torch.manual_seed(0)
    ae = dense_ae((1, 2, 3), (4,), 2)
    torch.manual_seed(0)
    vae = dense_vae((1, 2, 3), (4,), 2)
    output, code = ae(x)
    assert code.shape == (5, 2) and output.shape == x.shape
    assert torch.equal(code, vae.encoder(x)[0]) and torch.equal(output, vae.decoder(code))
    assert torch.equal(ae(x)[0], output)  # nothing is drawn


@pytest.mark.parametrize("options", [{}, dict(autocast=True, clip=50.0, ema=0.9, warm_up=5)])
def test_fit_trains_an_autoencoder_by_its_objective(options, tmp_path):
    images = (torch.rand(64, 1, 1, 1) > 0.5).float().expand(64, 1, 4, 4)
    torch.manual_seed(0)
    model = dense_ae((1, 4, 4), (8,), 1)
    history = fit(model, images, steps=150, batch_size=32, learning_rate=0.02, objective=reconstruction,
                  checkpoint=tmp_path / "ae.safetensors", progress=False, **options)
    assert history["elbo"] == history["log_px_given_z"] and set(history["kl"]) == {0.0}
    assert history["elbo"][0] < -10 and history["elbo"][-1] > -1
    assert ((model.likelihood.mean(model(images)[0]) > 0.5).float() == images).all()


@pytest.mark.parametrize("name", ["AE", "VAE", "ConvEncoder", "ConvDecoder", "DenseEncoder", "DenseDecoder"])
def test_classes_fit_on_a_page(name):
    assert len(inspect.getsource(getattr(models, name)).splitlines()) <= 25


@pytest.mark.parametrize("network", [ConvEncoder, ConvDecoder, DenseEncoder, DenseDecoder])
@pytest.mark.parametrize("image_shape", [(28, 28), (1, 28, 28, 1), (0, 28, 28), (1, 28.0, 28), 28, "abc"])
def test_constructors_refuse_other_image_shapes(network, image_shape):
    with pytest.raises(ValueError, match=r"^image_shape: wanted positive integers \(C, H, W\), got"):
        network(image_shape, (8,), 2)


@pytest.mark.parametrize("network", [ConvEncoder, ConvDecoder])
@pytest.mark.parametrize("channels", [(), (8, 0), (8, -1), (8, 2.5), 8, None])
def test_constructors_refuse_other_channels(network, channels):
    with pytest.raises(ValueError, match="^channels: wanted a positive integer for each stage, got"):
        network((1, 28, 28), channels, 2)


@pytest.mark.parametrize("network", [DenseEncoder, DenseDecoder])
@pytest.mark.parametrize("hidden", [(8, 0), (8, 2.5), 8, None])
def test_constructors_refuse_other_hidden_sizes(network, hidden):
    with pytest.raises(ValueError, match="^hidden: wanted a positive integer for each hidden layer, got"):
        network((1, 28, 28), hidden=hidden, latent_dim=2)


def test_sizes_of_numpy_are_sizes():
    model = conv_vae(np.array([1, 8, 8]).tolist(), tuple(np.array([4, 6])), np.int64(3))
    assert type(model.latent_dim) is int and model(torch.rand(2, 1, 8, 8))[0].shape == (2, 1, 8, 8)
    assert DenseEncoder([np.int32(1), 4, 4], [np.int32(5)], 2).image_shape == (1, 4, 4)


@pytest.mark.parametrize("network", [ConvEncoder, ConvDecoder, DenseEncoder, DenseDecoder])
@pytest.mark.parametrize("latent_dim", [0, -3, 2.0, None, (2,), True])
def test_constructors_refuse_other_latent_dims(network, latent_dim):
    with pytest.raises(ValueError, match="^latent_dim: wanted an integer, 1 or more, got"):
        network((1, 28, 28), (8,), latent_dim)


@pytest.mark.parametrize("network", [ConvEncoder, ConvDecoder])
@pytest.mark.parametrize("image_shape", [(1, 28, 28), (1, 32, 28), (1, 28, 32)])
def test_constructors_refuse_images_that_the_strides_do_not_divide(network, image_shape):
    with pytest.raises(ValueError, match=r"^image_shape: wanted .* that 8 divides, .* got \(1, \d\d, \d\d\)"):
        network(image_shape, (4, 4, 4), 2)


def test_vae_refuses_an_encoder_and_a_decoder_of_different_latents():
    with pytest.raises(ValueError, match="^latent_dim: encoder has 2, decoder 3"):
        VAE(DenseEncoder((1, 2, 2), (), 2), DenseDecoder((1, 2, 2), (), 3), Bernoulli())


def test_vae_refuses_networks_for_different_images():
    with pytest.raises(ValueError, match=r"^image_shape: encoder has \(1, 2, 2\), decoder \(3, 2, 2\)"):
        VAE(DenseEncoder((1, 2, 2), (), 2), DenseDecoder((3, 2, 2), (), 2), Bernoulli())


@pytest.mark.parametrize("likelihood", ["bernoulli", Bernoulli])
def test_vae_refuses_a_likelihood_that_is_none(likelihood):
    with pytest.raises(TypeError, match=r"^likelihood: wanted Bernoulli\(\) or Gaussian\(variance\), got"):
        conv_vae(likelihood=likelihood)


@pytest.mark.parametrize("activation", ["relu", nn.ReLU()])
def test_dense_networks_refuse_an_activation_that_is_no_class(activation):
    with pytest.raises(ValueError, match="^output_activation: wanted a class such as nn.ReLU, or None, got"):
        ConvDecoder((1, 4, 4), (2,), 2, output_activation=nn.Tanh())
    with pytest.raises(ValueError, match="^activation: wanted a class such as nn.ReLU, or None, got"):
        dense_vae(activation=activation)


@pytest.mark.parametrize("make", [conv_vae, dense_vae, dense_ae])
def test_encoders_refuse_other_images(make):
    model = make((1, 4, 4), (3,), 2)
    with pytest.raises(TypeError, match="^x: wanted a tensor of torch.float32, as the weights are, got torch.uint8"):
        model(torch.zeros(5, 1, 4, 4, dtype=torch.uint8))
    for shape in [(5, 4, 4), (5, 16), (5, 3, 4, 4), (5, 1, 8, 8), (1, 4, 4), (2, 5, 1, 4, 4)]:
        with pytest.raises(ValueError, match=r"^x: wanted images of shape \(batch, 1, 4, 4\), got \("):
            model(torch.zeros(shape))


@pytest.mark.parametrize("make", [conv_vae, dense_vae, dense_ae])
def test_decoders_refuse_other_latents(make):
    decoder = make((1, 4, 4), (3,), 2).decoder
    for shape in [(5, 3), (2, 1), ()]:
        with pytest.raises(ValueError, match=r"^z: wanted latents of shape \(..., 2\), got \("):
            decoder(torch.zeros(shape))
