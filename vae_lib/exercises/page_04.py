"""Page 04: what the KL term costs."""

import math

import torch
from scipy.optimize import minimize_scalar
from scipy.special import lambertw
from torch.distributions import Laplace, MultivariateNormal, Normal, kl_divergence

from vae_lib.answers import Exercise

LINE = torch.linspace(-60, 60, 24001, dtype=torch.float64)
STANDARD = Normal(torch.zeros((), dtype=torch.float64), torch.ones((), dtype=torch.float64))


def _tensor(*numbers):
    return torch.tensor(numbers, dtype=torch.float64).squeeze()


def _quadrature(q, p):
    log_q, log_p = q.log_prob(LINE), p.log_prob(LINE)
    return torch.trapezoid(log_q.exp() * (log_q - log_p), LINE)


def _narrow(excess):
    """The std below 1 at which std^2 - log std^2 = excess, by Lambert's function."""
    return math.sqrt(-lambertw(-math.exp(-excess)).real)


budget = Exercise("4.1", rtol=3e-4)  # (0.25 + v - log v - 1) / 2 = 3


@budget.right
def _():
    return _narrow(6.75)


@budget.mistake("This is the posterior that is wider than the prior. The other root of (4.5) is asked for.")
def _():
    return math.sqrt(-lambertw(-math.exp(-6.75), -1).real)


@budget.mistake("This is the variance. A standard deviation is asked for.")
def _():
    return _narrow(6.75) ** 2


@budget.mistake("This posterior has mean 0. The mean of 0.5 costs something too.")
def _():
    return _narrow(7)


@budget.mistake("With this width the bracket of (4.5) is 3. The price is half of the bracket.")
def _():
    return _narrow(3.75)


@budget.mistake("Sigma squared is left out. At this width it is small, but the fourth digit needs it.")
def _():
    return math.exp(-3.375)


@budget.mistake("These are 3 bits, not 3 nats. A bit is 0.693 nats.")
def _():
    return _narrow(6 * math.log(2) + 0.75)


@budget.mistake("Here log sigma stands for log sigma squared, which is twice as much: put your answer into (4.5).")
def _():
    return _narrow(13.5 - math.log(2)) / math.sqrt(2)


@budget.mistake("The mean counts with its square, 0.25. Here 0.5 itself is added.")
def _():
    return _narrow(6.5)


@budget.mistake("This is log sigma squared, as an encoder reports it. The standard deviation is exp of half of it.")
def _():
    return 2 * math.log(_narrow(6.75))


@budget.mistake("Here -log sigma alone is 3. The other terms of (4.5) count too: put your answer into it.")
def _():
    return math.exp(-3)


other_direction = Exercise("4.2", cases=[(_tensor(0.7), _tensor(-0.8)), (_tensor(-1.3, 0.2), _tensor(0.9, -0.4))])


@other_direction.right
def _(mu, log_var):
    return _quadrature(STANDARD, Normal(mu[..., None], (0.5 * log_var[..., None]).exp()))


@other_direction.mistake("This is KL(q || p), the direction of (4.5). The average has to run over the prior.")
def _(mu, log_var):
    return kl_divergence(Normal(mu, (0.5 * log_var).exp()), STANDARD)


@other_direction.mistake("The mean is not divided by the variance. A narrow q must pay more for the same mean.")
def _(mu, log_var):
    return 0.5 * (mu**2 + (-log_var).exp() + log_var - 1)


@other_direction.mistake("The logarithm has the wrong sign: at mean 0 and a log_var of 1 this is below zero.")
def _(mu, log_var):
    return 0.5 * ((1 + mu**2) * (-log_var).exp() - log_var - 1)


@other_direction.mistake("Sigma divides here. In the exponent of q it is sigma squared that divides.")
def _(mu, log_var):
    return 0.5 * ((1 + mu**2) * (-0.5 * log_var).exp() + log_var - 1)


