"""Page 02: the evidence lower bound."""

import math

import numpy as np
import torch
from scipy.integrate import quad
from scipy.optimize import minimize
from torch.distributions import Normal, kl_divergence

from vae_lib.answers import Exercise

GRID = torch.linspace(-12, 12, 2401, dtype=torch.float64)
STANDARD = Normal(torch.zeros((), dtype=torch.float64), torch.ones((), dtype=torch.float64))


def _tensor(*numbers):
    return torch.tensor(numbers, dtype=torch.float64).squeeze()


def _normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def _parabola_elbo(x, mu, log_var, variance=0.25):
    """The ELBO of the parabola model and a Gaussian q in closed form, by the moments of z up to the fourth."""
    v = log_var.exp()
    second, third, fourth = mu**2 + v, mu**3 + 3 * mu * v, mu**4 + 6 * mu**2 * v + 3 * v**2
    error = x**2 - x * (second + mu) + (fourth + 2 * third + second) / 4
    log_px_given_z = -0.5 * (math.log(2 * math.pi * variance) + error / variance)
    return log_px_given_z - kl_divergence(Normal(mu, v.sqrt()), STANDARD)


better_family = Exercise("2.1", cases=[(_tensor(0.3, 0.7), _tensor(-1.8, 0.9), _tensor(-2.2, -1.3)),
                                       (_tensor(0.2, 0.5, 0.3), _tensor(-2.0, 1.2, -0.4), _tensor(-1.5, -2.0, 0.2))],
                         rtol=1e-5)


@better_family.right
def _(weights, mu, log_var):
    parts = list(zip(weights.tolist(), mu.tolist(), (0.5 * log_var).exp().tolist()))

    def integrand(z):
        q = sum(w * math.exp(-0.5 * ((z - m) / s) ** 2) / s for w, m, s in parts) / math.sqrt(2 * math.pi)
        log_joint = -2 * (1.5 - (z * z + z) / 2) ** 2 - 0.5 * z * z - math.log(math.pi)
        return q * (log_joint - math.log(q))
    return quad(integrand, -9, 9, points=(-2, 1), limit=200, epsabs=1e-9)[0]


def _mixture(weights, mu, log_var):
    """log p(x, z) on the grid, the components' log densities there, and the density of the mixture."""
    log_joint = Normal((GRID**2 + GRID) / 2, 0.5).log_prob(_tensor(1.5)) + STANDARD.log_prob(GRID)
    log_qs = Normal(mu[:, None], (0.5 * log_var[:, None]).exp()).log_prob(GRID)
    return log_joint, log_qs, weights @ log_qs.exp()


@better_family.mistake("This is the weighted mean of the components' ELBOs. In (2.2) q is the whole mixture.")
def _(weights, mu, log_var):
    return weights @ _parabola_elbo(1.5, mu, log_var)


@better_family.mistake("The mean of the components' logs stands for log q here, which is the log of a sum.")
def _(weights, mu, log_var):
    log_joint, log_qs, q = _mixture(weights, mu, log_var)
    return torch.trapezoid(q * (log_joint - weights @ log_qs), GRID)


@better_family.mistake("The entropy of q is missing: without -log q a needle at the best z would win.")
def _(weights, mu, log_var):
    log_joint, _, q = _mixture(weights, mu, log_var)
    return torch.trapezoid(q * log_joint, GRID)


@better_family.mistake("This is the log of an average, (2.1): log p(x) itself. The ELBO averages the log.")
def _(weights, mu, log_var):
    return torch.trapezoid(_mixture(weights, mu, log_var)[0].exp(), GRID).log()


@better_family.mistake("Here q is the density of one Gaussian with the mixture's mean and variance. Keep both bumps.")
def _(weights, mu, log_var):
    mean = weights @ mu
    return _parabola_elbo(1.5, mean, (weights @ (log_var.exp() + (mu - mean) ** 2)).log())


other_estimator = Exercise("2.2", rtol=2e-4)
SLOPES, DOT = _tensor(1.5, -0.8, 0.6), _tensor(2.0, -0.5, 1.0)


