"""The short page 00: what draws and widths cost, the ELBO from one draw, and an estimate that is minus infinity."""

import math
from decimal import Decimal

import torch
from scipy.optimize import brentq
from torch.distributions import Bernoulli, Normal, kl_divergence
from torch.nn.functional import softplus

from vae_lib.answers import Exercise

STANDARD = Normal(torch.zeros((), dtype=torch.float64), torch.ones((), dtype=torch.float64))


def _random(*shape, seed):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


draws = Exercise("S.1")


@draws.right
def _():
    nats = brentq(lambda kl: math.expm1(kl) / 1e6 - 0.1**2, 0, 30, xtol=1e-10)
    return [nats, brentq(lambda digits: math.expm1(20) / 10**digits - 0.01**2, 0, 30, xtol=1e-10)]


@draws.mistake("The first is a logarithm to base 10. Nats are of natural logarithms.")
def _():
    return [math.log10(1e4 + 1), 4 + math.log10(math.expm1(20))]


@draws.mistake("The first leaves the factor 100 out: a million draws are 100 times exp(KL) - 1.")
def _():
    return [math.log(1e6 + 1), 4 + math.log10(math.expm1(20))]


@draws.mistake("The second takes ten times the draws for a tenth of the error. An error falls like one over the root "
               "of their number, so it takes a hundred times as many.")
def _():
    return [math.log1p(1e4), 3 + math.log10(math.expm1(20))]


@draws.mistake("The second is for an error of 10 %. Asked is 1 %.")
def _():
    return [math.log1p(1e4), 2 + math.log10(math.expm1(20))]


@draws.mistake("The second is the number itself. Asked is its logarithm to base 10.")
def _():
    return [math.log1p(1e4), 1e4 * math.expm1(20)]


@draws.mistake("The second leaves the factor 10,000 out, one over the square of the error.")
def _():
    return [math.log1p(1e4), math.log10(math.expm1(20))]


@draws.mistake("In the first the factor is one over the error. It is one over its square.")
def _():
    return [math.log1p(1e5), 4 + math.log10(math.expm1(20))]


@draws.mistake("The second is a natural logarithm. Asked is the one to base 10, which counts the digits.")
def _():
    return [math.log1p(1e4), math.log(1e4 * math.expm1(20))]


width = Exercise("S.2", cases=[(torch.tensor([0.3, 1.0]).double(), 2.0), (torch.tensor([0.1, 0.5, 1.2]).double(), 0.1),
                               (torch.tensor([0.7]).double(), 1.5)])


@width.right
def _(std, width):
    wide, narrow = (kl_divergence(Normal(0.3, factor * std), STANDARD).sum() for factor in (width, 1.0))
    return wide - narrow


@width.mistake("The logarithm is there once for all latents. Each latent has its own, so there are as many as numbers "
               "in std.")
def _(std, width):
    return 0.5 * (width**2 - 1) * std.square().sum() - math.log(width)


@width.mistake("The variance grows by the square of width, not by width.")
def _(std, width):
    return 0.5 * (width - 1) * std.square().sum() - len(std) * math.log(width)


@width.mistake("The logarithm has the wrong sign: a narrow q must cost more, and its width has a negative logarithm.")
def _(std, width):
    return 0.5 * (width**2 - 1) * std.square().sum() + len(std) * math.log(width)


@width.mistake("The formula has the logarithm of the variance, which changes by twice the logarithm of width. With the "
               "half in front, a whole one is left for each latent.")
def _(std, width):
    return 0.5 * (width**2 - 1) * std.square().sum() - 0.5 * len(std) * math.log(width)


@width.mistake("This leaves the old part with sigma squared in: subtract it.")
def _(std, width):
    return 0.5 * width**2 * std.square().sum() - len(std) * math.log(width)


@width.mistake("The logarithm counts twice: the half in front takes the 2 of log width^2 away.")
def _(std, width):
    return 0.5 * (width**2 - 1) * std.square().sum() - 2 * len(std) * math.log(width)


each = Exercise("S.3", gradient=(1, 2), cases=[
    ((_random(n, pixels, seed=n) > 0).double(), _random(n, latents, seed=10 + n), _random(n, latents, seed=20 + n),
     _random(n, latents, seed=30 + n), _random(latents, pixels, seed=40 + n))
    for n, latents, pixels in ((3, 2, 5), (1, 4, 6))])


def _elbo(x, mu, log_var, z, weight):
    kl = 0.5 * (mu**2 + log_var.exp() - log_var - 1).sum(1)
    return (x * (z @ weight) - softplus(z @ weight)).sum(1) - kl


@each.right
def _(x, mu, log_var, eps, weight):
    q = Normal(mu, log_var.exp().sqrt())
    return Bernoulli(logits=(q.mean + q.stddev * eps) @ weight).log_prob(x).sum(1) - kl_divergence(q, STANDARD).sum(1)


@each.mistake("The noise is multiplied by the variance. It takes the standard deviation, exp(log_var / 2).")
def _(x, mu, log_var, eps, weight):
    return _elbo(x, mu, log_var, mu + log_var.exp() * eps, weight)


@each.mistake("The noise is not used: this decodes the mean of q, and the number is no bound.")
def _(x, mu, log_var, eps, weight):
    return _elbo(x, mu, log_var, mu, weight)


