"""The exercises of page 12: training on the bound, a flow, residual blocks."""

import math

import torch
from scipy import optimize
from torch.distributions import Categorical, MultivariateNormal, Normal, TransformedDistribution, kl_divergence
from torch.distributions.transforms import AffineTransform

from vae_lib.answers import Exercise

LOG_W = torch.tensor([[-3.1, 0.4], [-1.2, -0.9], [-2.6, 1.7], [-4.0, -2.2], [-0.7, 0.1]]).double()
excess = Exercise("12.1", cases=[(LOG_W,), (3 * LOG_W[:3].flip(1) - torch.tensor([200, 2000]),)])


@excess.right
def _(log_w):
    return kl_divergence(Categorical(logits=log_w.T), Categorical(logits=torch.zeros_like(log_w.T)))


@excess.mistake("This is the entropy of the normalised weights. With equal weights the sum exceeds nothing, and the "
                "entropy is log k.")
def _(log_w):
    return Categorical(logits=log_w.T).entropy()


@excess.mistake("This is minus the entropy of the normalised weights, as if the logarithm of the sum of the weights "
                "were subtracted, not that of their mean. With equal weights it must be 0.")
def _(log_w):
    return -Categorical(logits=log_w.T).entropy()


@excess.mistake("This is how far the plain mean of log w lies below the logarithm of the mean weight. In the question "
                "the draws count with their normalised weights.")
def _(log_w):
    return log_w.logsumexp(0) - math.log(len(log_w)) - log_w.mean(0)


ten_draws = Exercise("12.2")


