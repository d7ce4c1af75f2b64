"""Page 06: what a squared error and its weight mean."""

import math

import torch
from torch.distributions import ContinuousBernoulli, Laplace, Normal
from torch.nn import functional as F

from vae_lib.answers import Exercise

LOG_2_PI = math.log(2 * math.pi)

def _tensor(*numbers):
    return torch.tensor(numbers, dtype=torch.float64).squeeze()


def _random(seed, *shape):
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed)).double()


def _claimed(batch):
    """The standard deviation that the loss of exercise 6.1 claims, from two slopes of its code."""
    x, mu = torch.zeros(batch, 784), torch.ones(batch, 5)

    def loss(output, mu):
        return F.mse_loss(output, x) + 0.5 * (mu**2).sum()

    per_error = (loss(x + 1, 0 * mu) - loss(x, 0 * mu)) / 784
    per_kl = (loss(x, mu) - loss(x, 0 * mu)) / 2.5
    return (per_kl / per_error / 2).sqrt()


batch = Exercise("6.1")


@batch.right
def _():
    return [_claimed(16), _claimed(3)]


@batch.mistake("These are variances. Standard deviations are asked for.")
def _():
    return [_claimed(16) ** 2, _claimed(3) ** 2]


@batch.mistake("The batch is missing: the error is averaged over it, and the KL is summed over it.")
def _():
    return [_claimed(1)] * 2


@batch.mistake("The batch stands on the wrong side: the sum over the batch makes the KL heavier, not the error.")
def _():
    return [_claimed(1) / 4, _claimed(1) / math.sqrt(3)]


@batch.mistake("This is the root of c / w. The squared error of a Gaussian carries a factor 1/2, so s2 = c / (2 w).")
def _():
    return [_claimed(32), _claimed(6)]


each_pixel = Exercise("6.2", cases=[(_random(0, 5) + 0.01,), (3 * _random(1, 8) + 0.2,)])


@each_pixel.right
def _(errors):
    return len(errors) * Normal(0.0, errors.mean().sqrt()).entropy() - Normal(0.0, errors.sqrt()).entropy().sum()


@each_pixel.mistake("The sign is turned. A model with more variances to choose from cannot be worse.")
def _(errors):
    return -each_pixel.solution(errors)


@each_pixel.mistake("This is the gain for one pixel on average. The log density of an image sums over its pixels.")
def _(errors):
    return each_pixel.solution(errors) / len(errors)


@each_pixel.mistake("The factor 1/2 in front of the logarithm of a variance is missing: for the errors 0.01 and 0.04 "
                    "the log densities differ by 0.2231 nats, and this is 0.4463.")
def _(errors):
    return 2 * each_pixel.solution(errors)


@each_pixel.mistake("The common variance enters once here. Every one of the D pixels has its logarithm.")
def _(errors):
    return 0.5 * (errors.mean().log() - errors.log().sum())


absolute = Exercise("6.3", cases=[(0.3, 1.7, 5), (2.5, 0.4, 784)])


@absolute.right
def _(w, c, pixels):
    error = _tensor(1.0).requires_grad_()
    (-Laplace(_tensor(0.0), _tensor(1.0)).log_prob(error)).backward()  # its slope at scale 1; at scale b, divided by b
    scale = c / w * error.grad
    return [scale, -pixels * Laplace(0 * scale, scale).log_prob(0 * scale)]


@absolute.mistake("The scale is c / (2 w) here, as for a squared error. Is there a factor 1/2 in this density?")
def _(w, c, pixels):
    return [c / (2 * w), pixels * math.log(c / w)]


@absolute.mistake("The scale is turned round: a heavy weight on the error claims little noise.")
def _(w, c, pixels):
    return [w / c, pixels * math.log(2 * w / c)]


@absolute.mistake("The density is exp(-|x - m| / b) / (2 b). In the constant the factor 2 is missing.")
def _(w, c, pixels):
    return [c / w, pixels * math.log(c / w)]


@absolute.mistake("The constant is that of one pixel. An image has D of them.")
def _(w, c, pixels):
    return [c / w, math.log(2 * c / w)]


@absolute.mistake("The constant has the wrong sign: loss / c plus constant is to be minus the objective.")
def _(w, c, pixels):
    return [c / w, -pixels * math.log(2 * c / w)]


