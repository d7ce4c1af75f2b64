"""Page 00: densities of Gaussians, probabilities of black and white pixels, and a blend of latents."""

import math
from functools import partial

import torch
from scipy.integrate import quad
from torch.distributions import Bernoulli, Normal
from torch.nn.functional import binary_cross_entropy_with_logits

from vae_lib.answers import Exercise

reals = partial(torch.tensor, dtype=torch.float64)
units = Exercise("0.1", rtol=2e-4)
gradient = Exercise("0.2", cases=[(1.0, 0.7), (0.0, -1.3), (0.3, 2.1)])
grey = Exercise("0.3")
blending = Exercise("0.4", cases=[
    (reals([1.3, -0.4]), reals([0.2, 2.0]), reals([0.0, 0.3, 1.0])),
    (reals([0.5, 1.1, -0.7]), reals([-1.9, 0.6, 0.8]), reals([0.85]))])
larger = Exercise("0.5")
clamped = Exercise("0.6", cases=[
    (reals([[[[0, 1], [1, 0]]]]), reals([[[[0.3, -1.2], [0.0, 0.6]]]])),
    (reals([[[[0, 1]]], [[[1, 0]]]]), reals([[[[20, 40]]], [[[-90, 700]]]])),
    (reals([[[[1, 0, 1, 0]]]]), reals([[[[-1000, 1000, 1000, -1000]]]]))], gradient=1)


@units.right
def _():
    on_unit, on_bytes = Normal(reals(0.3), reals(0.2)), Normal(reals(255 * 0.3), reals(255 * 0.2))
    return 784 * (on_bytes.log_prob(reals(255 * 0.4)) - on_unit.log_prob(reals(0.4)))


@units.mistake("This is the change of one pixel. The logarithm of a product of 784 densities is a sum of 784 terms.")
def _():
    return -math.log(255)


@units.mistake("The sign is turned. Stretched over 255 times the length, a density is lower everywhere.")
def _():
    return 784 * math.log(255)


@units.mistake("The variance grows by 255 squared, but in (0.1) its logarithm stands behind a factor one half.")
def _():
    return -784 * math.log(255**2)


@gradient.right
def _(x, a):
    a = reals(a, requires_grad=True)
    return torch.autograd.grad(x * a - torch.log1p(a.exp()), a)[0]


@gradient.mistake("The sign is turned: where the pixel is white, a larger logit must raise the log probability.")
def _(x, a):
    return 1 / (1 + math.exp(-a)) - x


@gradient.mistake("The derivative of softplus(a) is not a itself: at a = 0 it is one half.")
def _(x, a):
    return x - a


@gradient.mistake("This is the derivative of x p. Differentiate the logarithm, in which x a stands alone.")
def _(x, a):
    p = 1 / (1 + math.exp(-a))
    return x * p * (1 - p)


@grey.right
def _():
    return [quad(lambda x, a: math.exp(x * a) / (1 + math.exp(a)), 0, 1, (a,))[0] for a in (0.0, 2.0)]


@grey.mistake("A density would give one, but (0.2) adds up to one over the values 0 and 1, not over all between.")
def _():
    return [1.0, 1.0]


@grey.mistake("The softplus is missing: it divides by 1 + exp(a).")
def _():
    return [quad(lambda x, a: math.exp(x * a), 0, 1, (a,))[0] for a in (0.0, 2.0)]


@grey.mistake("The first is right. The second depends on a: the integrand is exp(x a) over 1 + exp(a).")
def _():
    return [0.5, 0.5]


@blending.right
def _(first, second, mix):
    return torch.stack([torch.lerp(first, second, share) for share in mix])


@blending.mistake("The weights are exchanged: mix is the share of the second row, and at 0 only the first is left.")
def _(first, second, mix):
    return mix[:, None] * first + (1 - mix)[:, None] * second


@blending.mistake("One row belongs to each share: shape (M, J). Here the blends are columns.")
def _(first, second, mix):
    return ((1 - mix) * first[:, None] + mix * second[:, None])


@blending.mistake("The first row keeps its full weight. The two weights must add up to one.")
def _(first, second, mix):
    return first + mix[:, None] * second


@larger.right
def _():
    x, logits = reals([[0, 1], [1, 1]]), reals([[0.4, -1], [2, 0.1]])
    small, large = (Bernoulli(logits=torch.kron(logits, square)).log_prob(torch.kron(x, square)).sum()
                    for square in (reals([[1]]), reals([[1, 1], [1, 1]])))
    return {1: "a", 2: "b", 4: "c"}.get(round((large / small).item()), "d")


larger.letters(
    a="That would hold for a mean over the pixels. The course takes sums, and there are more pixels now.",
    b="The sides double, but the sum runs over the area.",
    d="Count the pixels again. The prior and the decoder's statement about each pixel are what they were.")


@clamped.right
def _(x, logits):
    return -binary_cross_entropy_with_logits(logits, x, reduction="none").sum((-3, -2, -1))


@clamped.mistake("This is the clamped formula: no pixel can cost more than 16.1 nats, and there its gradient is zero.")
def _(x, logits):
    probs = logits.sigmoid().clamp(1e-7, 1 - 1e-7)
    return (x * probs.log() + (1 - x) * (1 - probs).log()).sum((-3, -2, -1))


@clamped.mistake("The values are right, but the gradient stops where the logits are clamped, as in the cell above.")
def _(x, logits):
    held = logits.clamp(-16, 16)
    return clamped.solution(x, held + (logits - held).detach())


@clamped.mistake("The values are right. The gradient is not where a logit is 0: `clamp`, `relu` and `abs` have a "
                 "corner there, and softplus has none.")
def _(x, logits):
    return (x * logits - logits.clamp_min(0) - (-logits.abs()).exp().log1p()).sum((-3, -2, -1))


@clamped.mistake("The exponential overflows at a logit of 1,000: log(1 + exp(a)) is infinite there. `softplus` is not.")
def _(x, logits):
    return (x * logits - (1 + logits.exp()).log()).sum((-3, -2, -1))


@clamped.mistake("The sigmoid is rounded to 0 at such logits. Its logarithm is minus infinity, 0 times which is nan.")
def _(x, logits):
    return (x * logits.sigmoid().log() + (1 - x) * (-logits).sigmoid().log()).sum((-3, -2, -1))


@clamped.mistake("This is the loss, not the log probability: no log probability of pixels is above zero.")
def _(x, logits):
    return -clamped.solution(x, logits)


@clamped.mistake("This is a mean over the pixels. Wanted is their sum, one for each image.")
def _(x, logits):
    return clamped.solution(x, logits) / x[0].numel()
