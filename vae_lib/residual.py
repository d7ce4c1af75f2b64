"""Residual convolutional networks, which the recorded recipes train (pages 10 to 12).

Shapes and arguments are as in `models`; `channels` has one entry for each halving of the image.
"""

import math
from itertools import pairwise

from torch import nn
from torch.nn.functional import pixel_shuffle, relu

from vae_lib.guards import takes_images, takes_latents, takes_sizes
from vae_lib.likelihoods import Bernoulli
from vae_lib.models import VAE, last_shape


class ResidualBlock(nn.Module):
    """x plus two 3x3 convolutions of it, the second of which starts at zero: (batch, channels, H, W) to the same.

    Equation (12.8); He et al. 2016, with the order of activation and convolution of their second paper. No batch norm.
    """

    def __init__(self, channels):
        super().__init__()
        self.first = nn.Conv2d(channels, channels, kernel_size=3, padding=1)
        self.second = nn.Conv2d(channels, channels, kernel_size=3, padding=1)
        nn.init.zeros_(self.second.weight)
        nn.init.zeros_(self.second.bias)

    def forward(self, x):
        return x + self.second(relu(self.first(relu(x))))


class ResidualEncoder(nn.Module):
    """Stages of residual blocks at half, quarter, ... of the image's size, one per entry of `channels`, two heads.

    The first halving folds each 2x2 square of pixels into channels, which loses nothing; the others are stride-2
    convolutions. Shapes: (batch, C, H, W) to mu, log_var, both (batch, latent_dim).
    Raises ValueError for sizes that do not fit, here or in forward; TypeError for integer images.
    """

    @takes_sizes
    def __init__(self, image_shape, channels, latent_dim, blocks=1):
        super().__init__()
        self.image_shape, self.latent_dim = tuple(image_shape), latent_dim
        first = nn.Conv2d(4 * image_shape[0], channels[0], kernel_size=3, padding=1)
        layers = [nn.PixelUnshuffle(2), first, *(ResidualBlock(channels[0]) for _ in range(blocks))]
        for channels_in, channels_out in pairwise(channels):
            layers += [nn.Conv2d(channels_in, channels_out, kernel_size=3, stride=2, padding=1),
                       *(ResidualBlock(channels_out) for _ in range(blocks))]
        self.stages = nn.Sequential(*layers, nn.ReLU())
        features = math.prod(last_shape(image_shape, channels))
        self.to_mu = nn.Linear(features, latent_dim)
        self.to_log_var = nn.Linear(features, latent_dim)

    @takes_images
    def forward(self, x):
        features = self.stages(x).flatten(1)
        return self.to_mu(features), self.to_log_var(features)


class ResidualDecoder(nn.Module):
    """A linear layer, then the stages of `ResidualEncoder` backwards; each doubling unfolds channels into pixels.

    Shapes: (..., latent_dim) to (..., C, H, W). Raises ValueError for sizes that do not fit, here or in forward.
    """

    @takes_sizes
    def __init__(self, image_shape, channels, latent_dim, blocks=1):
        super().__init__()
        self.image_shape, self.latent_dim = tuple(image_shape), latent_dim
        self.start_shape = last_shape(image_shape, channels)
        self.from_latent = nn.Linear(latent_dim, math.prod(self.start_shape))
        layers = [ResidualBlock(channels[-1]) for _ in range(blocks)]
        for channels_in, channels_out in pairwise(reversed(channels)):
            layers += [nn.Conv2d(channels_in, 4 * channels_out, kernel_size=3, padding=1), nn.PixelShuffle(2),
                       *(ResidualBlock(channels_out) for _ in range(blocks))]
        self.stages = nn.Sequential(*layers, nn.ReLU())
        self.to_output = nn.Conv2d(channels[0], 4 * image_shape[0], kernel_size=3, padding=1)

    @takes_latents
    def forward(self, z):
        features = self.from_latent(z).reshape(-1, *self.start_shape[1:], self.start_shape[0])
        features = features.permute(0, 3, 1, 2)  # channels last in memory: convolutions are faster so
        output = pixel_shuffle(self.to_output(self.stages(features)), 2)
        return output.reshape(*z.shape[:-1], *self.image_shape)


def residual_vae(image_shape=(1, 28, 28), channels=(32, 64), latent_dim=40, blocks=1, likelihood=None):
    """The residual VAE of the recipes, with a Bernoulli likelihood unless another is given."""
    return VAE(ResidualEncoder(image_shape, channels, latent_dim, blocks),
               ResidualDecoder(image_shape, channels, latent_dim, blocks), likelihood or Bernoulli())
