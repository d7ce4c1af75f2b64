"""A loss, read as a formula: which error it weighs by how much, and which KL (page 06), from its values alone.

A loss is a black box here, a function of (model, x). A `Probe` gives it the decoder's output c for every pixel and the
posterior N(m, exp(t)) for every latent. Its values over c and over (m, t) are fitted, by least squares, with the terms
that such losses are made of; a term's weight is then a coefficient. A fit counts only if it is exact.
"""

import math
from typing import NamedTuple

import numpy as np
import torch
from torch.nn.functional import softplus

from vae_lib.checkup.answers import NotReadable, number_of
from vae_lib.gaussian import log_normal

# what a term of one pixel is as a function of the decoder's output c: the first is its own, the others depend on x
ERRORS = {
    "cross entropy of logits": (lambda c: softplus(c), lambda c: c),
    "squared error": (lambda c: c**2, lambda c: c),
    "cross entropy of probabilities": (lambda c: -(c * (1 - c)).log() / 2, lambda c: (c / (1 - c)).log()),
    "squared error of a sigmoid": (lambda c: c.sigmoid() ** 2, lambda c: c.sigmoid()),
    "cross entropy of two sigmoids": (lambda c: softplus(c.sigmoid()), lambda c: c.sigmoid()),
}
WIDE = torch.tensor([-3.0, -2.0, -1.0, -0.5, 0.0, 0.5, 1.0, 2.0, 3.0], dtype=torch.float64)
NARROW = torch.tensor([0.05, 0.1, 0.2, 0.35, 0.5, 0.65, 0.8, 0.9, 0.95], dtype=torch.float64)
LOG_VARS = torch.tensor([-4.0, -3.0, -2.0, -1.0, -0.5, 0.0, 0.5, 1.0, 1.5], dtype=torch.float64)


class ErrorTerm(NamedTuple):
    """weight * (summed error of an image, averaged over images) + constant, in units of the loss.

    `form` is a key of ERRORS. `constant` is None where a squared error is not one of x: then it cannot be told apart.
    `at` is an output at which the error is moderate.
    """

    form: str
    weight: float
    constant: float | None
    at: float


class KLTerm(NamedTuple):
    """One latent's term: mu2 * mu^2 + var * e^t + std * e^(t/2) + var2 * e^(2t) + log * t, where t is log_var.

    The loss has its sum over latents, averaged over images. The closed form (4.5) has 1/2, 1/2, 0, 0, -1/2. `drawn` is
    None for such a form; else how the loss makes it from draws of z, a key of DRAWN. An image gets `samples` draws.
    """

    mu2: float
    var: float
    std: float
    var2: float
    log: float
    drawn: str | None
    samples: int

    @property
    def of_variance(self):
        """Whether its only power of sigma is the second."""
        return bool(self.var) and not self.std and not self.var2

    @property
    def right(self):
        """Whether it is a multiple of the closed form (4.5)."""
        size = abs(self.mu2)
        return self.of_variance and abs(self.var - self.mu2) <= 0.01 * size and abs(self.log + self.mu2) <= 0.01 * size

    @property
    def at_prior(self):
        """The cost of a latent at the prior, if its constant is the weight of log sigma^2, as in (4.5)."""
        of_std = self.var2 and abs(self.log + 2 * self.mu2) < 0.01 * abs(self.mu2)
        return self.var + self.std + self.var2 + self.log / (2 if of_std else 1)


def fit(terms, values):
    """Coefficients of the terms (a list of arrays) that give the values; None unless they do so exactly."""
    design, values = np.stack(terms, 1), np.asarray(values)
    scale = np.abs(design).max(0)
    coefficients = np.linalg.lstsq(design / scale, values, rcond=None)[0] / scale
    error = np.abs(design @ coefficients - values).max()
    return coefficients if error <= 1e-4 * np.ptp(values) + 1e-12 else None