@other_direction.mistake("Here `log_var` is read as log sigma. It is log sigma squared: sigma is exp(log_var / 2).")
def _(mu, log_var):
    return kl_divergence(STANDARD, Normal(mu, log_var.exp()))


@other_direction.mistake("Under the prior (z - mu)^2 has the mean 1 + mu^2, not (1 - mu)^2: the mean of z is 0.")
def _(mu, log_var):
    return 0.5 * ((1 - mu)**2 * (-log_var).exp() + log_var - 1)


@other_direction.mistake("The variance of z is missing: at mean 0 and a log_var of 0 this is -1/2, and q is the prior.")
def _(mu, log_var):
    return 0.5 * (mu**2 * (-log_var).exp() + log_var - 1)


variance_output = Exercise("4.3")


@variance_output.right
def _():
    variance = _tensor(0.04).requires_grad_()
    kl_divergence(Normal(0.0, variance.sqrt()), STANDARD).backward()
    after = (variance - 0.1 * variance.grad).item()
    return "abcd"[1 if after > 1 else 2 if after < 0 else 0]


variance_output.letters(
    a="The pull is not of ordinary size: the slope contains 1/v. Put v = 0.04 into it.",
    c="Descent goes against the slope. Which sign has the slope where the variance is too small?",
    d="The slope does not fade as v becomes small: log v has the slope 1/v.")


def _turn(size):
    upper = torch.arange(1.0, size * size + 1, dtype=torch.float64).reshape(size, size).triu(1) / size**2
    return torch.linalg.matrix_exp(upper - upper.T)


rotation = Exercise("4.4", cases=[(_tensor(-3.0, 0.2, -1.1), _turn(3)), (_tensor(-2.5, 0.4, 0.9, -0.6), _turn(4))])


@rotation.right
def _(log_var, R):
    zeros = torch.zeros_like(log_var)
    turned = MultivariateNormal(zeros, R @ log_var.exp().diag() @ R.T)
    return kl_divergence(turned, MultivariateNormal(zeros, turned.covariance_matrix.diag().diag()))


@rotation.mistake("A rotation alone is free, that is right. But the correlation, which is dropped then, had a price.")
def _(log_var, R):
    return 0 * log_var.sum()


@rotation.mistake("The sign is turned: the price of the turned q, cut to its diagonal, is what is subtracted.")
def _(log_var, R):
    return 0.5 * (log_var.sum() - (R**2 @ log_var.exp()).log().sum())


@rotation.mistake("The standard deviations are rotated here. What turns is the covariance, R Sigma R^T.")
def _(log_var, R):
    return (R**2 @ (0.5 * log_var).exp()).log().sum() - 0.5 * log_var.sum()


@rotation.mistake("Standard deviations stand in what is rotated. The diagonal of Sigma holds variances, exp(log_var).")
def _(log_var, R):
    return 0.5 * ((R**2 @ (0.5 * log_var).exp()).log().sum() - log_var.sum())


@rotation.mistake("All of Sigma is made of standard deviations here. Its diagonal holds variances, exp(log_var).")
def _(log_var, R):
    return 0.5 * ((R**2 @ (0.5 * log_var).exp()).log().sum() - 0.5 * log_var.sum())


@rotation.mistake("This is R^T Sigma R, the rotation the other way. With two latents it saves as much as "
                  "R Sigma R^T, with three it does not.")
def _(log_var, R):
    return rotation.solution(log_var, R.T)


@rotation.mistake("The latents are averaged here. The logarithm of a determinant is the sum of all logarithms.")
def _(log_var, R):
    return 0.5 * ((R**2 @ log_var.exp()).log() - log_var).mean()


@rotation.mistake("The factor 1/2 in front of the logarithms is missing: for the variances 4 and 1/4, rotated by "
                  "45 degrees, this is 1.508 nats, more than the whole price of 1.125 at mean 0.")
def _(log_var, R):
    return (R**2 @ log_var.exp()).log().sum() - log_var.sum()


