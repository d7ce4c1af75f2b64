"""Appendix A: what the article's loss says about its pixels, and how its numbers and pictures are to be read."""

import math

import torch
from scipy.stats import norm
from torch.distributions import Normal

from vae_lib.answers import Exercise

claims = Exercise("A.1", cases=[(1.0, -1.0, 1.0), (3.0, 0.0, 1.0), (0.02, 0.0, 255.0)])


@claims.right
def _(weight, low, high):
    pixel = torch.tensor(0.4, dtype=torch.float64, requires_grad=True)  # on [0, 1]; the loss is quadratic in it
    loss = weight * ((high - low) * pixel) ** 2
    slope = torch.autograd.grad(loss, pixel, create_graph=True)[0]
    return torch.autograd.grad(slope, pixel)[0] ** -0.5  # minus the log density has the second derivative 1 / s^2


@claims.mistake("The factor 2 is missing: in the log density the squared error is divided by twice the variance.")
def _(weight, low, high):
    return weight**-0.5 / (high - low)


@claims.mistake("This is the standard deviation in the unit of the pixels as they are. Asked is the one on [0, 1].")
def _(weight, low, high):
    return (2 * weight) ** -0.5


@claims.mistake("This is the variance. Asked is its root.")
def _(weight, low, high):
    return 1 / (2 * weight * (high - low) ** 2)


@claims.mistake("The range is multiplied in that should be divided out: on a shorter scale the deviation is smaller.")
def _(weight, low, high):
    return (2 * weight) ** -0.5 * (high - low)


@claims.mistake("A deviation is a distance. It is divided by the length of the range, and low is not taken off.")
def _(weight, low, high):
    return ((2 * weight) ** -0.5 - low) / (high - low)


outside = Exercise("A.2")


@outside.right
def _():
    std = 1 / norm.isf(0.005)
    return [0.5 / std**2, norm.sf(1, 0.8, std) + norm.cdf(-1, 0.8, std)]


@outside.mistake("One per cent is put above 1 alone. The draws leave on both sides, half a per cent on each.")
def _():
    std = 1 / norm.isf(0.01)
    return [0.5 / std**2, norm.sf(1, 0.8, std)]


@outside.mistake("The weight is 1 over twice the variance, not 1 over the variance.")
def _():
    weight, share = outside.solution()
    return [2 * weight, share]


@outside.mistake("The second is twice too large: from a mean of 0.8 the lower edge is far away, and hardly a draw "
                 "leaves there.")
def _():
    weight, share = outside.solution()
    return [weight, 2 * share]


@outside.mistake("The first is the standard deviation. Asked is the weight, 1 over twice its square.")
def _():
    weight, share = outside.solution()
    return [(2 * weight) ** -0.5, share]


@outside.mistake("The second is a percentage. Asked is a share, between 0 and 1.")
def _():
    weight, share = outside.solution()
    return [weight, 100 * share]


@outside.mistake("The second is the share that stays inside.")
def _():
    weight, share = outside.solution()
    return [weight, 1 - share]


@outside.mistake("The second is for the article's own weight, 1. Asked is the weight that you have found.")
def _():
    std = 0.5**0.5
    return [outside.solution()[0], norm.sf(1, 0.8, std) + norm.cdf(-1, 0.8, std)]


levels = Exercise("A.3", cases=[(torch.tensor([[-1.0, -0.503], [0.3, 1.0]]).double(),),
                               (torch.tensor([-1.4, -0.992, -0.8384, -0.01, 0.5, 0.77, 1.25]).double(),)])


@levels.right
def _(images):
    between = (torch.arange(255, dtype=torch.float64) + 0.5) / 127.5 - 1  # where one level ends and the next begins
    return torch.bucketize(images, between)


@levels.mistake("This cuts all negative values off, as a save without rescaling does: what is below mid-grey is "
                "black.")
def _(images):
    return (255 * images.clamp(0, 1)).round()


@levels.mistake("Values outside [-1, 1] are not cut. As bytes they would begin again from the other end.")
def _(images):
    return (127.5 * (images + 1)).round()


@levels.mistake("The levels are rounded down. Then 255 is given for exactly 1 alone, and where grey values are spread "
                "evenly they lose half a level on average.")
def _(images):
    return (127.5 * (images.clamp(-1, 1) + 1)).floor()


@levels.mistake("The range is cut into 256 equal bins. Levels lie at its ends too, so there are 255 steps between them "
                "all, and each value goes to the nearest.")
def _(images):
    return (128 * (images + 1)).floor().clamp(0, 255)


@levels.mistake("This is the grey value on [0, 1], not yet one of 256 levels.")
def _(images):
    return (images.clamp(-1, 1) + 1) / 2


curve = Exercise("A.4")


@curve.right
def _():
    sizes = [len(batch) for batch in torch.arange(60_000).split(128)]
    return {1.0: "a", 0.75: "b", 0.5: "d"}.get(sizes[-1] / sizes[0], "c")


curve.letters(
    a="That holds for a mean over the batch. This curve shows sums, and the last batch has fewer images.",
    c="A sum over fewer images is smaller, not larger.",
    d="Count the images that are left: 60,000 less 468 batches of 128.")

unit = Exercise("A.5", cases=[(1127.0, 4096), (95.0, 784), (30.0, 10)])


@unit.right
def _(loss, pixels):
    error = math.sqrt(loss / pixels)  # as if all pixels were off by the same, on [-1, 1], and there were no KL
    return -pixels * Normal(0.0, math.sqrt(0.5) / 2).log_prob(torch.tensor(error).double() / 2)


@unit.mistake("This is minus the ELBO on [-1, 1]. The other program has its pixels on [0, 1], where densities are "
              "twice as high.")
def _(loss, pixels):
    return loss + pixels / 2 * math.log(math.pi)


@unit.mistake("This is `broken`: the constant of the Gaussian is missing, and the unit of the pixels is another.")
def _(loss, pixels):
    return loss


@unit.mistake("The difference depends on the number of pixels. This one is for 4,096.")
def _(loss, pixels):
    return loss + 2048 * math.log(math.pi) - 4096 * math.log(2)


@unit.mistake("The loss is in nats already. The change of unit changes the density, not the error over its variance.")
def _(loss, pixels):
    return loss / 4 + pixels / 2 * math.log(math.pi) - pixels * math.log(2)


@unit.mistake("The change of unit has the wrong sign. On the shorter scale a density is higher, so its loss is lower.")
def _(loss, pixels):
    return loss + pixels / 2 * math.log(math.pi) + pixels * math.log(2)


@unit.mistake("The unit is changed, but the constant of the Gaussian is still missing.")
def _(loss, pixels):
    return loss - pixels * math.log(2)


@unit.mistake("The unit was changed for one pixel. There is a log 2 for each of them.")
def _(loss, pixels):
    return loss + pixels / 2 * math.log(math.pi) - math.log(2)
