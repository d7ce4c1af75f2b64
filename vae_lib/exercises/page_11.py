"""The exercises of page 11: importance weights, and what is said with them."""

import math

import torch
from scipy import optimize
from torch.distributions import Bernoulli, MultivariateNormal, Normal, kl_divergence

from vae_lib.answers import Exercise

PRECISIONS = (torch.tensor([[2.0, 1.1], [1.1, 1.5]]).double(),
              torch.tensor([[3.0, -0.4, 0.9], [-0.4, 2.0, 0.3], [0.9, 0.3, 1.2]]).double())
LOG_VARS = torch.tensor([-0.3, 0.4]).double(), torch.tensor([-0.8, -0.2, 0.3]).double()

width = Exercise("11.1", cases=list(zip(PRECISIONS, LOG_VARS)))


def two_gaussians(precision, log_var):
    origin = torch.zeros_like(log_var)
    return MultivariateNormal(origin, precision_matrix=precision), MultivariateNormal(origin, log_var.exp().diag())


@width.right
def _(precision, log_var):
    posterior, q = two_gaussians(precision, log_var)
    return kl_divergence(posterior, q) + kl_divergence(q, posterior)


@width.mistake("This is the distance of one bound from log p(x). The other one lies on the other side of it.")
def _(precision, log_var):
    return kl_divergence(*two_gaussians(precision, log_var))


@width.mistake("This is the gap of the ELBO alone. The bound from above has a gap as well.")
def _(precision, log_var):
    return kl_divergence(*two_gaussians(precision, log_var)[::-1])


@width.mistake("A constant is wrong: where q is the posterior, the two bounds meet, so the width must be 0.")
def _(precision, log_var):
    return width.solution(precision, log_var) + len(log_var)


@width.mistake("The covariance of the posterior is the inverse of `precision` as a matrix. Its diagonal is not one "
               "over the diagonal of `precision`.")
def _(precision, log_var):
    ratio = log_var.exp() * precision.diagonal()
    return 0.5 * (ratio + 1 / ratio - 2).sum()


@width.mistake("This is the difference of the two KLs. One bound lies above log p(x) and the other below it, so the "
               "two distances add up.")
def _(precision, log_var):
    posterior, q = two_gaussians(precision, log_var)
    return kl_divergence(posterior, q) - kl_divergence(q, posterior)


@width.mistake("This is twice the gap of the ELBO, as if both bounds lay equally far from log p(x). A KL changes when "
               "its two densities change places.")
def _(precision, log_var):
    posterior, q = two_gaussians(precision, log_var)
    return 2 * kl_divergence(q, posterior)


@width.mistake("This is twice the distance of the upper bound, as if the lower one lay as far away. A KL changes when "
               "its two densities change places.")
def _(precision, log_var):
    posterior, q = two_gaussians(precision, log_var)
    return 2 * kl_divergence(posterior, q)


factors = Exercise("11.2", cases=[(0.3,), (-0.6,), (0.9,)], rtol=4e-5)


def log_mean_square(factor, rho):
    """Of the ratio of a posterior with unit precisions and correlation rho to a q that is `factor` wide."""
    precision = torch.tensor([[1.0, -rho], [-rho, 1.0]]).double()
    of_q = torch.eye(2).double() / factor**2
    return (precision.logdet() - 0.5 * of_q.logdet() - 0.5 * (2 * precision - of_q).logdet()).item()


@factors.right
def _(rho):
    precision = torch.tensor([[1.0, -rho], [-rho, 1.0]]).double()
    of_q = torch.eye(2).double()
    smallest = optimize.brentq(lambda a: torch.linalg.eigvalsh(2 * precision - of_q / a**2)[0].item(), 0.1, 9)
    best = optimize.minimize_scalar(lambda a: log_mean_square(a, rho), bounds=(smallest * (1 + 1e-9), 5 * smallest),
                                    method="bounded", options={"xatol": 1e-9})
    return [smallest, best.x]


@factors.mistake("These are factors on the variance. The factor on the standard deviation is the square root.")
def _(rho):
    return [factor**2 for factor in factors.solution(rho)]


@factors.mistake("The first factor makes the precision of q less than the posterior's, in every direction. The square "
                 "of p over q asks for less: it falls with twice the posterior's precision.")
def _(rho):
    return [(1 - abs(rho)) ** -0.5, factors.solution(rho)[1]]


@factors.mistake("The second factor gives q the posterior's marginal variances. That is the best q by KL(p || q), not "
                 "the one with the least variance of the weights.")
def _(rho):
    return [factors.solution(rho)[0], (1 - rho**2) ** -0.5]


@factors.mistake("For a negative correlation your first factor is too small. The sign of rho does not matter to an "
                 "ellipse; which eigenvalue of the precision is the smaller one?")
def _(rho):
    return [(2 * (1 - rho)) ** -0.5, factors.solution(rho)[1]]


@factors.mistake("This is s = 1 / alpha^2, not the factor itself. Near a correlation of 1 both factors must grow, and "
                 "yours go to zero.")
def _(rho):
    return [factor**-2 for factor in factors.solution(rho)]


