"""What a published loss means: its decoder variance, its KL weight, the constant that it drops (page 06)."""

import math
from numbers import Integral, Real
from typing import NamedTuple

from vae_lib.likelihoods import positive

REDUCTIONS = ("sum", "mean")


class Translation(NamedTuple):
    """What a loss implies: nats_per_unit * loss + constant = -(log p(x|z) - beta * KL), in nats per image: (6.7).

    `variance` is the decoder's, in the unit in which the loss sees the pixels, and variance_on_unit_range the
    same on pixels scaled to [0, 1]; both are None for a Bernoulli decoder.
    """

    variance: float | None
    variance_on_unit_range: float | None
    beta: float
    nats_per_unit: float
    constant: float

    def __str__(self):
        rows = [("weight beta of the KL", f"{self.beta:.6g}"),
                ("-(log p(x|z) - beta KL)", f"{self.nats_per_unit:.6g} * loss + {self.constant:.6g} nats")]
        if self.variance is None:
            rows.insert(0, ("decoder", "Bernoulli, for binary pixels"))
        else:
            rows[:0] = [("decoder variance s2", f"{self.variance:.6g}"),
                        ("s2 on pixels in [0, 1]", f"{self.variance_on_unit_range:.6g}")]
        return "\n".join(f"{name:<24}= {value}" for name, value in rows)


def translate_loss(reconstruction="squared error", reduction="sum", *, pixels, weight=1.0, kl_weight=1.0,
                   kl_reduction="sum", latent_dim=None, pixel_range=(0, 1), variance=None):
    """Say what the loss weight * reduction(error) + kl_weight * kl_reduction(KL), of one image, implies.

    reconstruction  "squared error", or "cross entropy" against sigmoids
    reduction       "sum" or "mean" over the `pixels`, that is C * H * W of them
    kl_reduction    "sum" or "mean" over the `latent_dim` latents, which need be known only for the mean
    pixel_range     lowest and highest value of the pixels as the loss sees them
    variance        the decoder variance that the author names, if any: beta is then the rest of the KL's
                    weight; without it beta is 1 and the variance is what makes it so

    Both terms are averages over the batch, or both sums. Where the error is averaged over a batch of B images
    and the KL summed, multiply kl_weight by B. Returns a Translation, which prints as a table. With w and c for
    the weights of summed error and summed KL: s2 = c / (2 w) at beta = 1 (6.2), or beta = c / (2 w s2) (6.5); for
    cross entropy beta = c / w (6.6). On [0, 1] s2 is divided by the squared width of pixel_range (6.3). What
    nats_per_unit * loss lacks is (pixels / 2) ln(2 pi s2) nats. Raises ValueError for arguments outside these. Equation
    (6.7).
    """
    _check(reconstruction, reduction, kl_reduction, pixels, latent_dim, pixel_range, variance)
    w = positive("weight", weight) / (pixels if reduction == "mean" else 1)
    c = positive("kl_weight", kl_weight) / (latent_dim if kl_reduction == "mean" else 1)
    if reconstruction == "cross entropy":
        return Translation(None, None, beta=c / w, nats_per_unit=1 / w, constant=0.0)
    s2 = c / (2 * w) if variance is None else positive("variance", variance)
    beta = 1.0 if variance is None else c / (2 * w * s2)
    on_unit_range = s2 / (pixel_range[1] - pixel_range[0]) ** 2
    return Translation(s2, on_unit_range, beta, 1 / (2 * w * s2), pixels / 2 * math.log(2 * math.pi * s2))


def _check(reconstruction, reduction, kl_reduction, pixels, latent_dim, pixel_range, variance):
    """Refuse what translate_loss has no meaning for: a ValueError names the argument."""
    def count(value):
        return isinstance(value, Integral) and value > 0

    cross_entropy = reconstruction == "cross entropy"
    a_range = (isinstance(pixel_range, (tuple, list)) and len(pixel_range) == 2
               and all(isinstance(end, Real) for end in pixel_range)
               and -math.inf < pixel_range[0] < pixel_range[1] < math.inf)
    for name, value, fits, wanted in (
        ("reconstruction", reconstruction, cross_entropy or reconstruction == "squared error",
         "'squared error' or 'cross entropy'"),
        ("reduction", reduction, reduction in REDUCTIONS, "'sum' or 'mean'"),
        ("kl_reduction", kl_reduction, kl_reduction in REDUCTIONS, "'sum' or 'mean'"),
        ("pixels", pixels, count(pixels), "a positive integer, C * H * W"),
        ("latent_dim", latent_dim, count(latent_dim) or (latent_dim is None and kl_reduction == "sum"),
         "a positive integer, for a KL averaged over latents"),
        ("pixel_range", pixel_range, a_range, "two finite numbers, the lower one first"),
        ("pixel_range", pixel_range, not cross_entropy or tuple(pixel_range) == (0, 1),
         "(0, 1), where cross entropy lives"),
        ("variance", variance, variance is None or not cross_entropy, "None for cross entropy"),
    ):
        if not fits:
            raise ValueError(f"{name}: wanted {wanted}, got {value!r}")