def read_error(probe, function, form=None):
    """The ErrorTerm of a loss at the prior, where every right KL is zero. NotReadable for an error that is unknown.

    If its `form` is known, half as many outputs are tried.
    """
    x, pixels = probe.x, probe.x[0].numel()
    of_probabilities = "cross entropy of probabilities"
    tries = (WIDE, [form for form in ERRORS if form != of_probabilities]), (NARROW, [of_probabilities])
    for grid, forms in [(grid[::2], [form]) for grid, forms in tries if form in forms] or tries:
        try:
            values = [probe.value(function, output=c.item()) for c in grid]
        except NotReadable:
            if forms == tries[-1][1] or form:
                raise
            continue
        if np.ptp(values) == 0:
            raise NotReadable("it does not depend on the decoder's output")
        for form in forms:
            own, mixed = (np.asarray(term(grid)) for term in ERRORS[form])
            found = fit([own, mixed, np.ones(len(grid))], values)
            if found is not None:
                weight, mixed_weight, constant = float(found[0]) / pixels, *map(float, found[1:])
                if form == "squared error":
                    total, squares = (x.double().pow(n).flatten(1).sum(1).mean().item() for n in (1, 2))
                    of_x = abs(mixed_weight + 2 * weight * total) < 1e-4 * abs(weight) * pixels
                    constant = constant - weight * squares if of_x else None
                return ErrorTerm(form, weight, constant, grid[len(grid) // 2].item())
    raise NotReadable("its error is neither a cross entropy nor a squared error of the decoder's output")


def grouped(z, means, latent_dims):
    """Draws of one image after another, (images, samples, latents), if all images have equally many."""
    rows = torch.cat([part.flatten(0, part.dim() - latent_dims - 1).flatten(1) for part in z])
    nearest = (rows[:, None, 0] - means).abs().argmin(1)
    parts = [rows[nearest == image] for image in range(len(means))]
    if len({len(part) for part in parts}) != 1 or not len(parts[0]):
        raise NotReadable("images have different numbers of draws")
    return torch.stack(parts)


DRAWN = {"mean": lambda ratio: ratio.mean(1),
         "log-mean-exp": lambda ratio: math.log(ratio.shape[1]) - (-ratio).logsumexp(1),
         "softmax": lambda ratio: ((-ratio).softmax(1) * ratio).sum(1)}


def draws_of_an_image(probe, function, at):
    """How many z an image gets."""
    return sum(z.numel() for z in probe.ask(function, output=at)[1]) // (math.prod(probe.latent_shape) * len(probe.x))


def read_mu2(probe, function, at):
    """The weight of mu^2 of one latent, mean over images, if mu enters so and only so; else NotReadable."""
    at_prior = probe.value(function, output=at)
    costs = [probe.value(function, mu=mu, output=at) - at_prior for mu in (-2.0, -1.0, 1.0, 2.0)]
    found = fit([np.array([4.0, 1.0, 1.0, 4.0])], costs)
    if not any(costs):
        raise NotReadable("it has no KL: it does not change with mu while the output is held")
    if found is None:
        raise NotReadable("its KL term is no multiple of mu^2 in the mean")
    return float(found[0]) / math.prod(probe.latent_shape)


def read_kl(probe, function, at):
    """The KLTerm of a loss, with the decoder's output held at `at`. NotReadable for one that is unknown."""
    at_prior = [probe.value(function, output=at, seed=seed) for seed in (0, 1)]

    def cost(mu, log_var, seed=0):
        return probe.value(function, mu=mu, log_var=log_var, output=at, seed=seed) - at_prior[seed]

    latents = math.prod(probe.latent_shape)
    samples = draws_of_an_image(probe, function, at)
    if abs(cost(1.0, -1.0) - cost(1.0, -1.0, seed=1)) > 1e-5 * abs(cost(1.0, -1.0)):
        return _drawn_kl(probe, function, at, samples)
    mu2 = read_mu2(probe, function, at)
    by_log_var, t = [cost(0.0, value.item()) for value in LOG_VARS], LOG_VARS.numpy()
    found = fit([np.exp(t) - 1, np.exp(t / 2) - 1, np.exp(2 * t) - 1, t], by_log_var)
    of_mu = mu2 * latents
    if found is None or abs(cost(1.0, -1.0) - of_mu - by_log_var[3]) > 1e-4 * abs(of_mu):
        raise NotReadable("its KL term is not made of mu^2, powers of the variance and its logarithm")
    found[np.abs(found) < 1e-3 * abs(of_mu)] = 0
    return KLTerm(mu2, *(float(value) / latents for value in found), None, samples)


def _drawn_kl(probe, function, at, samples):
    """The KLTerm of a loss that estimates it from the draws: the same estimate, made here from the same draws."""
    x, shape = probe.x, probe.latent_shape
    means = torch.linspace(0, 3, len(x), dtype=probe.dtype, device=x.device)
    mu = means.view(-1, *[1] * len(shape)).expand(len(x), *shape)
    ratios = {name: [] for name in DRAWN}
    for log_var in (-9.0, -10.0):  # narrow enough to tell by z whose draw it is
        value, z = probe.ask(function, mu=mu, log_var=log_var, output=at)
        cost = number_of(value) - probe.value(function, output=at)
        z = grouped(z, means, len(shape)).double()
        q = mu.flatten(1).unsqueeze(1).double()
        ratio = log_normal(z, q, torch.full_like(q, log_var)) - log_normal(z, torch.zeros_like(q), torch.zeros_like(q))
        for name, estimate in DRAWN.items():
            ratios[name].append(cost / estimate(ratio).mean().item())
    for name, found in ratios.items():
        if abs(found[0] - found[1]) < 1e-4 * abs(found[0]):
            half = found[0] / 2
            return KLTerm(half, half, 0.0, 0.0, -half, name if samples > 1 else "mean", samples)
    raise NotReadable("its KL term, estimated from draws, is neither log q - log p nor importance-weighted")
