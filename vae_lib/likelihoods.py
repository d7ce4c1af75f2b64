"""The likelihood p(x|z) of an image given its latents, from the decoder's output (pages 00, 06 and 09).

A likelihood object has three methods, each taking the decoder network's `output`:
`log_prob(x, output)`, `mean(output)` and `sample(output)`. Images have shape (..., C, H, W). Log probabilities are in
float32 where images or output are float16 or bfloat16.
"""

import math

import torch
from torch import nn
from torch.nn.functional import softplus

from vae_lib.guards import positive, takes_pixels, widened

IMAGE_DIMS = (-3, -2, -1)


@widened
def bernoulli_log_prob(x, logits):
    """Log probability of binary pixels x under independent Bernoullis with these logits, in nats.

    Shapes: (..., C, H, W), broadcast against each other, to (...). Equation (0.2).
    """
    return (x * logits - softplus(logits)).sum(IMAGE_DIMS)


@widened
def gaussian_log_prob(x, mean, variance):
    """Log density of pixels x under independent Gaussians N(mean, variance), every constant kept, in nats.

    Shapes: (..., C, H, W), broadcast against each other, to (...); variance is a number. Equation (6.1).
    """
    return -0.5 * (((x - mean) / variance**0.5) ** 2 + math.log(2 * math.pi * variance)).sum(IMAGE_DIMS)


@widened
def learned_gaussian_log_prob(x, mean, log_var):
    """Log density of pixels x under independent Gaussians N(mean, exp(log_var)), in nats.

    Shapes: x and mean (..., C, H, W), broadcast against each other, to (...); log_var is a tensor, one number
    for all pixels. Equation (6.1), whose derivative by log_var is (6.10).
    """
    return -0.5 * (((x - mean) * (-0.5 * log_var).exp()) ** 2 + log_var + math.log(2 * math.pi)).sum(IMAGE_DIMS)


@widened
def optimal_variance(x, mean):
    """The variance at which pixels x are most probable under N(mean, variance): the mean squared error.

    Shapes: (..., C, H, W), broadcast against each other, to one number, a tensor; nan for no image. Equation (6.8);
    Rybkin, Daniilidis & Levine 2021.
    """
    return ((x - mean) ** 2).mean()


class Bernoulli:
    """Binary pixels; the decoder's output holds the logits, log(p / (1 - p)), of each pixel."""

    pixel_range = (0, 1)

    def __repr__(self):
        return f"{type(self).__name__}()"

    @takes_pixels
    def log_prob(self, x, output):
        """log p(x|z), in nats: shapes (..., C, H, W) to (...). ValueError for x of another C, H or W than output."""
        return bernoulli_log_prob(x, output)

    def mean(self, output):
        """The probability of a white pixel, in [0, 1], which pages show as grey."""
        return output.sigmoid()

    def sample(self, output, generator=None):
        """One draw of binary pixels, float zeros and ones, of the shape of `output`."""
        return torch.bernoulli(output.sigmoid(), generator=generator)


class Gaussian:
    """Real-valued pixels with one fixed variance; the decoder's output holds the mean of each pixel.

    Raises ValueError unless the variance is a positive finite number.
    """

    def __init__(self, variance):
        self.variance = positive("variance", variance)

    def __repr__(self):
        return f"{type(self).__name__}({self.variance})"

    @takes_pixels
    def log_prob(self, x, output):
        """log p(x|z), in nats: shapes (..., C, H, W) to (...). ValueError for x of another C, H or W than output."""
        return gaussian_log_prob(x, output, self.variance)

    def mean(self, output):
        """The mean of each pixel."""
        return output

    def sample(self, output, generator=None):
        """One draw of the pixels, of the shape of `output`; it may leave the range of the data."""
        return output + self.variance**0.5 * torch.randn_like(output, generator=generator)


class LearnedVarianceGaussian(nn.Module):
    """Real-valued pixels with one learned variance; the decoder's output holds the mean of each pixel.

    The parameter `log_var`, one number for all pixels, is the VAE's too, and is trained with it; `variance`
    is where it starts. Rybkin, Daniilidis & Levine 2021 (sigma-VAE). Raises ValueError unless the variance is
    a positive finite number.
    """

    def __init__(self, variance=1.0):
        super().__init__()
        self.log_var = nn.Parameter(torch.tensor(math.log(positive("variance", variance))))

    @property
    def variance(self):
        """The variance that is learned, as a number."""
        return math.exp(self.log_var.item())

    @takes_pixels
    def log_prob(self, x, output):
        """log p(x|z), in nats: shapes (..., C, H, W) to (...). ValueError for x of another C, H or W than output."""
        return learned_gaussian_log_prob(x, output, self.log_var)

    def mean(self, output):
        """The mean of each pixel."""
        return output

    def sample(self, output, generator=None):
        """One draw of the pixels, of the shape of `output`; it may leave the range of the data."""
        return output + (0.5 * self.log_var).exp() * torch.randn_like(output, generator=generator)
