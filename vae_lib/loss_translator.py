"""The meaning of a published loss: its decoder variance, its KL weight, the constant that it drops (page 06)."""

import math
from typing import NamedTuple

from vae_lib.guards import integer, interval, one_of, optional, positive, takes


class Translation(NamedTuple):
    """The meaning of a loss: nats_per_unit * loss + constant = -(log p(x|z) - beta * KL), in nats per image: (6.7).

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


@takes(reconstruction=one_of("squared error", "cross entropy"), reduction=one_of("sum", "mean"), pixels=integer,
       weight=positive, kl_weight=positive, kl_reduction=one_of("sum", "mean"), latent_dim=optional(integer),
       pixel_range=interval, variance=optional(positive))
def translate_loss(reconstruction="squared error", reduction="sum", *, pixels, weight=1.0, kl_weight=1.0,
                   kl_reduction="sum", latent_dim=None, pixel_range=(0, 1), variance=None):
    """The meaning of the loss weight * reduction(error) + kl_weight * kl_reduction(KL) of one image: a Translation.

    reconstruction  "squared error", or "cross entropy" against sigmoids
    reduction       "sum" or "mean" over the `pixels`, that is C * H * W of them
    kl_reduction    "sum" or "mean" over the `latent_dim` latents, which need be known only for the mean
    pixel_range     lowest and highest value of the pixels as the loss sees them
    variance        the decoder variance s2 that the author names, if any; without one, s2 is chosen such that beta = 1

    Both terms are averages over the batch, or both sums. Where the error is averaged over a batch of B images
    and the KL summed, multiply kl_weight by B. Let w be the weight of the summed error and c that of the summed KL.
    Then s2 = c / (2 w) at beta = 1, equation (6.2). With a named s2, beta = c / (2 w s2), (6.5); for cross entropy
    beta = c / w, (6.6). On pixels in [0, 1] s2 is divided by the squared width of pixel_range, (6.3). The constant is
    (pixels / 2) ln(2 pi s2) nats, (6.7). Raises ValueError for other arguments.
    """
    if kl_reduction == "mean" and latent_dim is None:
        raise ValueError("latent_dim: wanted a positive integer, for a KL averaged over latents, got None")
    w = weight / (pixels if reduction == "mean" else 1)
    c = kl_weight / (latent_dim if kl_reduction == "mean" else 1)
    if reconstruction == "cross entropy":
        if variance is not None or pixel_range != (0, 1):
            raise ValueError("variance, pixel_range: wanted None and (0, 1) for cross entropy, "
                             f"got {variance} and {pixel_range}")
        return Translation(None, None, beta=c / w, nats_per_unit=1 / w, constant=0.0)
    s2 = c / (2 * w) if variance is None else variance
    beta = 1.0 if variance is None else c / (2 * w * s2)
    on_unit_range = s2 / (pixel_range[1] - pixel_range[0]) ** 2
    return Translation(s2, on_unit_range, beta, 1 / (2 * w * s2), pixels / 2 * math.log(2 * math.pi * s2))