def _stds(power=0.5, with_log_q=1.0):
    """Each draw is a z + b z^2 + constant for a Gaussian z; its variance is (a + 2 b m)^2 v + 2 b^2 v^2."""
    variance = 1 / (1 + SLOPES @ SLOPES / 0.5)
    likelihood, stds = torch.stack([SLOPES @ DOT, -SLOPES @ SLOPES / 2]) / 0.5, []
    for m, v in ((variance * (SLOPES @ DOT) / 0.5, variance), _tensor(0, 1)):
        log_w = likelihood - _tensor(0, 0.5) - with_log_q * torch.stack([m, _tensor(-0.5)]) / v
        for a, b in (likelihood, log_w):
            stds.append(((a + 2 * b * m) ** 2 * v + 2 * b**2 * v**2) ** power)
    return torch.stack(stds)


@other_estimator.right
def _():
    return _stds()


@other_estimator.mistake("These are the variances of one draw. Standard deviations are asked for.")
def _():
    return _stds(power=1.0)


@other_estimator.mistake("In the second estimator -log q(z) varies from draw to draw as well. It is missing here.")
def _():
    return _stds(with_log_q=0.0)


@other_estimator.mistake("The two densities q are exchanged: first the posterior, then the prior.")
def _():
    return _stds().roll(2)


@other_estimator.mistake("The two estimators are exchanged. Which of the four does (2.4) predict?")
def _():
    return _stds()[[1, 0, 3, 2]]


two_tops = Exercise("2.3")


@two_tops.right
def _():
    q = _tensor([-2.0, 1.0, 0.0], [-2.0, -2.0, 0.0])
    for _ in range(60):
        q.requires_grad_()
        elbo = _parabola_elbo(1.5, *q)
        q = q.detach() + 0.1 * torch.autograd.grad(elbo.sum(), q)[0].clamp(-2, 2)
    left, right, prior = elbo.tolist()
    if max(elbo) - min(elbo) < 0.01:
        return "a"
    return "c" if abs(prior - right) < 0.01 else "b" if abs(prior - left) < 0.01 else "d"


two_tops.letters(
    a="A bound with one top would have it so. But how many bumps has the posterior?",
    b="Which bump is nearer to the prior's mean, and which one has more of the posterior?",
    d="Such a q has much mass between the bumps, where p(x, z) is small. What does that cost?")


correlation = Exercise("2.4", cases=[(0.3,), (-0.85,), (0.6,)])


def _gap(rho, log_var):
    """KL from a diagonal q to a Gaussian with variances 1.7 and 0.6, and its slope in log_var."""
    cross = rho * math.sqrt(1.7 * 0.6)
    precision = np.linalg.inv([[1.7, cross], [cross, 0.6]])
    ratios = precision.diagonal() * np.exp(log_var)
    return 0.5 * (ratios.sum() - 2 - np.log(np.linalg.det(precision)) - np.sum(log_var)), 0.5 * (ratios - 1)


@correlation.right
def _(rho):
    return minimize(lambda log_var: _gap(rho, log_var), [0.0, 0.0], jac=True, options={"gtol": 1e-9}).fun


@correlation.mistake("The factor 1/2 in front of the logarithm is missing: at rho = 0.6 this is 0.4463, twice the gap.")
def _(rho):
    return -math.log1p(-(rho**2))


@correlation.mistake("With this sign the gap is negative, and no divergence is.")
def _(rho):
    return 0.5 * math.log1p(-(rho**2))


@correlation.mistake("This differs for rho and -rho. The sign of a latent, and so that of rho, is arbitrary.")
def _(rho):
    return -0.5 * math.log1p(-rho)


@correlation.mistake("This q has the posterior's variances. The best diagonal q is narrower: see its Lambda.")
def _(rho):
    return _gap(rho, np.log([1.7, 0.6]))[0]


@correlation.mistake("This is three times too much. With which sign does log det Lambda stand in the gap?")
def _(rho):
    return -1.5 * math.log1p(-(rho**2))


noisy_pixel = Exercise("2.5")
PIXELS = _tensor(-8.0, -3.0, 0.5, 4.0, 9.0)


