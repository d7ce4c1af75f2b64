"""What a model shows without its loss: its heads, its noise, the range of its decoder's output.

An examination returns {exhibit: (shown, evidence)}: True, False, or None where it cannot be told, and a sentence with
the number that was measured. It raises NotReadable where the model does not let itself be measured.
"""

import math
from contextlib import suppress
from typing import NamedTuple

import torch

from vae_lib.checkup.answers import NotReadable
from vae_lib.checkup.keeping import other_weights


def near(value, wanted, tolerance=0.01):
    """Whether two numbers agree within a hundredth."""
    return value is not None and abs(value - wanted) <= tolerance * abs(wanted)


def heads(probe):
    """ReLU, and batch norm, behind the two heads: what they return for images, noise, and noise in other batches."""
    noise = torch.rand(3, 32, *probe.x.shape[1:], dtype=probe.x.dtype, device=probe.x.device)
    low, high = probe.x.min(), probe.x.max()
    batches = [low + (high - low) * noise[0], low + (high - low) * noise[1] ** 8, (high - low) * (20 * noise[2] - 10)]
    answers = [probe.encoded(batch, training=False) for batch in (probe.x, high + low - probe.x, *batches)]
    cut, normed = [], []
    for place, name in enumerate(("mu", probe.spread)):
        values = torch.cat([answer[place].flatten(1) for answer in answers])
        if values.isnan().any():
            raise NotReadable(f"the encoder returns NaN for {name}")
        zeros = (values == 0).double().mean().item()
        if (place == 0 or "log" in name) and values.min() == 0 and 0.01 < zeros < 1:
            cut.append(f"{name} is never negative in {values.numel()} values, and exactly 0 in {zeros:.0%} of them")
        in_batches = [probe.encoded(batch, training=True)[place].flatten(1).double() for batch in batches]
        means, stds = (torch.stack([getattr(values, of)(0) for values in in_batches]) for of in ("mean", "std"))
        same = (means - means[0]).abs() < 0.02 * stds, (stds - stds[0]).abs() < 0.02 * stds
        if stds.min() > 1e-4 and torch.stack(same).all():
            normed.append(f"{name} has the mean {means[0, 0]:.3g} and the standard deviation {stds[0, 0]:.3g} over "
                          "three batches of quite different images")
    return {"relu_on_heads": (bool(cut), "; ".join(cut) or "no head is cut off at 0"),
            "batch_norm_on_heads": (bool(normed), "; ".join(normed) or "mean and spread over a batch vary with it")}


LOG_VARS = -2.0, 0.0, 1.0
DRAWN_INSIDE = "the encoder draws z itself, so what it draws is not seen"


class Noise(NamedTuple):
    """The standard deviation of z around mu at three log-variances, and up to 5,000 draws of it at log_var = 0."""

    stds: tuple
    sample: torch.Tensor

    def follows(self, slope, factor=1.0):
        """Whether std = factor * exp(slope * log_var), within 5 %: seven standard errors."""
        return all(near(std, factor * math.exp(slope * t), 0.05) for std, t in zip(self.stds, LOG_VARS))


def noise(probe, drive, repeats=16):
    """The Noise that the model draws in training, from 12,000 numbers or more at each log-variance.

    The images are repeated `repeats` times in a batch: few, as some losses compare every image with every other.
    NotReadable where z is not mu plus noise that is the same for every mu.
    """
    many = probe.like(x=probe.x.repeat(repeats, *[1] * (probe.x.dim() - 1)))

    def drawn(mu, log_var, numbers):
        parts, seed = [], 0
        while sum(part.numel() for part in parts) < numbers:
            z = many.ask(drive, mu=mu, log_var=log_var, seed=seed)[1]
            if not z:
                raise NotReadable("the decoder is not called")
            noisy = [part - mu for part in z if (part != mu).any()]  # a mean that is decoded besides is no draw
            parts, seed = parts + [part.flatten() for part in noisy or [torch.zeros_like(z[0])]], seed + 1
        return torch.cat(parts).double()

    draws = [drawn(0.5, log_var, 12_000) for log_var in LOG_VARS]
    for sample in draws:
        if sample.isnan().any():
            raise NotReadable(DRAWN_INSIDE)
        if not sample.mean().abs() <= 0.1 * max(sample.std(), 1e-3):
            raise NotReadable(f"z is not mu plus noise: its mean is {0.5 + sample.mean():.3g} where mu is 0.5")
    stds = tuple(sample.std().item() for sample in draws)
    elsewhere = drawn(0.0, LOG_VARS[1], 2_000).std().item()
    if not near(elsewhere, stds[1], 0.2):
        raise NotReadable(f"the noise of z is another one at mu = 0, {elsewhere:.3g}, than at 0.5, {stds[1]:.3g}")
    return Noise(stds, draws[1][:5000])


