"""Page 01: what the integral over the latents costs."""

import math

import torch
from scipy.optimize import brentq
from torch.distributions import MultivariateNormal, Normal

from vae_lib.answers import Exercise
from vae_lib.exact import LinearGaussian

LINE = torch.linspace(-20, 20, 1601, dtype=torch.float64)
STANDARD = Normal(torch.zeros((), dtype=torch.float64), torch.ones((), dtype=torch.float64))


def _tensor(*numbers):
    return torch.tensor(numbers, dtype=torch.float64).squeeze()


def _normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def _log_R(rho, u=1.0):
    """log R of one latent: the mean of p(z|x) / p(z) under the posterior, by the trapezoidal rule."""
    posterior = Normal(_tensor(u * math.sqrt(rho / (1 + rho))), _tensor(1 / math.sqrt(1 + rho)))
    return torch.trapezoid((2 * posterior.log_prob(LINE) - STANDARD.log_prob(LINE)).exp(), LINE).log().item()


def _ratio(log_R, u=1.0):
    return brentq(lambda rho: 32 * _log_R(rho, u) - log_R, 0.01, 4, xtol=1e-10)


little_signal = Exercise("1.1")


@little_signal.right
def _():
    return _ratio(math.log(10_001))


@little_signal.mistake("With this ratio R is a million. The draws for 10 % are a hundred times R - 1.")
def _():
    return _ratio(math.log(1e6))


@little_signal.mistake("This is the ratio for draws with an error of 1 %. One of 10 % is asked for.")
def _():
    return _ratio(math.log(101))


@little_signal.mistake("With this ratio the logarithm to base 10 would be right. The one in (1.8) is the natural one.")
def _():
    return _ratio(math.log10(10_001))


@little_signal.mistake("This x lies at its mean, u = 0. The last term of (1.8) counts as well.")
def _():
    return _ratio(math.log(10_001), u=0.0)


mean_R = Exercise("1.2", cases=[(0.4 * _normal(5, 3), 0.7), (0.5 * _normal(3, 2, seed=1), 1.3)])


def _by_axis(weight, variance, factor):
    return math.prod(factor(rho.item()) for rho in torch.linalg.svdvals(weight) ** 2 / variance)


@mean_R.right
def _(weight, variance):
    def factor(rho):  # the mean of R over x is that of p(x, z) / (p(x) p(z)) over both: quadrature of one pair
        x, z = torch.meshgrid(2 * [LINE[::10]], indexing="ij")
        scale = _tensor(1 / (1 + rho)).sqrt()
        joint = STANDARD.log_prob(z) + Normal(math.sqrt(rho) * scale * z, scale).log_prob(x)
        return ((2 * joint - STANDARD.log_prob(x) - STANDARD.log_prob(z)).exp().sum() / 16).item()
    return _by_axis(weight, variance, factor)


@mean_R.mistake("The noise is missing: with twice the noise in all pixels, R must be smaller.")
def _(weight, variance):
    return _by_axis(weight, 1.0, lambda rho: 1 + rho)


@mean_R.mistake("This is R at the x whose u are all 1. The mean of exp(a u^2) exceeds exp(a), though that of u^2 is 1.")
def _(weight, variance):
    return _by_axis(weight, variance, lambda rho: math.exp(_log_R(rho)))


@mean_R.mistake("This is the square root of the answer. In (1.8) the one half stands before log(1 + 2 rho) only.")
def _(weight, variance):
    return _by_axis(weight, variance, lambda rho: math.sqrt(1 + rho))


@mean_R.mistake("The factor from the average over u is missing: this is R at the mean x, its smallest value.")
def _(weight, variance):
    return _by_axis(weight, variance, lambda rho: math.exp(_log_R(rho, 0.0)))


@mean_R.mistake("Only the diagonal is used here. Latents that act on the same pixels share axes: take the determinant.")
def _(weight, variance):
    return (1 + (weight**2).sum(0) / variance).prod()


def _draws(num, seed):
    z, noise = _normal(num, 1, seed=seed), _normal(num, 2, seed=seed + 1)
    return torch.cat([z, (2 * z).sin()], 1) + math.sqrt(0.05) * noise


AXIS = torch.linspace(-8, 8, 321, dtype=torch.float64)
climb = Exercise("1.3", cases=[(_draws(9, 3), 1.5, 4, 0.05), (_draws(12, 5), 2.4, 2, 0.02)], rtol=1e-5)


def _climb(x, bend, steps, step_size, weigh=lambda log_joint: log_joint.softmax(-1), scale=1.0):
    """Gradient steps by Fisher's identity, where `weigh` makes the weights of z from log p(x, z), shape (N, grid)."""
    for _ in range(steps):
        distance = (x[:, :1] - AXIS) ** 2 + (x[:, 1:] - (bend * AXIS).sin()) ** 2
        weights = weigh(-10 * distance + STANDARD.log_prob(AXIS) - math.log(0.1 * math.pi))
        derivative = (x[:, 1:] - (bend * AXIS).sin()) * AXIS * (bend * AXIS).cos() / 0.05
        bend = bend + scale * step_size * (weights * derivative).sum(-1).mean()
    return bend


@climb.right
def _(x, bend, steps, step_size):
    z, bend = AXIS[:, None], _tensor(bend)
    for _ in range(steps):
        bend.requires_grad_()
        distance = torch.cdist(x, torch.cat([z, (bend * z).sin()], 1))
        likelihood = (-(distance**2) / 0.1 - z[:, 0] ** 2 / 2).logsumexp(-1).mean()
        bend = bend.detach() + step_size * torch.autograd.grad(likelihood, bend)[0]
    return bend