laplace = Exercise("4.5", rtol=4e-4)  # three digits, 0.0724, are too few


@laplace.right
def _():
    return minimize_scalar(lambda b: _quadrature(Laplace(0 * LINE[0], _tensor(b)), STANDARD).item(), (0.5, 0.9)).fun


@laplace.mistake("A divergence below zero cannot be. The mean of z squared under a Laplace density is 2 b^2, not b^2.")
def _():
    return 0.5 * math.log(2 * math.pi) - math.log(2) - 0.5


@laplace.mistake("A divergence below zero cannot be. The factor 1/sqrt(2 pi) of the normal density is left out here.")
def _():
    return -0.5 * math.log(2) - 0.5


@laplace.mistake("This is KL(p || q), with the average over the normal density. Here q is the Laplace density.")
def _():
    return math.log(2) + math.log(math.sqrt(2 / math.pi)) + 1 - 0.5 * math.log(2 * math.pi * math.e)


@laplace.mistake("This is the scale b at which the divergence is smallest. The divergence itself is asked for.")
def _():
    return math.sqrt(0.5)


@laplace.mistake("This is the divergence at b = 1. There is a smaller one.")
def _():
    return 0.5 * math.log(2 * math.pi) - math.log(2)


half_too_many = Exercise("4.6", cases=[(_tensor([0.3, -1.2, 0.8], [0.2, -0.6, 2.1]),
                                        _tensor([0.4, 1.7, 0.9], [1.2, 0.3, 0.6])),
                                       (_tensor(0.5, -2.0), _tensor(0.3, 1.4))])


@half_too_many.right
def _(mu, std):
    return _quadrature(Normal(mu[..., None], std[..., None]), STANDARD).sum(-1)


@half_too_many.mistake("This is the loss as it stood. Its minimum is not at the prior: look at its slope in std there.")
def _(mu, std):
    return (std**2 + mu**2 - std.log() - 0.5).sum(-1)


@half_too_many.mistake("Now it is zero at the prior, but below zero at std 0.7. A constant does not move the minimum.")
def _(mu, std):
    return (std**2 + mu**2 - std.log() - 1).sum(-1)


@half_too_many.mistake("All terms are halved now, which is one too many: at mean 0 and std 0.7 this is below zero.")
def _(mu, std):
    return 0.5 * (std**2 + mu**2 - std.log() - 1).sum(-1)


@half_too_many.mistake("The latents are averaged. Their prices add up.")
def _(mu, std):
    return kl_divergence(Normal(mu, std), STANDARD).mean(-1)


@half_too_many.mistake("Only the square of std is halved. At std 1 the mean 1 costs 1 nat here, and should cost 1/2.")
def _(mu, std):
    return (0.5 * std**2 + mu**2 - std.log() - 0.5).sum(-1)


@half_too_many.mistake("Only the square of mu is halved. At mean 0 the minimum is still at std 0.71.")
def _(mu, std):
    return (std**2 + 0.5 * mu**2 - std.log() - 0.5).sum(-1)


@half_too_many.mistake("Here std stands for its square: the slope in std at the prior is -1/2, and should be 0.")
def _(mu, std):
    return (0.5 * (std + mu**2 - 1) - std.log()).sum(-1)


@half_too_many.mistake("The -1 is taken once, after the sum. Each latent has its own: three at the prior cost 1 here.")
def _(mu, std):
    return 0.5 * ((std**2 + mu**2 - 2 * std.log()).sum(-1) - 1)


@half_too_many.mistake("Here std is taken for log_var: at the prior, with std 1, this is 0.36 nats for each latent.")
def _(mu, std):
    return 0.5 * (mu**2 + std.exp() - std - 1).sum(-1)


@half_too_many.mistake("Here `std.log()` is taken for log_var. It is half of it, as the variance is std squared.")
def _(mu, std):
    return 0.5 * (mu**2 + std - std.log() - 1).sum(-1)