@factors.mistake("For the second factor det S is forgotten. Without it the variance would fall the more the wider q "
                 "is, and the zero of the derivative is no minimum.")
def _(rho):
    return [factors.solution(rho)[0], 0.5**0.5]


@factors.mistake("For the second factor det S is taken as s. S has two rows, and its determinant is s^2: without a "
                 "correlation the best factor is 1.")
def _(rho):
    s = (4 - 2 * math.sqrt(1 + 3 * rho**2)) / 3
    return [factors.solution(rho)[0], s**-0.5]


@factors.mistake("The second factor belongs to the other root of the quadratic equation, where the variance is "
                 "infinite: compare it with your first factor.")
def _(rho):
    return [factors.solution(rho)[0], ((3 + math.sqrt(1 + 8 * rho**2)) / 2) ** -0.5]


TRAIN = torch.tensor([[0.0, 0.2, 0.996, 0.6], [0.012, 0.7, 1.0, 0.1], [0.0, 0.4, 1.0, 0.8]]).double()
BITS = torch.tensor([[0, 1, 1, 0], [0, 0, 1, 1], [1, 0, 1, 0], [0, 1, 0, 1], [0, 1, 1, 1]]).double()
pixels = Exercise("11.3", cases=[(TRAIN, BITS), (1 - 0.5 * TRAIN.flip(1), BITS[1:4])])


@pixels.right
def _(train, bits):
    return -Bernoulli(train.mean(0).clamp(0.01, 0.99)).log_prob(bits).sum(1).mean()


@pixels.mistake("This is the average over the pixels. The pixels of an image are independent, so their log "
                "probabilities add up.")
def _(train, bits):
    return pixels.solution(train, bits) / bits.shape[1]


@pixels.mistake("The logarithm is taken of the average probability of the images. One log-probability for each image, "
                "then the average.")
def _(train, bits):
    return -Bernoulli(train.mean(0).clamp(0.01, 0.99)).log_prob(bits).sum(1).exp().mean().log()


@pixels.mistake("The probabilities come from the images that are scored. Then the test set has been seen.")
def _(train, bits):
    return pixels.solution(bits, bits)


@pixels.mistake("Each pixel has the same probability here. The mean is over the images, pixel by pixel.")
def _(train, bits):
    return pixels.solution(train.mean().expand_as(train), bits)


@pixels.mistake("The grey values are held between the limits before they are averaged. Average the images first, then "
                "hold the mean: a pixel with the mean 0.004 gets 0.01.")
def _(train, bits):
    return pixels.solution(train.clamp(0.01, 0.99), bits)


@pixels.mistake("The probabilities are not held between 0.01 and 0.99. A pixel which is black in all training digits "
                "would then cost infinitely many nats where it is white.")
def _(train, bits):
    p = train.mean(0)
    return -torch.where(bits == 1, p, 1 - p).log().sum(1).mean()


@pixels.mistake("The NLLs of the images are summed. Divide by their number: twice the same images must have the same "
                "mean.")
def _(train, bits):
    return pixels.solution(train, bits) * len(bits)


@pixels.mistake("Only the white pixels are counted here. A black one has the probability 1 - p, and its logarithm "
                "belongs to the sum as well.")
def _(train, bits):
    return -(bits * train.mean(0).clamp(0.01, 0.99).log()).sum(1).mean()


LOG_W = torch.tensor([[-3.1, 0.4], [-1.2, -0.9], [-2.6, 1.7], [-4.0, -2.2], [-0.7, 0.1]]).double()
jackknife = Exercise("11.4", cases=[(LOG_W,), (LOG_W[:3].flip(1) - torch.tensor([200, 2000]),)])


@jackknife.right
def _(log_w):
    k, top = len(log_w), log_w.amax(0)
    w = (log_w - top).exp()
    without_one = [(w.sum(0) - some) / (k - 1) for some in w]
    return top + k * w.mean(0).log() - (k - 1) / k * torch.stack(without_one).log().sum(0)


def leave_one_out(log_w, count):
    rest = [torch.cat([log_w[:i], log_w[i + 1:]]).logsumexp(0) - math.log(count) for i in range(len(log_w))]
    return torch.stack(rest).mean(0)


def bound(log_w):
    return log_w.logsumexp(0) - math.log(len(log_w))


@jackknife.mistake("The average over the k - 1 draws that are left is divided by k. With equal weights the result must "
                   "be log w itself.")
def _(log_w):
    k = len(log_w)
    return k * bound(log_w) - (k - 1) * leave_one_out(log_w, k)


@jackknife.mistake("This is the average of the bounds with one draw left out, which has more bias, not less.")
def _(log_w):
    return leave_one_out(log_w, len(log_w) - 1)


@jackknife.mistake("The difference has the wrong sign: leaving one out lowers the bound by about c / k^2, so the bias "
                   "is c / k, k - 1 times that, and has to be added.")
def _(log_w):
    k = len(log_w)
    return bound(log_w) - (k - 1) * (bound(log_w) - leave_one_out(log_w, k - 1))


