"""Encoder, decoder, VAE and autoencoder; the article's two networks (pages 07 to 09).

Images are floats of shape (batch, C, H, W); latents have shape (..., latent_dim). `image_shape` is (C, H, W).
`channels` and `hidden` list sizes from the image to the latents, for decoders too, which turn them round.
"""

import math
from itertools import pairwise

from torch import nn

from vae_lib.gaussian import reparameterize
from vae_lib.guards import takes_images, takes_latents, takes_parts, takes_sizes
from vae_lib.likelihoods import Bernoulli, Gaussian


def conv_block(channels_in, channels_out):
    """The article's ConvBnRelu: (batch, channels_in, H, W) to (batch, channels_out, H/2, W/2)."""
    return nn.Sequential(
        nn.Conv2d(channels_in, channels_out, kernel_size=3, stride=2, padding=1),
        nn.BatchNorm2d(channels_out),
        nn.LeakyReLU(0.2, inplace=True),
    )


def transposed_conv_block(channels_in, channels_out):
    """The article's DConvBnRelu: (batch, channels_in, H, W) to (batch, channels_out, 2H, 2W).

    The convolution's bias stays as it starts: the batch norm takes it away again (page 09), so its gradient is zero,
    and to sum that up took a third of a step.
    """
    convolution = nn.ConvTranspose2d(channels_in, channels_out, kernel_size=3, stride=2, padding=1, output_padding=1)
    convolution.bias.requires_grad_(False)
    return nn.Sequential(convolution, nn.BatchNorm2d(channels_out), nn.LeakyReLU(0.2, inplace=True))


def dense_block(size_in, size_out, activation):
    """A linear layer and its activation, a class such as nn.ReLU, or None for the linear layer alone."""
    return nn.Sequential(nn.Linear(size_in, size_out), *([activation()] if activation else []))


def last_shape(image_shape, channels):
    """The shape (channels, height, width) of an image after the last stage; each stage halves height and width."""
    shrink = 2 ** len(channels)
    return channels[-1], image_shape[1] // shrink, image_shape[2] // shrink


class VAE(nn.Module):
    """An encoder q(z|x), a decoder network and the likelihood p(x|z) that interprets its output.

    forward draws one z per image: (batch, C, H, W) to output, mu, log_var, of shapes (batch, C, H, W),
    (batch, latent_dim) and (batch, latent_dim). Kingma & Welling 2014, section 3.
    Raises ValueError when encoder and decoder differ in latent_dim or image_shape, TypeError for no likelihood.
    """

    @takes_parts
    def __init__(self, encoder, decoder, likelihood):
        super().__init__()
        if encoder.latent_dim != decoder.latent_dim:
            raise ValueError(f"latent_dim: encoder has {encoder.latent_dim}, decoder {decoder.latent_dim}")
        self.encoder, self.decoder, self.likelihood = encoder, decoder, likelihood
        self.latent_dim = encoder.latent_dim

    def forward(self, x):
        mu, log_var = self.encoder(x)
        z = reparameterize(mu, log_var)
        return self.decoder(z), mu, log_var


class AE(nn.Module):
    """A plain autoencoder: an encoder of one head, a decoder network and the likelihood of its output.

    forward draws nothing: (batch, C, H, W) to output and code, of shapes (batch, C, H, W) and (batch, latent_dim).
    `fit` trains it with objective=reconstruction. Page 08. Raises TypeError or ValueError for other images.
    """

    def __init__(self, encoder, decoder, likelihood):
        super().__init__()
        self.encoder, self.decoder, self.likelihood = encoder, decoder, likelihood
        self.image_shape, self.latent_dim = decoder.image_shape, decoder.latent_dim

    @takes_images
    def forward(self, x):
        code = self.encoder(x)
        return self.decoder(code), code


class ConvEncoder(nn.Module):
    """Stride-2 convolutions, one per entry of `channels`, then two linear heads.

    Shapes: (batch, C, H, W) to mu, log_var, both (batch, latent_dim).
    Raises ValueError for sizes that do not fit, here or in forward; TypeError for integer images.
    """

    @takes_sizes
    def __init__(self, image_shape, channels, latent_dim):
        super().__init__()
        self.image_shape, self.latent_dim = tuple(image_shape), latent_dim
        widths = (image_shape[0], *channels)
        self.stages = nn.Sequential(*(conv_block(*sizes) for sizes in pairwise(widths)))
        features = math.prod(last_shape(image_shape, channels))
        self.to_mu = nn.Linear(features, latent_dim)
        self.to_log_var = nn.Linear(features, latent_dim)

    @takes_images
    def forward(self, x):
        features = self.stages(x).flatten(1)
        return self.to_mu(features), self.to_log_var(features)


