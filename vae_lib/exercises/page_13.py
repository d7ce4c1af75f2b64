"""The exercises of page 13: what a mistake costs, and where it hides."""

import math

import torch
from scipy.optimize import minimize_scalar
from torch.distributions import Bernoulli, Normal, kl_divergence
from torch.nn.functional import binary_cross_entropy_with_logits

from vae_lib.answers import Exercise

SIGMA = torch.tensor([0.2, 0.7, 1.0, 1.6]).double()
shortfall = Exercise("13.1", cases=[(SIGMA, 0.01), (SIGMA[1:], 0.5), (SIGMA[:2], 3.0)])


@shortfall.right
def _(sigma, factor):
    prior = Normal(torch.zeros_like(sigma), 1.0)
    drawn, paid = (kl_divergence(Normal(0.0, std), prior) for std in (factor * sigma, sigma))
    return drawn - paid


@shortfall.mistake("This counts the logarithms only. The KL also has sigma squared, which the factor multiplies by "
                   "its square.")
def _(sigma, factor):
    return torch.full_like(sigma, -math.log(factor))


@shortfall.mistake("The sign is turned. At sigma = 1 the KL in the loss is 0 and that of the draws is not, so what is "
                   "left out is positive there.")
def _(sigma, factor):
    return -shortfall.solution(sigma, factor)


@shortfall.mistake("Sigma squared is multiplied by the factor, not by its square: the factor is one of standard "
                   "deviations.")
def _(sigma, factor):
    return -math.log(factor) - 0.5 * sigma**2 * (1 - factor)


@shortfall.mistake("The term with sigma squared has the wrong sign. A factor below 1 makes the draws narrower, which "
                   "lowers this term of their KL.")
def _(sigma, factor):
    return -math.log(factor) + 0.5 * sigma**2 * (1 - factor**2)


@shortfall.mistake("This is the KL between the two q. Asked is the difference of their KLs to the prior.")
def _(sigma, factor):
    return kl_divergence(Normal(0.0, factor * sigma), Normal(0.0, sigma))


last = Exercise("13.2")


@last.right
def _():
    full, last_size = divmod(1000, 128)
    return [100 * 128 / last_size, (full * 100 + 150) / (full + 1), 100 + 50 * last_size / 1000]


@last.mistake("The last two are exchanged: the mean of the batch means gives the last batch more than its share, and "
              "its images are the dear ones.")
def _():
    share, reported, right = last.solution()
    return [share, right, reported]


@last.mistake("The first number is turned round. An image of the last batch is one of fewer, and counts for more than "
              "the others do.")
def _():
    share, reported, right = last.solution()
    return [1e4 / share, reported, right]


@last.mistake("This compares with the share that it should have, 0.104 for the batch. Asked is an image of the last "
              "batch beside one of the others.")
def _():
    return [100 * (1 / 8) / 0.104, *last.solution()[1:]]


@last.mistake("A thousand images make 8 batches, 7 full ones and the last. You divided by the number of full ones.")
def _():
    share, reported, right = last.solution()
    return [share, reported * 8 / 7, right]


NOISE = torch.Generator().manual_seed(0)
BITS = torch.rand(6, 20, generator=NOISE, dtype=torch.float64).round()
LOGITS = torch.randn(6, 20, generator=NOISE, dtype=torch.float64)
MU = torch.randn(6, 4, generator=NOISE, dtype=torch.float64)


def gradients(w, c):
    """Of w * BCE + c * KL, averaged over the batch, by the logits and by mu: by autograd."""
    logits, mu = LOGITS.clone().requires_grad_(), MU.clone().requires_grad_()
    bce = binary_cross_entropy_with_logits(logits, BITS, reduction="sum")
    kl = kl_divergence(Normal(mu, 0.7), Normal(0.0, 1.0)).sum()
    return torch.autograd.grad((w * bce + c * kl) / len(BITS), (logits, mu))


WEIGHTS = (1.0, 1.0), (1 / 20, 1.0), (0.3, 1 / 4)
weight = Exercise("13.3", cases=[(*gradients(w, c), BITS, LOGITS, MU) for w, c in WEIGHTS])


def projected(values, onto):
    """The factor by which `onto` comes nearest to the values: least squares."""
    return torch.linalg.lstsq(onto.reshape(-1, 1), values.reshape(-1, 1)).solution.item()


@weight.right
def _(by_logits, by_mu, x, logits, mu):
    """The weights are known here: those of the case that has these gradients."""
    return next(c / w for (w, c), case in zip(WEIGHTS, weight.cases) if torch.equal(case[0], by_logits))


@weight.mistake("This is 1 / beta: the weight of the error by that of the KL.")
def _(by_logits, by_mu, x, logits, mu):
    return 1 / weight.solution(by_logits, by_mu, x, logits, mu)


@weight.mistake("This is the weight of the KL alone. What the model becomes depends on its ratio to the weight of the "
                "error.")
def _(by_logits, by_mu, x, logits, mu):
    return projected(by_mu, mu) * len(mu)


@weight.mistake("This is c/B, the weight of the KL by the size of the batch. Divide by the same for the error.")
def _(by_logits, by_mu, x, logits, mu):
    return projected(by_mu, mu)


@weight.mistake("The derivative of the cross entropy by a logit is p - x, with the chance p, not the logit itself.")
def _(by_logits, by_mu, x, logits, mu):
    return (by_mu / mu).mean() / (by_logits / (logits - x)).mean()


halfless = Exercise("13.4")


