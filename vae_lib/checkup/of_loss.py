"""What a loss shows once it is read as a formula: its reductions, the form of its KL, its constant, its pairing.

Examinations return what those of `of_model` do.
"""

import math
from itertools import pairwise
from typing import NamedTuple

import torch

from vae_lib.checkup.answers import NotReadable
from vae_lib.checkup.by_image import by_image
from vae_lib.checkup.keeping import other_weights
from vae_lib.checkup.of_model import near
from vae_lib.checkup.of_noise import LOG_VARS
from vae_lib.checkup.readings import ErrorTerm, KLTerm, read_error, read_kl, read_mu2
from vae_lib.loss_translator import Translation


class Reading(NamedTuple):
    """A loss as a formula: its error, its KL (None, and why, where it is none), and how KL weight / error weight moves.

    `ratio` is that of the weights: beta for a cross entropy, 2 s2 beta for a squared error (page 06). `moves` says by
    which factor it changes when batch, latents or pixels are doubled; None where that cannot be tried.
    """

    error: ErrorTerm
    kl: KLTerm | None
    why: str
    ratio: float | None
    moves: dict

    @property
    def bernoulli(self):
        """Whether the error is a cross entropy."""
        return self.error.form.startswith("cross entropy")


def ratio_of(probe, function, form, drawn):
    """The weight of the KL divided by that of the error; None where a loss does not take images of that size."""
    try:
        error = read_error(probe, function, form)
        mu2 = read_kl(probe, function, error.at).mu2 if drawn else read_mu2(probe, function, error.at)
        return 2 * mu2 / error.weight
    except NotReadable:
        return None