def _noisy(variance=25.0, of_kl=lambda q: kl_divergence(q, STANDARD), reduce=torch.mean):
    def value_and_slope(numbers):
        q = torch.from_numpy(numbers).view(2, 5).clone().requires_grad_()
        loss = -_parabola_elbo(PIXELS, *q, variance).sum()
        return loss.item(), torch.autograd.grad(loss, q)[0].flatten().numpy()
    start = torch.cat([torch.zeros(5), -torch.ones(5)]).double().numpy()
    found = minimize(value_and_slope, start, jac=True, method="BFGS", options={"gtol": 1e-7})
    mu, log_var = torch.from_numpy(found.x).view(2, 5)
    gain = _parabola_elbo(PIXELS, mu, log_var, variance) - _parabola_elbo(PIXELS, 0 * mu, 0 * mu, variance)
    return torch.stack([reduce(gain), reduce(of_kl(Normal(mu, (0.5 * log_var).exp())))])


@noisy_pixel.right
def _():
    return _noisy()


@noisy_pixel.mistake("This is for a noise of variance 5. The variance is 25, the standard deviation 5.")
def _():
    return _noisy(variance=5.0)


@noisy_pixel.mistake("The five pixels are summed. Their means are asked for.")
def _():
    return _noisy(reduce=torch.sum)


@noisy_pixel.mistake("The KL runs from the prior to q. In the bound it runs from q to the prior.")
def _():
    return _noisy(of_kl=lambda q: kl_divergence(STANDARD, q))


@noisy_pixel.mistake("The first sign is wrong: the best Gaussian cannot be worse than the prior, which is one.")
def _():
    return _noisy() * _tensor(-1, 1)


record = Exercise("2.6", cases=[tuple(scale * _normal(*shape, seed=seed) + shift for seed, scale, shape, shift in (
    (1, 1.0, (num, 4), 0), (2, 0.5, (num, 2), 0), (3, 0.5, (num, 2), -1), (4, 1.0, (num, 2), 0))) for num in (3, 5)])
LOADINGS = _tensor([1.0, 0.8], [0.9, 1.0], [0.5, 0.7], [0.2, -0.3])


def _one_draw(x, mu, log_var, eps, noise=1.0, reduce=torch.sum, width=0.5):
    z = mu + noise * (width * log_var).exp() * eps
    log_px_given_z = Normal(z @ LOADINGS.T, 0.3**0.5).log_prob(x).sum(-1)
    return log_px_given_z - reduce(kl_divergence(Normal(mu, (0.5 * log_var).exp()), STANDARD), -1)


@record.right
def _(x, mu, log_var, eps):
    std = log_var.exp().sqrt()
    z = mu + std * eps
    log_px_given_z = -0.5 * (torch.cdist(x[:, None], (z @ LOADINGS.T)[:, None]) ** 2 / 0.3)[:, 0, 0]
    log_q = Normal(mu[..., None], std[..., None]).log_prob(GRID)
    kl = torch.trapezoid(log_q.exp() * (log_q - STANDARD.log_prob(GRID)), GRID)
    return log_px_given_z - 2 * math.log(2 * math.pi * 0.3) - kl.sum(-1)


@record.mistake("This is the function as it stood. Compare the spread of z with the q that the KL is computed for.")
def _(x, mu, log_var, eps):
    return _one_draw(x, mu, log_var, eps, noise=0.01, reduce=torch.mean)


@record.mistake("The noise has the std of q now. But the KL is still averaged over the latents, or halved twice.")
def _(x, mu, log_var, eps):
    return _one_draw(x, mu, log_var, eps, reduce=torch.mean)


@record.mistake("The KL is summed now. But z does not scatter as much as the q that the KL charges for.")
def _(x, mu, log_var, eps):
    return _one_draw(x, mu, log_var, eps, noise=0.01)


@record.mistake("The noise is scaled by the variance of q. Its standard deviation is exp(log_var / 2).")
def _(x, mu, log_var, eps):
    return _one_draw(x, mu, log_var, eps, width=1.0)


@record.mistake("The mean of q is decoded here, with no noise at all. The first term is an average over draws of z.")
def _(x, mu, log_var, eps):
    return _one_draw(x, mu, log_var, eps, noise=0.0)