class ConvDecoder(nn.Module):
    """A linear layer, stride-2 transposed convolutions through `channels` backwards, and a 3x3 convolution.

    Shapes: (..., latent_dim) to (..., C, H, W). For channels c1, ..., cn the stages are cn to c(n-1), ...,
    c2 to c1, c1 to c1. `output_activation`: a class such as nn.Tanh, put last, or None.
    Raises ValueError for sizes that do not fit, here or in forward.
    """

    @takes_sizes
    def __init__(self, image_shape, channels, latent_dim, output_activation=None):
        super().__init__()
        self.image_shape, self.latent_dim = tuple(image_shape), latent_dim
        self.start_shape = last_shape(image_shape, channels)
        self.from_latent = nn.Linear(latent_dim, math.prod(self.start_shape))
        widths = (*reversed(channels), channels[0])
        self.stages = nn.Sequential(*(transposed_conv_block(*sizes) for sizes in pairwise(widths)))
        self.to_output = nn.Conv2d(channels[0], image_shape[0], kernel_size=3, padding=1)
        self.output_activation = (output_activation or nn.Identity)()

    @takes_latents
    def forward(self, z):
        features = self.from_latent(z).reshape(-1, *self.start_shape)
        output = self.output_activation(self.to_output(self.stages(features)))
        return output.reshape(*z.shape[:-1], *self.image_shape)


class DenseEncoder(nn.Module):
    """Linear layers of the sizes in `hidden`, each followed by `activation`, then two linear heads.

    Shapes: (batch, C, H, W) to mu, log_var, both (batch, latent_dim). `activation`: a class such as nn.ReLU,
    or None for an affine network.
    Raises ValueError for sizes that do not fit, here or in forward; TypeError for integer images.
    """

    @takes_sizes
    def __init__(self, image_shape, hidden, latent_dim, activation=nn.ReLU):
        super().__init__()
        self.image_shape, self.latent_dim = tuple(image_shape), latent_dim
        widths = (math.prod(image_shape), *hidden)
        self.stages = nn.Sequential(*(dense_block(*sizes, activation) for sizes in pairwise(widths)))
        self.to_mu = nn.Linear(widths[-1], latent_dim)
        self.to_log_var = nn.Linear(widths[-1], latent_dim)

    @takes_images
    def forward(self, x):
        features = self.stages(x.flatten(1))
        return self.to_mu(features), self.to_log_var(features)


class DenseDecoder(nn.Module):
    """Linear layers through `hidden` backwards, each followed by `activation`, and one more to the pixels.

    Shapes: (..., latent_dim) to (..., C, H, W). `activation`: a class such as nn.ReLU, or None for an affine network;
    none follows the last layer. Raises ValueError for sizes that do not fit, here or in forward.
    """

    @takes_sizes
    def __init__(self, image_shape, hidden, latent_dim, activation=nn.ReLU):
        super().__init__()
        self.image_shape, self.latent_dim = tuple(image_shape), latent_dim
        widths = (latent_dim, *reversed(hidden))
        self.stages = nn.Sequential(*(dense_block(*sizes, activation) for sizes in pairwise(widths)))
        self.to_output = nn.Linear(widths[-1], math.prod(image_shape))

    @takes_latents
    def forward(self, z):
        return self.to_output(self.stages(z)).unflatten(-1, self.image_shape)


def conv_vae(image_shape=(1, 28, 28), channels=(32, 64), latent_dim=32, likelihood=None):
    """A convolutional VAE; with 20 latents that of page 09. The likelihood is Bernoulli unless another is given."""
    return VAE(ConvEncoder(image_shape, channels, latent_dim), ConvDecoder(image_shape, channels, latent_dim),
               likelihood or Bernoulli())


def dense_vae(image_shape=(1, 28, 28), hidden=(512, 256), latent_dim=32, activation=nn.ReLU, likelihood=None):
    """A fully connected VAE, like those of page 08, with a Bernoulli likelihood unless another is given."""
    return VAE(DenseEncoder(image_shape, hidden, latent_dim, activation),
               DenseDecoder(image_shape, hidden, latent_dim, activation), likelihood or Bernoulli())


def dense_ae(image_shape=(1, 28, 28), hidden=(512, 256), latent_dim=32, activation=nn.ReLU, likelihood=None):
    """An autoencoder, like that of page 08: the layers of `dense_vae` without the head `to_log_var`.

    From one seed, both start with the same weights.
    """
    encoder = DenseEncoder(image_shape, hidden, latent_dim, activation)
    one_head = nn.Sequential(nn.Flatten(), encoder.stages, encoder.to_mu)
    return AE(one_head, DenseDecoder(image_shape, hidden, latent_dim, activation), likelihood or Bernoulli())


def article_conv_vae(image_shape=(1, 64, 64), latent_dim=128):
    """The article's convolutional network: tanh for pixels in [-1, 1]; its loss implies the variance 1/2."""
    channels = (96, 128, 256, 256)
    return VAE(ConvEncoder(image_shape, channels, latent_dim),
               ConvDecoder(image_shape, channels, latent_dim, output_activation=nn.Tanh), Gaussian(0.5))


def article_dense_vae(image_shape=(1, 64, 64), latent_dim=32):
    """The article's fully connected network, without any activation (kept: page 07), and variance 1/2."""
    return dense_vae(image_shape, (512, 256), latent_dim, activation=None, likelihood=Gaussian(0.5))