@ten_draws.right
def _():
    """The best of 26 widths for each objective, on draws that all of them share."""
    posterior = MultivariateNormal(torch.zeros(2).double(), torch.tensor([[1.0, 0.8], [0.8, 1.0]]).double())
    eps = torch.randn(10, 4000, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    widths = torch.linspace(0.5, 1.0, 26).double()
    log_w = torch.stack([posterior.log_prob(std * eps) - Normal(0.0, std).log_prob(std * eps).sum(-1)
                         for std in widths])
    one, ten, bound = (widths[objective.mean(-1).argmax()] for objective in (
        log_w[:, 0], log_w.mean(1), log_w.logsumexp(1)))
    if ten > one + 0.05:
        return "c"
    return "b" if bound > ten + 0.05 else "d" if bound < ten - 0.05 else "a"


ten_draws.letters(
    a="Where q can equal the posterior, every bound is highest there, and this is right. A diagonal q "
      "cannot be a correlated posterior. Then each objective has its own best compromise.",
    c="An average over ten draws has the same mean as one draw. What changes is the noise, not what is "
      "maximised.",
    d="A tighter bound is nearer to log p(x). That does not say that its q is nearer to the posterior: "
      "with ten draws a poor one costs little, and a missed region much.")


after_sleep = Exercise("12.3", rtol=2e-4)


def correlations(count, rho):
    return (1 - rho) * torch.eye(count).double() + rho


def variance_of(count, rho):
    """Of p / q, for the posterior with these correlations and q = N(0, I), by a sum over a grid of all latents."""
    u = torch.cartesian_prod(*count * [torch.linspace(-14, 14, 57).double()])
    log_p = MultivariateNormal(torch.zeros(count).double(), correlations(count, rho)).log_prob(u)
    return (2 * log_p - Normal(0.0, 1.0).log_prob(u).sum(-1)).exp().sum().item() / 2**count - 1


@after_sleep.right
def _():
    """The last number is the rho at which 2 Lambda - S, multiplied by the covariance, is singular."""
    from_here = optimize.brentq(lambda rho: torch.det(2 * torch.eye(5) - correlations(5, rho)).item(), 0.01, 0.99)
    return [variance_of(2, 0.6), variance_of(3, 0.4), from_here]


@after_sleep.mistake("These are the mean squares of the ratio. The variance is less by the square of its mean, "
                     "which is 1.")
def _():
    first, second, third = after_sleep.solution()
    return [first + 1, second + 1, third]


@after_sleep.mistake("The largest eigenvalue of the five latents' correlations is not 1 + 5 rho. Multiply the matrix "
                     "by a vector of ones.")
def _():
    return [*after_sleep.solution()[:2], 0.2]


@after_sleep.mistake("The last number is that for three latents. With five the largest eigenvalue of the correlations "
                     "is 1 + 4 rho.")
def _():
    return [*after_sleep.solution()[:2], 0.5]


@after_sleep.mistake("The square root in (11.5) holds for both determinants, that of S and that of 2 Lambda - S. "
                     "With two latents the second one is 1, so the first number does not show it. The second does.")
def _():
    squared = [math.prod(1 / value for value in values) / math.prod(2 / value - 1 for value in values) - 1
               for values in ((1.6, 0.4), (1.8, 0.6, 0.6))]
    return [*squared, after_sleep.solution()[2]]


Z = torch.tensor([[0.3, -1.1, 0.8], [1.7, 0.4, -0.5], [-0.6, 0.9, 2.1]]).double()
LOG_SCALE, SHIFT = torch.tensor([[0.4, -0.7, 1.2], [0.5, 1.3, -0.8]]).double()
only_scales = Exercise("12.4", cases=[(Z[:2], LOG_SCALE, SHIFT), (Z[:, :2].contiguous(), -SHIFT[:2], LOG_SCALE[1:])])


@only_scales.right
def _(z, log_scale, shift):
    scale = log_scale.exp()
    base = Normal(torch.zeros_like(scale), 1.0)
    return TransformedDistribution(base, AffineTransform(-shift / scale, 1 / scale)).log_prob(z).sum(-1)


def log_density_of_u(z, log_scale, shift):
    return Normal(0.0, 1.0).log_prob(z * log_scale.exp() + shift).sum(-1)


@only_scales.mistake("The determinant is missing: this function does not integrate to one. Try one latent and a sum "
                     "over a grid.")
def _(z, log_scale, shift):
    return log_density_of_u(z, log_scale, shift)


@only_scales.mistake("The log determinant has the wrong sign. Where the map stretches, the density of z is higher than "
                     "that of u.")
def _(z, log_scale, shift):
    return log_density_of_u(z, log_scale, shift) - log_scale.sum()


@only_scales.mistake("This is the density of what comes out if draws of N(0, I) are scaled and shifted. Here z is "
                     "scaled and shifted, and u has the density N(0, I).")
def _(z, log_scale, shift):
    return Normal(shift, log_scale.exp()).log_prob(z).sum(-1)


@only_scales.mistake("The scales are added. The logarithm of the determinant is the sum of their logarithms.")
def _(z, log_scale, shift):
    return log_density_of_u(z, log_scale, shift) + log_scale.exp().sum()


EPS = torch.tensor([0.4, -1.3, 0.9, 2.1, -0.2]).double()
score = Exercise("12.5", cases=[(EPS, torch.tensor(0.3).double(), torch.tensor(-0.8).double(), 1.4),
                                (EPS[1:4], torch.tensor(-0.5).double(), torch.tensor(0.2).double(), -0.6)])


def parts(eps, mu, log_var, x):
    """Draws, normalised weights, and the path's derivatives, for p(z) = N(0, 1) and p(x|z) = N(2z, 0.5)."""
    std = (0.5 * log_var).exp()
    z = mu + std * eps
    log_w = Normal(0.0, 1.0).log_prob(z) + Normal(2 * z, 0.5**0.5).log_prob(torch.tensor(x, dtype=torch.float64)) + (
        0.5 * eps**2 + 0.5 * log_var)
    slope = -z + 4 * (x - 2 * z) + (z - mu) / std**2
    return z, log_w.softmax(0), slope, torch.stack([torch.ones_like(eps), 0.5 * std * eps])


def score_of(eps, log_var):
    return torch.stack([eps / (0.5 * log_var).exp(), 0.5 * (eps**2 - 1)])


@score.right
def _(eps, mu, log_var, x):
    _, shares, slope, paths = parts(eps, mu, log_var, x)
    return paths @ (shares**2 * slope)


@score.mistake("The score is still in it: mu and log_var enter the weights through q's density as well. At the "
               "posterior your gradients are not zero.")
def _(eps, mu, log_var, x):
    return score.solution(eps, mu, log_var, x) - score_of(eps, log_var) @ parts(eps, mu, log_var, x)[1]


@score.mistake("This is the plain gradient (12.1): unbiased, and as noisy as before.")
def _(eps, mu, log_var, x):
    _, shares, slope, paths = parts(eps, mu, log_var, x)
    return paths @ (shares * slope) - score_of(eps, log_var) @ shares


@score.mistake("The score is gone, but each draw has one factor of its weight, not two. The second one stood for what "
               "the score contributes.")
def _(eps, mu, log_var, x):
    _, shares, slope, paths = parts(eps, mu, log_var, x)
    return paths @ (shares * slope)


zeros = Exercise("12.6")


@zeros.right
def _():
    """By central differences, for numbers in place of images and filters, before and after a step of B's bias."""
    def moves(bias):
        def loss(parts):
            a, a_bias, b, b_bias = parts
            return ((x + b * (a * x.relu() + a_bias).relu() + b_bias - wanted) ** 2).mean()

        start, h = torch.tensor([0.0, 0.0, 0.0, bias]).double(), 1e-4 * torch.eye(4).double()
        return [abs(loss(start + step) - loss(start - step)).item() > 1e-12 for step in h]

    x, wanted = torch.tensor([[0.7, -0.4, 1.3], [1.1, 0.2, -0.9]]).double()
    first, second = moves(0.0), moves(0.1)
    if not any(first):
        return "c"
    return "b" if first == second == [False, False, False, True] else "d" if first[0] and not first[2] else "a"


zeros.letters(
    a="This is so if the second convolution alone starts at zero. What is the input of the second one if the "
      "first one is zero as well?",
    c="Most gradients are zero. One of the four parameters is added to the output without being multiplied by "
      "anything that is zero.",
    d="The gradient of the first convolution passes through the weights of the second one, which are zero.")
