"""The noise of z, measured by drawing it, and whether the KL charges for the same noise.

Examinations return what those of `of_model` do.
"""

import math
from contextlib import suppress
from typing import NamedTuple

import torch

from vae_lib.checkup.answers import NotReadable
from vae_lib.checkup.of_model import DRAWN_INSIDE, near

LOG_VARS = -2.0, 0.0, 1.0


class Noise(NamedTuple):
    """The standard deviation of z around mu at three log-variances, and up to 5,000 draws of it at log_var = 0.

    `oddity` says what else is wrong with it; it is "" for noise of mean 0 with a number of its own for each latent.
    """

    stds: tuple
    sample: torch.Tensor
    oddity: str = ""

    def follows(self, slope, factor=1.0):
        """Whether std = factor * exp(slope * log_var), within 5 %: seven standard errors."""
        return all(near(std, factor * math.exp(slope * t), 0.05) for std, t in zip(self.stds, LOG_VARS))


def drawn(probe, drive, mu, log_var, numbers):
    """Draws of z - mu in training: tensors (rows, latents), one for each call of the decoder, of `numbers` or more."""
    parts, seed = [], 0
    while sum(part.numel() for part in parts) < numbers:
        z = probe.ask(drive, mu=mu, log_var=log_var, seed=seed)[1]
        if not z:
            raise NotReadable("the decoder is not called")
        most = max(part.numel() for part in z)  # one of many draws that is decoded again may be chosen by its weight
        noisy = [part - mu for part in z if part.numel() == most and (part != mu).any()]  # a mean is no draw
        parts += [part.reshape(-1, math.prod(probe.latent_shape)) for part in noisy or [torch.zeros_like(z[0])]]
        seed += 1
    return parts


def noise(probe, drive, repeats=16):
    """The Noise that the model draws in training, from 12,000 numbers or more at each log-variance.

    The images are repeated `repeats` times in a batch: few, as some losses compare every image with every other.
    NotReadable where z is not mu plus noise that is the same for every mu, or all images get the same draw.
    """
    many = probe.like(x=probe.x.repeat(repeats, *[1] * (probe.x.dim() - 1)))
    draws = [drawn(many, drive, 0.5, log_var, 12_000) for log_var in LOG_VARS]
    samples = [torch.cat(parts).flatten().double() for parts in draws]
    if any(sample.isnan().any() for sample in samples):
        raise NotReadable(DRAWN_INSIDE)
    stds, means = (tuple(getattr(sample, of)().item() for sample in samples) for of in ("std", "mean"))
    if samples[1].any() and all((part == part[:, :1]).all() for part in draws[1]) and draws[1][0].shape[1] > 1:
        return Noise(stds, samples[1][:5000], "all latents of an image get one and the same number as noise")
    if samples[1].any() and all((part == part[:1]).all() for part in draws[1]):
        raise NotReadable("all images of a batch get one and the same noise, so that its spread is not measured")
    at_0 = torch.cat(drawn(many, drive, 0.0, LOG_VARS[1], 2_000)).double()
    shift = means[1] / max(stds[1], 1e-3)
    moves_along = all(near(mean, shift * std, 0.1) for mean, std in zip(means, stds)) and near(
        at_0.mean().item(), means[1], 0.2)
    if not moves_along and any(abs(mean) > 0.1 * max(std, 1e-3) for mean, std in zip(means, stds)):
        raise NotReadable(f"z is not mu plus noise: its mean is {0.5 + means[1]:.3g} where mu is 0.5")
    if not near(at_0.std().item(), stds[1], 0.2):
        raise NotReadable(f"the noise of z is another one at mu = 0, {at_0.std():.3g}, than at 0.5, {stds[1]:.3g}")
    shifted = moves_along and abs(shift) > 0.1
    return Noise(stds, samples[1][:5000], f"at sigma = 1 the noise of z has the mean {means[1]:.3g}, not 0" * shifted)


def by_its_noise(probe, kl_of=None):
    """The probe, its `spread` corrected if the encoder's second answer is always positive and noise or KL agrees.

    kl_of(probe), if given, is the KLTerm of the loss for that spread. Of an answer of any sign, noise and KL together
    say that it is a log standard deviation.
    """
    try:
        positive = (probe.encoded(probe.x, training=False)[1] > 0).all()
    except NotReadable:
        return probe
    others = [probe.like(spread=spread) for spread in ("std", "variance") if positive]
    as_drawn = lambda other: noise(other, probe.seams.drive).follows(0.5)
    checks = [(as_drawn, others)]
    if kl_of:
        checks += [(lambda other: kl_of(other).right, others),
                   (lambda other: kl_of(other).of_variance and as_drawn(other), [probe.like(spread="log_std")])]
    for agrees, tried in checks:
        for other in tried:
            with suppress(NotReadable):
                if agrees(other):
                    return other
    return probe


def draws(noise, agree, stated, trains=True):
    """Noise of another spread than the KL assumes, and a variance for a standard deviation.

    agree says whether noise and KL fit together, None if there is no KL to compare with; stated, whether it is known
    what the encoder returns beside mu; trains, whether a loss was run, and not only forward, which may copy at mu.
    """
    stds, factor = ", ".join(f"{std:.3g}" for std in noise.stds), noise.stds[1]
    measured = f"the noise of z has the standard deviation {stds} where exp(log_var / 2) is 0.368, 1, 1.65"
    right, swapped = noise.follows(0.5), noise.follows(1.0) or noise.follows(0.25)
    scaled = noise.follows(0.5, factor) or noise.follows(0.0, factor)
    if noise.oddity:
        shown, measured = (True, None), f"{noise.oddity}; {measured}"
    elif factor == 0 and not trains:
        shown, measured = (None, None), "forward decodes mu itself; only a loss tells how training draws z"
    elif agree:
        shown, measured = (False, False), measured + "; the KL has the same" if not right else measured
    elif agree is False or stated or right or scaled:
        shown = not right and not swapped, swapped or (right and agree is False)
    else:
        shown, measured = (None, None), measured + "; only the KL can tell whether that is meant: give loss or spread"
    if shown[0] and factor > 0 and not noise.oddity:
        measured += f"; at sigma = 1 the KL is wrong by {(factor**2 - 1) / 2 - math.log(factor):.3g} nats a latent"
    return {"noise_std": (shown[0], measured), "std_as_variance": (shown[1], noise.oddity or measured)}