def read(probe, function):
    """The Reading of a loss. NotReadable if not even its error is known."""
    error = read_error(probe, function)
    try:
        if depends_on_weights(probe, function, error.at):
            raise NotReadable("the prior has weights of its own, so the KL is not one to N(0, I)")
        kl = read_kl(probe, function, error.at)
    except NotReadable as reason:
        return Reading(error, None, str(reason), None, {})
    ratio, x = 2 * kl.mu2 / error.weight, probe.x
    along = -2 if x.dim() > 2 else 1
    sizes = {"batch": probe.like(x=x[:len(x) // 2]),
             "latents": probe.like(latent_shape=(2 * probe.latent_shape[0], *probe.latent_shape[1:])),
             "pixels": probe.like(x=torch.cat([x, x], along), output_shape=doubled(probe.output_shape, along))}
    found = {name: ratio_of(changed, function, error.form, kl.drawn) for name, changed in sizes.items()}
    moves = {name: value and (ratio / value if name == "batch" else value / ratio) for name, value in found.items()}
    return Reading(error, kl, "", ratio, moves)


def doubled(shape, along):
    """The shape of an output whose image is twice as high."""
    place = along if len(shape) > 1 else 0
    shape = list(shape)
    shape[place] *= 2
    return tuple(shape)


def depends_on_weights(probe, function, at):
    """Whether the KL changes with the model's weights, though the encoder's answer is given: a learned prior."""
    points = ((1.0, 0.0), (-1.0, 0.0), (0.0, 1.0), (1.0, -1.0))

    def costs():
        return [probe.value(function, mu=mu, log_var=log_var, output=at) - probe.value(function, output=at)
                for mu, log_var in points]

    before = costs()
    with other_weights(probe.model, 0.1):
        after = costs()
    return any(abs(one - other) > 1e-4 * max(map(abs, before)) for one, other in zip(before, after))


def agree(probe, function, reading, noise):
    """Whether the KL charges for the noise that is drawn, whatever the encoder's second answer means; None: unknown.

    For standard deviations s at two log-variances, a KL to any Gaussian changes by mu2 * (change of s^2) - beta / 2 *
    (change of log s^2), where mu2 is the weight of mu^2. Two such changes must give the same beta.
    """
    if reading is None:
        return None
    at, kl, latents = reading.error.at, reading.kl, math.prod(probe.latent_shape)
    if kl and (kl.drawn or (kl.var2 and not kl.var)):
        return noise.follows(0.5 if kl.drawn else 1.0)
    unlike = False if kl else None
    if noise.follows(0.5):
        return None
    if min(noise.stds) < 1e-6 or near(noise.stds[1], noise.stds[0]):
        return unlike

    def cost(**q):
        return probe.value(function, output=at, **q) / latents

    mu2 = (cost(mu=1.0) + cost(mu=-1.0)) / 2 - cost()
    points = [(std**2, cost(log_var=log_var)) for std, log_var in zip(noise.stds, LOG_VARS)]
    betas = [2 * (mu2 * (there[0] - here[0]) - there[1] + here[1]) / math.log(there[0] / here[0])
             for here, there in pairwise(points)]
    return near(*betas, 0.12) or unlike


def variance_of(probe, reading):
    """The decoder variance that a squared error is known to have, and whether its constant is there: (s2, complete).

    It is known from the constant, or from the `variance` of the model's likelihood; else None. `complete` is None for
    a constant that is neither there nor zero.
    """
    pixels, latents, error, kl = probe.x[0].numel(), math.prod(probe.latent_shape), reading.error, reading.kl
    named = getattr(getattr(probe.model, "likelihood", None), "variance", None)
    named = float(named) if isinstance(named, (int, float)) else None
    if reading.bernoulli or error.constant is None:
        return named, None
    constant = error.constant - (latents * kl.at_prior if kl else 0)
    for s2 in (named, 1 / (2 * error.weight), reading.ratio and reading.ratio / 2):
        if s2 and s2 > 0 and near(constant, s2 * error.weight * pixels * math.log(2 * math.pi * s2)):
            return s2, True
    return named, False if abs(constant) < 1e-3 * pixels * error.weight else None


def absolute_beta(reading, s2):
    """The KL's weight against the likelihood's own; None for a squared error whose variance is not known."""
    return None if reading.kl is None else reading.ratio if reading.bernoulli else s2 and reading.ratio / (2 * s2)


def nat_of(reading, s2):
    """A nat in units of the loss; None for a squared error whose variance is not known."""
    return reading.error.weight * (1 if reading.bernoulli else 2 * s2) if reading.bernoulli or s2 else None


def kl_of(function, probe):
    """The KLTerm of a loss, for what the probe takes the encoder's second answer to be."""
    return read_kl(probe, function, read_error(probe, function).at)


def translation(probe, reading, s2, complete, beta_meant):
    """The Translation of a loss, as page 06 makes it from the author's words, here from the loss's values."""
    if reading.kl is None or (reading.ratio < 0 and not reading.bernoulli):
        return None
    if reading.bernoulli:
        return Translation(None, None, reading.ratio, 1 / reading.error.weight, 0.0)
    variance = s2 or reading.ratio / 2 / (beta_meant or 1.0)
    width = 2.0 if probe.x.min() < 0 else 1.0
    per_unit = 1 / (2 * reading.error.weight * variance)
    constant = 0.0 if complete is not False else probe.x[0].numel() / 2 * math.log(2 * math.pi * variance)
    return Translation(variance, variance / width**2, reading.ratio / (2 * variance), per_unit, constant)


def weights(probe, reading, s2, beta_meant):
    """The exhibits of reductions and of the KL's form, from a Reading."""
    if reading.kl is None:
        raise NotReadable(reading.why)
    kl, moves, latents, pixels = reading.kl, reading.moves, math.prod(probe.latent_shape), probe.x[0].numel()
    beta, by_batch = absolute_beta(reading, s2), moves["batch"]
    summed = by_batch is not None and not near(by_batch, 1)
    of_batch = len(probe.x) if near(by_batch, 0.5) else 1 / len(probe.x) if near(by_batch, 2) else 1
    known = f"beta = {beta:.4g}" if beta is not None else f"2 s2 beta = {reading.ratio:.4g}"
    times = f"{by_batch:.3g} times as much as with {len(probe.x) // 2}" if by_batch else "other numbers cannot be tried"
    found = {"loss_summed_over_batch": (summed if by_batch else None, f"{known} with {len(probe.x)} images, {times}")}

    def averaged(value, by_pixels, by_latents, times=1):
        """Whether the ratio is `value`, up to the 2 s2 of a squared error, and moves with the sizes as it then does."""
        factors = (1,) if reading.bernoulli else (2 * s2,) if s2 else (1, 2)
        seen = [(moves["pixels"], by_pixels), (moves["latents"], by_latents)]
        right = all(near(moved, wanted) or (moved is None and times == 1) for moved, wanted in seen)
        return (not near(value, 1) and right and not (beta_meant and near(beta, beta_meant))
                and any(near(reading.ratio * of_batch, times * factor * value) for factor in factors))

    doubled = False
    for exhibit, value, by_pixels, by_latents in (
            ("kl_mean_over_latents", 1 / latents, 1, 0.5), ("mean_mse_summed_kl", pixels, 2, 1),
            ("both_terms_averaged", pixels / latents, 2, 0.5)):
        once, twice = (averaged(value, by_pixels, by_latents, times) for times in (1, 2))
        said = f"{known}; this mistake makes it {value:.4g}" + ", and twice the KL" * twice
        if once and exhibit == "kl_mean_over_latents" and moves["latents"] is None:
            found[exhibit] = None, f"{said}, and so may a weight that is meant: other sizes cannot be tried"
            continue
        found[exhibit] = once or twice, said
        doubled |= twice and not once
    lowest, nat = -kl.log / kl.var if kl.var else math.nan, nat_of(reading, s2)
    bottomless = kl.mu2 / reading.error.weight < 0 or (kl.var and (kl.var / reading.error.weight < 0 or lowest <= 0))
    formula = " ".join(f"{weight / (nat or 1):+.3g} {term}" for weight, term in zip(
        kl[:5], ("mu^2", "exp(log_var)", "exp(log_var/2)", "exp(2 log_var)", "log_var")) if weight)
    evidence = f"a latent costs {formula} and a constant" + ", in units of the loss" * (nat is None)
    as_log_std = near(kl.var2, kl.mu2) and near(-kl.log, 2 * kl.mu2) and not kl.var and not kl.std
    found["kl_half_at_prior"] = (not kl.std and not kl.var2 and (bottomless or not near(lowest, 1)), evidence + (
        ", without any lowest value" if bottomless else f", lowest at a variance of {lowest:.3g}"))
    found["kl_sigma_for_variance"] = bool(kl.std) or bool(kl.var2 and not as_log_std), evidence
    others = any(shown for exhibit, (shown, _) in found.items() if exhibit != "loss_summed_over_batch")
    twice = beta is not None and near(beta * of_batch, 2) and not near(beta_meant, 2) and not others
    doubled = doubled and kl.right and (reading.bernoulli or s2)
    found["kl_without_half"] = (
        None if beta is None and kl.right and not others else
        bool(twice or doubled or (not others and not kl.right and not as_log_std)),
        f"{evidence}; {known}" + (": a missing 1/2 would only double the variance s2" if beta is None else ""))
    return found


def shapes(probe, function):
    """Images that are compared with the outputs of others: whether it matters whose output is whose."""
    low, high = probe.x.min(), probe.x.max()
    own = (0.1 + 0.8 * (probe.x - low) / (high - low)).flatten(1)

    def value(outputs):
        return probe.value(function, **by_image(probe, lambda image, sample: outputs[image.to(outputs.device)]))

    matched, swapped, grey = value(own), value(own.roll(1, 0)), value(torch.full_like(own, 0.5))
    scale = max(abs(matched - grey), abs(swapped - grey))
    blind = abs(matched - swapped) <= 1e-5 * scale
    said = f"the same, {matched:.6g}" if blind else f"{swapped:.6g} instead of {matched:.6g}"
    return {"shapes_broadcast": (blind and scale > 0,
                                 f"with each image's output given to its neighbour, the loss is {said}")}


def constants(probe, reading):
    """The constant of a Gaussian beside a cross entropy."""
    exhibit, pixels = "gaussian_constant_on_bernoulli", probe.x[0].numel()
    if not reading.bernoulli:
        return {exhibit: (False, f"the loss has a {reading.error.form}, no cross entropy")}
    offset = math.prod(probe.latent_shape) * reading.kl.at_prior if reading.kl else 0.0
    nats, wanted = (reading.error.constant - offset) / reading.error.weight, pixels / 2 * math.log(2 * math.pi)
    held = "no other constant" if abs(nats) < 1e-4 * pixels else f"{nats:.2f} nats an image"
    return {exhibit: (near(abs(nats), wanted, 0.001), f"beside the {reading.error.form} and the KL the loss holds "
                      f"{held}; {pixels} / 2 log(2 pi) = {wanted:.2f}")}
