"""The exercises of page 10: what pictures, codes and priors tell."""

import math
from functools import cache
from statistics import NormalDist

import torch
from scipy import integrate, stats
from torch.distributions import Independent, Normal, Poisson, kl_divergence

from vae_lib.answers import Exercise

FIRST = (torch.tensor([[0.3, -1.1], [1.7, 0.4], [-0.6, 0.9]]).double(),
         torch.tensor([[-1.2, -0.3], [-2.1, 0.2], [-0.7, -1.6]]).double())
SECOND = (torch.tensor([[0.2, -0.7, 1.1], [-1.3, 0.6, 0.1], [0.9, 0.4, -0.5], [1.6, -0.2, 0.7]]).double(),
          torch.tensor([[-0.4, -1.5, -2.3], [-1.1, 0.1, -0.6], [-2.0, -0.9, -0.2], [-0.8, -1.3, -1.7]]).double())

scaled = Exercise("10.1", cases=[(*FIRST, 3.0), (*SECOND, 0.4)])


@scaled.right
def _(mu, log_var, factor):
    std, prior = log_var.div(2).exp(), Normal(0.0, 1.0)
    rises = kl_divergence(Normal(factor * mu, factor * std), prior) - kl_divergence(Normal(mu, std), prior)
    return rises.sum(1).mean()


@scaled.mistake("The logarithm of the variance has not changed here. Put mu = 0 and sigma = 1, where the KL was 0, and "
                "a factor below 1: your rise is negative, and no KL is.")
def _(mu, log_var, factor):
    return 0.5 * (factor**2 - 1) * (mu**2 + log_var.exp()).sum(1).mean()


@scaled.mistake("The means are scaled, but the standard deviations are not: each z = mu + sigma eps is multiplied.")
def _(mu, log_var, factor):
    return 0.5 * (factor**2 - 1) * (mu**2).sum(1).mean()


@scaled.mistake("The variance is multiplied by the factor here. What happens to it when sigma is?")
def _(mu, log_var, factor):
    rise = (factor**2 - 1) * mu**2 + (factor - 1) * log_var.exp() - math.log(factor)
    return 0.5 * rise.sum(1).mean()


@scaled.mistake("The logarithm of the factor is there once for all latents. Each latent has its own.")
def _(mu, log_var, factor):
    return 0.5 * (factor**2 - 1) * (mu**2 + log_var.exp()).sum(1).mean() - math.log(factor)


@scaled.mistake("The logarithm of the variance is multiplied by the factor. It is not scaled but shifted, by the "
                "logarithm of the factor's square.")
def _(mu, log_var, factor):
    before, after = mu**2 + log_var.exp() - log_var, (factor * mu) ** 2 + (factor * log_var).exp() - factor * log_var
    return 0.5 * (after - before).sum(1).mean()


gain = Exercise("10.2", rtol=2e-4)
TOY = ((-1.4, 0.4), (0.8, 0.7))
MEAN, SPREAD, INSIDE = -0.3, 1.1**2, (0.4**2 + 0.7**2) / 2


@cache
def kl_of_toy(mean=0.0, variance=1.0, some=TOY):
    """KL of the average of the Gaussians `some` from one Gaussian, by SciPy."""
    densities, other = [NormalDist(*each) for each in some], NormalDist(mean, math.sqrt(variance))

    def term(u):
        q = sum(each.pdf(u) for each in densities) / len(some)
        return q * math.log(q / other.pdf(u))
    return integrate.quad(term, -7, 7, limit=200)[0]


@gain.right
def _():
    all_there_is = kl_of_toy()
    return [all_there_is, all_there_is - kl_of_toy(MEAN, SPREAD + INSIDE)]


@gain.mistake("The first number is the average of the two KLs. The question is about the KL of the average, which is "
              "less: (10.1) says by how much.")
def _():
    return [sum(kl_of_toy(some=(each,)) for each in TOY) / 2, gain.solution()[1]]


@gain.mistake("The second number is what the Gaussian leaves, KL(q || r). By (10.4) the gain is the rest.")
def _():
    both = gain.solution()
    return [both[0], both[0] - both[1]]


@gain.mistake("The variance of your Gaussian is the average of the two variances alone. The two means differ as well, "
              "and that adds to the variance of q(z).")
def _():
    both = gain.solution()
    return [both[0], both[0] - kl_of_toy(MEAN, INSIDE)]


information = Exercise("10.3", cases=[(torch.tensor([[0.5, -0.8], [-1.1, 0.3], [0.7, 1.4]]).double(), *FIRST),
                                      (SECOND[0].flip(0).flip(1), *SECOND)])


def posteriors(mu, log_var):
    return Independent(Normal(mu, log_var.div(2).exp()), 1)


@information.right
def _(eps, mu, log_var):
    terms = []
    for n, noise in enumerate(eps):
        z = mu[n] + log_var[n].div(2).exp() * noise
        densities = posteriors(mu, log_var).log_prob(z).exp()
        terms.append((densities[n] / densities.mean()).log())
    return torch.stack(terms).mean()


def draws(eps, mu, log_var):
    """log q(z_n | x_m), draws in rows, images in columns."""
    z = mu + log_var.div(2).exp() * eps
    return posteriors(mu, log_var).log_prob(z[:, None])


