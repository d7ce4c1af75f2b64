"""What a decoder's output means: the likelihood p(x|z) of an image given its latents (pages 00 and 09).

A likelihood object has three methods, each taking the decoder network's `output`:
`log_prob(x, output)`, `mean(output)` and `sample(output)`. Images have shape (..., C, H, W).
"""

import math

import torch
from torch.nn.functional import softplus

IMAGE_DIMS = (-3, -2, -1)


def bernoulli_log_prob(x, logits):
    """Log probability of binary pixels x under independent Bernoullis with these logits, in nats.

    Shapes: (..., C, H, W), broadcast against each other, to (...). Equation (0.3).
    """
    return (x * logits - softplus(logits)).sum(IMAGE_DIMS)


def gaussian_log_prob(x, mean, variance):
    """Log density of pixels x under independent Gaussians N(mean, variance), every constant kept, in nats.

    Shapes: (..., C, H, W), broadcast against each other, to (...); variance is a number.
    """
    return -0.5 * ((x - mean) ** 2 / variance + math.log(2 * math.pi * variance)).sum(IMAGE_DIMS)


class Bernoulli:
    """Binary pixels; the decoder's output holds the logits, log(p / (1 - p)), of each pixel."""

    def log_prob(self, x, output):
        """log p(x|z), in nats: shapes (..., C, H, W) to (...)."""
        return bernoulli_log_prob(x, output)

    def mean(self, output):
        """The probability of a white pixel, in [0, 1]; this is what pages show as grey."""
        return output.sigmoid()

    def sample(self, output, generator=None):
        """One draw of binary pixels, float zeros and ones, of the shape of `output`."""
        return torch.bernoulli(output.sigmoid(), generator=generator)


class Gaussian:
    """Real-valued pixels with one fixed variance; the decoder's output holds the mean of each pixel.

    Raises ValueError unless the variance is a positive finite number.
    """

    def __init__(self, variance):
        if not (isinstance(variance, (int, float)) and 0 < variance < math.inf):
            raise ValueError(f"variance: wanted a positive finite number, got {variance!r}")
        self.variance = variance

    def log_prob(self, x, output):
        """log p(x|z), in nats: shapes (..., C, H, W) to (...)."""
        return gaussian_log_prob(x, output, self.variance)

    def mean(self, output):
        """The mean of each pixel."""
        return output

    def sample(self, output, generator=None):
        """One draw of the pixels, of the shape of `output`; it may leave the range of the data."""
        return output + self.variance**0.5 * torch.randn_like(output, generator=generator)