@climb.mistake("This goes downhill: the likelihood falls with each step. Maximum likelihood goes along the gradient.")
def _(x, bend, steps, step_size):
    return _climb(x, bend, steps, step_size, scale=-1.0)


@climb.mistake("The gradients of all x are summed. L is their mean: with twice the data the steps must not get longer.")
def _(x, bend, steps, step_size):
    return _climb(x, bend, steps, step_size, scale=len(x))


@climb.mistake("The weights of the z are those of the prior. In (1.10) the average runs over the posterior of each x.")
def _(x, bend, steps, step_size):
    return _climb(x, bend, steps, step_size, weigh=lambda log_joint: STANDARD.log_prob(AXIS).exp() / 20)


@climb.mistake("The weights are p(x, z) and not divided by p(x): for an improbable x they must add up to one as well.")
def _(x, bend, steps, step_size):
    constant = 0.05 * (2 * math.pi) ** 1.5  # which the exercise's log_joint leaves out
    return _climb(x, bend, steps, step_size, weigh=lambda log_joint: log_joint.exp() * constant)


@climb.mistake("The derivative lacks the division by the noise variance, 0.05: the steps are twenty times too short.")
def _(x, bend, steps, step_size):
    return _climb(x, bend, steps, step_size, scale=0.05)


fisher = Exercise("1.4", cases=[(_normal(5, 3, seed=2), _normal(5, seed=3), 0.7, _normal(4, 5, seed=4)),
                                (_normal(3, 2, seed=5), _normal(3, seed=6), 1.6, _normal(7, 3, seed=7))])


def _moments(weight, bias, variance, x):
    model = LinearGaussian(weight, bias, variance)
    return x - bias, *model.posterior(x)


@fisher.right
def _(weight, bias, variance, x):
    return torch.autograd.functional.jacobian(lambda w: LinearGaussian(w, bias, variance).log_px(x).mean(), weight)


@fisher.mistake("This is the gradient at the posterior's mean. But z scatters around m: E[z z^T] is more than m m^T.")
def _(weight, bias, variance, x):
    residual, m, C = _moments(weight, bias, variance, x)
    return (residual - m @ weight.T).T @ m / len(x) / variance


@fisher.mistake("The gradients of the images are summed. Their mean is asked for.")
def _(weight, bias, variance, x):
    return len(x) * fisher.solution(weight, bias, variance, x)


@fisher.mistake("The noise variance is missing: what does the exponent of p(x|z) divide by?")
def _(weight, bias, variance, x):
    return variance * fisher.solution(weight, bias, variance, x)


@fisher.mistake("The part with C has the wrong sign. Uncertain latents should make the weights smaller, not larger.")
def _(weight, bias, variance, x):
    residual, m, C = _moments(weight, bias, variance, x)
    return ((residual - m @ weight.T).T @ m / len(x) + weight @ C) / variance


@fisher.mistake("The part with C is divided by the number of images once too often: it is the same for each image.")
def _(weight, bias, variance, x):
    residual, m, C = _moments(weight, bias, variance, x)
    return ((residual - m @ weight.T).T @ m / len(x) - weight @ C / len(x)) / variance


narrow_q = Exercise("1.5")


@narrow_q.right
def _():
    def moments(variance, line):
        """Mean and mean square of the weights of one latent, over a part of the line."""
        log_q = Normal(0.0, variance**0.5).log_prob(line)
        log_w = STANDARD.log_prob(line) - log_q
        return [torch.trapezoid((log_q + power * log_w).exp(), line) for power in (1, 2)]

    (mean, square), (_, square_near), (_, wide) = moments(0.4, LINE), moments(0.4, LINE / 2), moments(2.0, LINE)
    if not abs(mean - 1) < 1e-6:
        return "d"
    return "c" if square > 1e6 * square_near else "a" if square < 0.9 * wide else "b"


narrow_q.letters(
    a="The draws do fall where the posterior is high. But what is the weight of a draw far out?",
    b="Too wide and too narrow are not alike. Compare the weights p(x, z)/q(z) of both far from the mean.",
    d="This q is positive everywhere, so the mean of the weights is right. Ask for their variance.")


more_draws = Exercise("1.6", cases=[(_normal(3, 4, seed=8), _normal(6, 2, seed=9), _normal(4, 2, seed=10), 0.8),
                                    (_normal(2, 3, seed=11), _normal(9, 1, seed=12), _normal(3, 1, seed=13), 1.7)])


def _each_pixel(x, z, weight, variance):
    return Normal(z @ weight.T, variance**0.5).log_prob(x[:, None])


@more_draws.right
def _(x, z, weight, variance):
    likelihood = MultivariateNormal(z @ weight.T, variance * torch.eye(x.shape[1], dtype=x.dtype))
    return likelihood.log_prob(x[:, None]).exp().mean(1).log()


@more_draws.mistake("This is the function as it stood. Try it with one draw, and then with the same draw twice.")
def _(x, z, weight, variance):
    return _each_pixel(x, z, weight, variance).logsumexp(1).sum(-1)


@more_draws.mistake("The pixels share one z now. But the densities are summed over the draws: try the same draw twice.")
def _(x, z, weight, variance):
    return _each_pixel(x, z, weight, variance).sum(-1).logsumexp(1)


@more_draws.mistake("The densities are averaged now. But each pixel still picks a z: are pixels independent?")
def _(x, z, weight, variance):
    return _each_pixel(x, z, weight, variance).exp().mean(1).log().sum(-1)


@more_draws.mistake("This average of log p(x|z) no longer grows, but is far too low. It is no log of an average.")
def _(x, z, weight, variance):
    return _each_pixel(x, z, weight, variance).sum(-1).mean(1)