@each.mistake("The value is right, but z was cut off from the encoder, by `detach` or `no_grad`: the gradient of the "
              "first term is missing, and the encoder would learn from the KL alone.")
def _(x, mu, log_var, eps, weight):
    return _elbo(x, mu, log_var, (mu + (0.5 * log_var).exp() * eps).detach(), weight)


@each.mistake("The value is right, but the draw is cut off from log_var: sigma would learn from the KL alone.")
def _(x, mu, log_var, eps, weight):
    return _elbo(x, mu, log_var, mu + ((0.5 * log_var).exp() * eps).detach(), weight)


@each.mistake("The value is right, but the draw is cut off from mu: the mean would learn from the KL alone.")
def _(x, mu, log_var, eps, weight):
    return _elbo(x, mu, log_var, mu.detach() + (0.5 * log_var).exp() * eps, weight)


@each.mistake("The value is right, but no gradient comes back at all: something on the way left the graph, such as "
              "`no_grad`, `item` or numpy.")
def _(x, mu, log_var, eps, weight):
    return each.solution(x, mu, log_var, eps, weight).detach()


@each.mistake("The logarithm of sigma is read from log_var, in the draw and in the KL. It is that of sigma squared.")
def _(x, mu, log_var, eps, weight):
    return _elbo(x, mu, 2 * log_var, mu + log_var.exp() * eps, weight)


@each.mistake("The KL is averaged over the latents. It is a sum: each latent has its own price.")
def _(x, mu, log_var, eps, weight):
    kl = kl_divergence(Normal(mu, (0.5 * log_var).exp()), STANDARD)
    return each.solution(x, mu, log_var, eps, weight) + kl.sum(1) - kl.mean(1)


@each.mistake("The cross entropy is added as it is. It is minus the log probability of the pixels.")
def _(x, mu, log_var, eps, weight):
    kl = kl_divergence(Normal(mu, (0.5 * log_var).exp()), STANDARD).sum(1)
    return -each.solution(x, mu, log_var, eps, weight) - 2 * kl


@each.mistake("The pixels are averaged beside a summed KL: then the KL weighs as many times too much as there are "
              "pixels.")
def _(x, mu, log_var, eps, weight):
    logits = (mu + (0.5 * log_var).exp() * eps) @ weight
    return (x * logits - softplus(logits)).mean(1) - kl_divergence(Normal(mu, (0.5 * log_var).exp()), STANDARD).sum(1)


@each.mistake("The KL is added. The ELBO is the reconstruction term less the KL; only in a loss do both have the "
              "other sign.")
def _(x, mu, log_var, eps, weight):
    z = mu + (0.5 * log_var).exp() * eps
    return _elbo(x, mu, log_var, z, weight) + 2 * kl_divergence(Normal(mu, (0.5 * log_var).exp()), STANDARD).sum(1)


narrower = Exercise("S.4")


@narrower.right
def _():
    std = torch.full((20,), 0.3).double()
    kls = [kl_divergence(Normal(0.0, factor * std), STANDARD).sum() for factor in (0.01, 0.001)]
    return {0: "a", 2: "b", 46: "c"}[round((kls[1] - kls[0]).item())]


narrower.letters(
    a="The reconstruction term does stay. But the KL has a term with the logarithm of sigma, which has no floor.",
    b="This is the price of one latent, log 10. There are twenty.",
    d="Without noise the encoder would have to name one z exactly, and the price for that is not zero but infinite.")

infinite = Exercise("S.5", cases=[
    (torch.tensor([[-110.0, -116.0], [-112.0, -90.0], [-109.5, -130.0]]).double(),),
    (torch.tensor([[-1000.0], [-1001.0]]).double(),), (torch.tensor([[800.0, 2.0, -3.0]]).double(),),
    (torch.tensor([[-1000.0, 800.0, 3.0], [800.0, -1000.0, 3.5]]).double(),)])


@infinite.right
def _(log_w):
    means = [sum(Decimal(value).exp() for value in column) / len(column) for column in log_w.T.tolist()]
    return torch.tensor([float(mean.ln()) for mean in means])


@infinite.mistake("This is the average of the logarithms, so it estimates the ELBO. The average belongs inside.")
def _(log_w):
    return log_w.mean(0)


@infinite.mistake("The number of draws is missing: of a sum the logarithm is too large by log K.")
def _(log_w):
    return log_w.logsumexp(0)


@infinite.mistake("This is `broken`: in float64 it gives numbers near -100, but exp(-1000) is zero and exp(800) is "
                  "infinite there too.")
def _(log_w):
    return log_w.exp().mean(0).log()


@infinite.mistake("The shift is not the largest logarithm of the image but their mean: one of 800 beside one of -1000 "
                  "is still too large for an exponential.")
def _(log_w):
    mean = log_w.mean(0)
    return mean + (log_w - mean).exp().mean(0).log()


@infinite.mistake("The shift is the first logarithm of the image. Where that is the smallest, the others overflow; "
                  "take the largest.")
def _(log_w):
    return log_w[0] + (log_w - log_w[0]).exp().mean(0).log()


@infinite.mistake("This averages over the images. Draws are in the rows, dimension 0.")
def _(log_w):
    return log_w.logsumexp(1) - math.log(log_w.shape[1])


@infinite.mistake("The images are averaged as well. Each has a log p(x) of its own.")
def _(log_w):
    return log_w.flatten().logsumexp(0) - math.log(log_w.numel())