continuous = Exercise("6.4", cases=[(_random(2, 2, 3), _tensor([0.0, -4.0, 6.0], [1e-9, 0.3, -0.2])),
                                    (_random(3, 1, 4), 5 - 10 * _random(4, 1, 4)),
                                    (_tensor([0.3], [0.8])[:, None], _tensor([0.04], [-0.008])[:, None])],
                      rtol=1e-5, gradient=1)


def _bce(x, logits):
    return F.binary_cross_entropy_with_logits(logits, x, reduction="none")


@continuous.right
def _(x, logits):
    return ContinuousBernoulli(logits=logits).log_prob(x).sum(-1)


@continuous.mistake("This is minus the cross entropy. Its exponential integrates to less than one: divide by the "
                    "integral.")
def _(x, logits):
    return -_bce(x, logits).sum(-1)


@continuous.mistake("The density is multiplied by the integral (6.14) here. It has to be divided by it.")
def _(x, logits):
    return -2 * _bce(x, logits).sum(-1) - continuous.solution(x, logits)


@continuous.mistake("The integral is 1/2 at logit 0 only. At other logits it is smaller.")
def _(x, logits):
    return (math.log(2) - _bce(x, logits)).sum(-1)


@continuous.mistake("The pixels of an image are averaged. Their log densities add up.")
def _(x, logits):
    return continuous.solution(x, logits) / x.shape[-1]


@continuous.mistake("The values are right, but at logit 0 the gradient is not a number: `torch.where` multiplies the "
                    "derivative of 0/0 by zero.")
def _(x, logits):
    integral = torch.where(logits.abs() < 1e-3, 0.5 - logits**2 / 24, (logits / 2).tanh() / logits)
    return (x * logits - F.softplus(logits) - integral.log()).sum(-1)


@continuous.mistake("All images are summed up. Wanted is one number for each image.")
def _(x, logits):
    return continuous.solution(x, logits).sum()


noise = Exercise("6.5", cases=[(_random(5, 3, 6), _random(6, 3, 6), _tensor(-1.3)),
                               (_random(7, 2, 9), _random(8, 2, 9), _tensor(0.4))])


def _loss(x, mean, log_var, times=1.0, constant=LOG_2_PI):
    """The broken loss with `times` the log-variance and a constant."""
    return 0.5 * (((x - mean) ** 2).sum(-1) / log_var.exp() + times * log_var + constant)


@noise.right
def _(x, mean, log_var):
    return -Normal(mean, (0.5 * log_var).exp()).log_prob(x).sum(-1)


@noise.mistake("This is the loss as it stood. Where is its minimum over log_var? Differentiate.")
def _(x, mean, log_var):
    return _loss(x, mean, log_var)


@noise.mistake("The variance is right now. But log(2 pi) still stands there once, for an image with many pixels.")
def _(x, mean, log_var):
    return _loss(x, mean, log_var, x.shape[-1])


@noise.mistake("The minimum is at the right place now. But without log(2 pi) this is no log density.")
def _(x, mean, log_var):
    return _loss(x, mean, log_var, x.shape[-1], 0.0)


@noise.mistake("The pixels are averaged: the variance is right, but the KL beside this term weighs D times too much.")
def _(x, mean, log_var):
    return noise.solution(x, mean, log_var) / x.shape[-1]


@noise.mistake("This is the log density. The loss is minus that.")
def _(x, mean, log_var):
    return -noise.solution(x, mean, log_var)


rescaled = Exercise("6.6")


@rescaled.right
def _():
    """By the eigenvalues of the covariance: at its best a linear VAE leaves the error min(eigenvalue, s2) in each."""
    images, found = _random(9, 200, 4) * _tensor(3.0, 2.0, 1.5, 0.5), []
    for x in (images, 2 * images - 1):
        eigenvalues = torch.linalg.svdvals(x - x.mean(0)) ** 2 / len(x)
        kl = (eigenvalues / 0.5).clamp_min(1).log().sum() / 2
        found.append((kl, eigenvalues.clamp_max(0.5).sum() + kl))
    (kl, loss), (kl_after, loss_after) = found
    if abs(kl_after - kl) > 0.1:
        return "b" if kl_after > kl else "c"
    return "d" if abs(loss_after - loss) > 0.1 else "a"


rescaled.letters(
    a="The images are the same, but the loss counts in another unit. What becomes of a squared error when "
      "its unit is halved, and what of the KL?",
    c="The errors count four times as much, that is right. But the KL falls only where errors count for "
      "less.",
    d="A constant would move no minimum. Is it a constant that changes here, or the weight of one of the "
      "terms?")