@jackknife.mistake("This is the bound with all k draws, as it was. Perhaps the k averages were averaged before the "
                   "logarithm: that gives the average of all weights again.")
def _(log_w):
    return bound(log_w)


@jackknife.mistake("This is twice the one bound minus the other, and most of c / k is still in it. The factors must "
                   "remove c / k and c / (k - 1): try k = 10.")
def _(log_w):
    return 2 * bound(log_w) - leave_one_out(log_w, len(log_w) - 1)


@jackknife.mistake("Only the last draw is left out here. Leave out each of the k in turn and average: the order of the "
                   "draws must not matter.")
def _(log_w):
    k = len(log_w)
    return k * bound(log_w) - (k - 1) * bound(log_w[:-1])


@jackknife.mistake("Only the first draw is left out here. Leave out each of the k in turn and average: the order of "
                   "the draws must not matter.")
def _(log_w):
    k = len(log_w)
    return k * bound(log_w) - (k - 1) * bound(log_w[1:])


@jackknife.mistake("The weights are exponentiated as they are: e^-2000 is zero in the computer, and its logarithm "
                   "minus infinity. Take log-sum-exp.")
def _(log_w):
    k, w = len(log_w), log_w.exp()
    rest = torch.stack([((w.sum(0) - some) / (k - 1)).log() for some in w]).mean(0)
    return k * w.mean(0).log() - (k - 1) * rest


warning = Exercise("11.5")


@warning.right
def _():
    where_q_goes = Normal(torch.tensor([-6.0, 6.0]).double(), 1.0).cdf(torch.tensor(0.0).double()).mean().log().item()
    return "c" if abs(where_q_goes + math.log(2)) < 1e-6 else "a"


warning.letters(
    a="Equal weights say that q has the shape of the posterior where q goes. They say nothing of where it "
      "does not go.",
    b="An average of weights is unbiased only if q is positive wherever p(x, z) is, and here it is. But "
      "its mean rests on draws near the other hump, and among 5,000 there is none. What do the others say?",
    d="Half of the mass is missing. What does half of p(x) do to its logarithm?")


PORTIONS = torch.tensor([[[-3.0, 0.5, -1.0], [-0.2, -2.4, 0.8]], [[-1.7, 1.9, -0.6], [-5.0, 0.3, 2.2]],
                         [[-0.9, -1.5, 1.1], [-2.2, 0.7, -3.3]]]).double()
AS_TWO = PORTIONS.transpose(0, 1).contiguous()  # `view` must not fail on it
portions = Exercise("11.6", cases=[(PORTIONS,), (AS_TWO - torch.tensor([100, 1000, 1500]),)])


@portions.right
def _(log_w):
    top = log_w.amax((0, 1))
    return -(top + (log_w - top).exp().mean((0, 1)).log()).mean()


@portions.mistake("This still averages the logarithms of the portions. For how many samples is that the bound?")
def _(log_w):
    return -(log_w.logsumexp(1) - math.log(log_w.shape[1])).mean()


@portions.mistake("The sum over all weights is divided by the number of a portion. With equal weights the result must "
                  "be -log w.")
def _(log_w):
    return -(log_w.logsumexp((0, 1)) - math.log(log_w.shape[1])).mean()


@portions.mistake("The sum over all weights is not divided by their number. That adds its logarithm to each "
                  "log-likelihood: 1.8 nats with the six weights here, 8.5 with 5,000.")
def _(log_w):
    return -log_w.logsumexp((0, 1)).mean()


@portions.mistake("The logarithm is taken after the images are averaged as well. First one number for each image, then "
                  "the mean over the images.")
def _(log_w):
    return -(log_w.flatten().logsumexp(0) - math.log(log_w.numel()))


@portions.mistake("The weights of different images are mixed: a reshape cuts the tensor in the order of its memory, "
                  "and the images come last in it. Change one image: only its own number may change.")
def _(log_w):
    rows = log_w.reshape(log_w.shape[2], -1)
    return -(rows.logsumexp(1) - math.log(rows.shape[1])).mean()


@portions.mistake("The weights are averaged over the portions only, and the logarithms over the draws of a portion. "
                  "One logarithm for each image, of the average over both.")
def _(log_w):
    return -(log_w.logsumexp(0) - math.log(len(log_w))).mean()


@portions.mistake("The sum over the draws of a portion is divided by the number of all draws. Sum over the portions as "
                  "well, before the logarithm.")
def _(log_w):
    return -(log_w.logsumexp(1) - math.log(log_w.shape[0] * log_w.shape[1])).mean()


@portions.mistake("The images are summed. The mean over them is asked for: twice the same images must not double it.")
def _(log_w):
    return portions.solution(log_w) * log_w.shape[2]


@portions.mistake("This is minus the mean of all log weights, the ELBO with its sign turned. Average the weights, then "
                  "take the logarithm.")
def _(log_w):
    return -log_w.mean()


@portions.mistake("Log 5,000 is subtracted, whatever the number of weights is. Here there are six for each image: take "
                  "the number from the shape.")
def _(log_w):
    return -(log_w.logsumexp((0, 1)) - math.log(5000)).mean()