@information.mistake("This takes the average of the log densities for log q(z). The average comes first, then the "
                     "logarithm: your number can exceed log N.")
def _(eps, mu, log_var):
    each = draws(eps, mu, log_var)
    return (each.diagonal() - each.mean(1)).mean()


@information.mistake("The sum over the images is not divided by N: with all posteriors equal this is -log N, and "
                     "should be 0.")
def _(eps, mu, log_var):
    each = draws(eps, mu, log_var)
    return (each.diagonal() - each.logsumexp(1)).mean()


@information.mistake("The noise is multiplied by the variance. A draw needs the standard deviation, exp(log_var / 2).")
def _(eps, mu, log_var):
    return information.solution(eps * log_var.div(2).exp(), mu, log_var)


@information.mistake("The average over images runs over the draws, not over the posteriors: at each z the densities of "
                     "all N posteriors are wanted.")
def _(eps, mu, log_var):
    each = draws(eps, mu, log_var)
    return (each.diagonal() - each.logsumexp(0) + math.log(len(mu))).mean()


more_images = Exercise("10.4")


@more_images.right
def _():
    left, offered = 22.9 - math.log(10_000), {"a": 18.3, "b": 13.7, "c": 22.9}  # the information is at its bound again
    return "d" if left > 18.5 else min(offered, key=lambda letter: abs(offered[letter] - left))


more_images.letters(
    a="The encoder is the same, but the number is not the encoder's: with 100 images the information is "
      "at its bound log 100, and says no more than that.",
    c="The two parts add up to the average KL. For this the information would have to be zero, as if no "
      "draw told anything about its image.",
    d="More images fill more of the space, so q(z) comes nearer to the prior: see (10.3).")


covariance = Exercise("10.5", cases=[FIRST, SECOND])


@covariance.right
def _(mu, log_var):
    second_moments = torch.stack([torch.outer(m, m) + lv.exp().diag() for m, lv in zip(mu, log_var)])
    return second_moments.mean(0) - torch.outer(mu.mean(0), mu.mean(0))


@covariance.mistake("This is the covariance of the means, as it was. Where does the width of each q(z|x) come in?")
def _(mu, log_var):
    return torch.cov(mu.T)


@covariance.mistake("This is the covariance of the means, divided by N. Where does the width of each q(z|x) come in?")
def _(mu, log_var):
    return torch.cov(mu.T, correction=0)


@covariance.mistake("The standard deviations are added. Variances add up.")
def _(mu, log_var):
    return torch.cov(mu.T, correction=0) + log_var.div(2).exp().mean(0).diag()


@covariance.mistake("`torch.cov` divides by N - 1, its answer for a sample. The images given are all that q(z) "
                    "averages over, so divide by N: `correction=0`.")
def _(mu, log_var):
    return torch.cov(mu.T) + log_var.exp().mean(0).diag()


@covariance.mistake("The variance of an image is the exponential of its log_var: take the exponential before the "
                    "average over images.")
def _(mu, log_var):
    return torch.cov(mu.T, correction=0) + log_var.mean(0).exp().diag()


@covariance.mistake("The second moment of the means is not their covariance: the average mean has to be taken off.")
def _(mu, log_var):
    return mu.T @ mu / len(mu) + log_var.exp().mean(0).diag()


cold = Exercise("10.6", rtol=2e-4)


@cold.right
def _():
    """Half of a squared length is distributed as the time of the 20th event of a Poisson process with rate 1."""
    events = Poisson(torch.tensor(0.49 * 40 / 2, dtype=torch.float64))
    log_share = events.log_prob(torch.arange(20, 200).double()).logsumexp(0).item()  # of 20 events or more by then
    return [log_share, 40 * kl_of_toy(some=((0.0, 0.7),))]


@cold.mistake("The share is that of a normal distribution with the mean and variance of (10.6). The chi-square density "
              "is skewed, and its left tail is thinner.")
def _():
    return [stats.norm.logcdf(0.49 * 40, 40, math.sqrt(80)), cold.solution()[1]]


@cold.mistake("The first number is the share itself. Its natural logarithm is asked for.")
def _():
    return [math.exp(cold.solution()[0]), cold.solution()[1]]


@cold.mistake("The squared length is taken as 0.7 times 40. What happens to a square when the vector is scaled by 0.7?")
def _():
    return [stats.chi2.logcdf(0.7 * 40, 40), cold.solution()[1]]


@cold.mistake("The first number is the logarithm of the share above that length. Asked is the share below.")
def _():
    return [stats.chi2.logsf(0.49 * 40, 40), cold.solution()[1]]


@cold.mistake("In the second number the logarithm is that of tau. The formula has the logarithm of the variance, tau "
              "squared.")
def _():
    return [cold.solution()[0], 20 * (0.49 - 1 - math.log(0.7))]


@cold.mistake("The second number is the divergence of one latent. There are 40.")
def _():
    return [cold.solution()[0], cold.solution()[1] / 40]


@cold.mistake("The second number is KL(p || cold), with the sides exchanged.")
def _():
    return [cold.solution()[0], 20 * (1 / 0.49 - 1 + math.log(0.49))]