def returns_mu(probe, function, name):
    """A number that is made from mu itself in eval mode."""
    drawn = probe.ask(function, mu=0.5, training=False)[1]
    if not drawn or any(z.isnan().any() for z in drawn):
        raise NotReadable(DRAWN_INSIDE if drawn else "the decoder is not called")
    silent = all(bool((z == 0.5).all()) for z in drawn)
    return {"eval_returns_mu": (silent, f"in eval mode {name} decodes "
                                + ("mu itself, without noise" if silent else "z that is drawn around mu"))}


def by_its_noise(probe, fits=None):
    """The probe, its `spread` corrected if the encoder's second answer is always positive and noise or KL agrees.

    fits(probe), if given, says whether the KL of the loss is the right one for that spread.
    """
    try:
        positive = (probe.encoded(probe.x, training=False)[1] > 0).all()
    except NotReadable:
        return probe
    others = [probe.like(spread=spread) for spread in ("std", "variance") if positive]
    for agrees in (lambda other: noise(other, probe.seams.drive).follows(0.5), fits):
        for other in others if agrees else ():
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
    if factor == 0 and not trains:
        shown, measured = (None, None), "forward decodes mu itself; only a loss tells how training draws z"
    elif agree:
        shown, measured = (False, False), measured + "; the KL has the same" if not right else measured
    elif agree is False or stated or right or scaled:
        shown = not right and not swapped, swapped or (right and agree is False)
    else:
        shown, measured = (None, None), measured + "; only the KL can tell whether that is meant: give loss or spread"
    if shown[0] and factor > 0:
        measured += f"; at sigma = 1 the KL is wrong by {(factor**2 - 1) / 2 - math.log(factor):.3g} nats a latent"
    return {"noise_std": (shown[0], measured), "std_as_variance": (shown[1], measured)}


def squashed(probe, form):
    """A sigmoid on a sigmoid: the range of the decoder's own output, for latents from near and far."""
    if form == "cross entropy of two sigmoids":
        return {"sigmoid_twice": (True, "the loss is the cross entropy of sigmoid(sigmoid(output))")}
    z = torch.randn(64, *probe.latent_shape, dtype=torch.float64).to(next(probe.model.parameters(), probe.x))
    output = torch.cat([probe.decoded(scale * z) for scale in (1, 10, 100, 1000)])
    with other_weights(probe.model):
        output = torch.cat([output, probe.decoded(z)])  # a trained decoder may keep to a part of its range
    if not output.isfinite().all():
        raise NotReadable("the decoder returns NaN or infinity")
    low, high = output.min().item(), output.max().item()
    reads_logits = form in ("cross entropy of logits", "squared error of a sigmoid")
    inside = low >= 0 and high <= 1 and high - low > 0.5 if reads_logits else \
        low >= 0.5 and high <= 0.7311 and high - low > 0.05
    if form is None and not inside:
        raise NotReadable("no loss and no likelihood says whether the output is a logit or a probability")
    read = {None: "", "squared error": "; it is read as a mean"}.get(form, f"; it enters a {form}")
    return {"sigmoid_twice": (inside, f"the decoder's output lies between {low:.3g} and {high:.3g} for latents near "
                              f"and far and for other weights{read}")}


def affine(probe):
    """Whether the decoder is affine in z: in eval mode, at four points."""
    a, b = torch.randn(2, 1, *probe.latent_shape).to(next(probe.model.parameters(), probe.x))
    both, first, second, none = probe.decoded(torch.cat([a + b, a, b, torch.zeros_like(a)])).double()
    scale = (first - none).abs().max() + (second - none).abs().max()
    return bool(scale > 1e-6 and (both - first - second + none).abs().max() < 1e-4 * scale)