@halfless.right
def _():
    def variance(slope, kl_weight):
        """That of the decoder of this slope whose posteriors are as wide as the codes that this loss likes best."""
        def loss(v):
            return slope**2 * v + kl_weight * 0.5 * (v - math.log(v) - 1)
        best = minimize_scalar(loss, bounds=(0.01, 1), method="bounded", options={"xatol": 1e-8}).x
        return slope**2 / (1 / best - 1)  # the posterior has 1 / v = 1 + slope^2 / variance

    steep, flat, with_half = variance(2.0, 2.0), variance(0.5, 2.0), variance(2.0, 1.0)
    if abs(steep - flat) > 1e-4:
        return "b"
    return "d" if abs(steep - with_half) < 1e-4 else "c" if abs(steep - 1) < 1e-4 else "a"


halfless.letters(
    a="A model has minima, whatever the loss is called. Ask which variance of the decoder makes them those of a bound.",
    b="Beta is 2 if the variance 1/2 is meant. But nothing in this loss names a variance: only the ratio of the two "
      "weights counts, and by (6.2) there is a variance that fits it.",
    d="The constants of a loss move no minimum, but here a weight has changed, and with it the minimum.")

EPS = torch.tensor([0.4, -1.3, 0.9, 2.1, -0.2]).double()
weights = Exercise("13.5", cases=[(EPS, torch.tensor(0.3).double(), torch.tensor(-0.8).double(), 1.4),
                                  (EPS[1:4], torch.tensor(-0.5).double(), torch.tensor(0.9).double(), -0.6)])


def estimate(z, q, x):
    """log of the mean weight of draws z from q, for p(z) = N(0, 1) and p(x|z) = N(2z, 0.5)."""
    log_joint = Normal(0.0, 1.0).log_prob(z) + Normal(2 * z, 0.5**0.5).log_prob(torch.tensor(x, dtype=torch.float64))
    return (log_joint - q.log_prob(z)).exp().mean().log()


@weights.right
def _(eps, mu, log_var, x):
    """By log p(x) and the exact posterior, N(4x / 9, 1 / 9): the weights are p(x) p(z|x) / q(z|x)."""
    z = mu + (0.5 * log_var).exp() * eps
    log_ratio = Normal(z.new_tensor(4 * x / 9), 1 / 3).log_prob(z) - (-0.5 * (eps**2 + log_var + math.log(2 * math.pi)))
    return -0.5 * (x**2 / 4.5 + math.log(2 * math.pi * 4.5)) + log_ratio.logsumexp(0) - math.log(len(eps))


@weights.mistake("The draws still have the standard deviation exp(log_var), which is the variance.")
def _(eps, mu, log_var, x):
    return estimate(mu + log_var.exp() * eps, Normal(mu, log_var.exp().sqrt()), x)


@weights.mistake("Draws and density agree now, but on another q: the variance is meant to be exp(log_var). Mend the "
                 "draws, not the density.")
def _(eps, mu, log_var, x):
    return estimate(mu + log_var.exp() * eps, Normal(mu, log_var.exp()), x)


@weights.mistake("The sum of the weights is not divided by the number of draws: with the posterior for q and five "
                 "draws this lies log 5 = 1.609 nats above log p(x).")
def _(eps, mu, log_var, x):
    return weights.solution(eps, mu, log_var, x) + math.log(len(eps))


def log_weights_of(eps, mu, log_var, x):
    """Their logarithms, one by one, for the right draws."""
    return torch.stack([weights.solution(one[None], mu, log_var, x) for one in eps])


@weights.mistake("This is the mean of log w, an estimate of the ELBO. Asked is the logarithm of the mean of w.")
def _(eps, mu, log_var, x):
    return log_weights_of(eps, mu, log_var, x).mean()


@weights.mistake("This is the mean weight itself. Its logarithm is asked for.")
def _(eps, mu, log_var, x):
    return weights.solution(eps, mu, log_var, x).exp()


IMAGES, OUTPUT = BITS[:5, :16].contiguous().view(5, 4, 4), LOGITS[:5, :16].contiguous().view(5, 1, 4, 4)
per_image = Exercise("13.6", cases=[(IMAGES, OUTPUT, MU[:5], 0.3 * MU[1:]), (IMAGES[:2], OUTPUT[:2], MU[:2], -MU[1:3])])


def cross_entropy(x, output):
    return -Bernoulli(logits=output.squeeze(1)).log_prob(x).sum((1, 2))


def pairs(x, output):
    """The cross entropy of each output with each image, by broadcasting (B, 1, H, W) against (B, H, W)."""
    return -Bernoulli(logits=output).log_prob(x).sum((2, 3))


def kl_of_each_latent(mu, log_var):
    return kl_divergence(Normal(mu, (0.5 * log_var).exp()), Normal(0.0, 1.0))


@per_image.right
def _(x, output, mu, log_var):
    return cross_entropy(x, output) + kl_of_each_latent(mu, log_var).sum(1)


@per_image.mistake("This is the function as it stood. Print the shape of `x * output`, and compare the KL with "
                   "`kl_to_standard_normal` at a mu that is not 0.")
def _(x, output, mu, log_var):
    return pairs(x, output).mean(1) + kl_of_each_latent(mu, log_var).mean(1)


@per_image.mistake("The shapes are mended. The KL is still averaged over the latents, beside a sum over pixels.")
def _(x, output, mu, log_var):
    return cross_entropy(x, output) + kl_of_each_latent(mu, log_var).mean(1)


@per_image.mistake("The KL is mended. Images of shape (B, 4, 4) still meet outputs of shape (B, 1, 4, 4): each output "
                   "is compared with all images.")
def _(x, output, mu, log_var):
    return pairs(x, output).mean(1) + kl_of_each_latent(mu, log_var).sum(1)


@per_image.mistake("Both terms are averaged: over pixels and over latents. Their numbers differ, and with them the "
                   "weights.")
def _(x, output, mu, log_var):
    return cross_entropy(x, output) / 16 + kl_of_each_latent(mu, log_var).mean(1)
