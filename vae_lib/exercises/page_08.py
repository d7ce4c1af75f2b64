"""Page 08: the first VAE on MNIST, beside an autoencoder."""

import math
from itertools import combinations

import numpy as np
import torch
from scipy.optimize import minimize_scalar
from scipy.spatial import cKDTree
from torch.distributions import Bernoulli, Binomial, Normal, kl_divergence
from torch.nn.functional import softplus

from vae_lib.answers import Exercise


def _normal(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


one_batch = Exercise("8.1", cases=[(10 * _normal(6), 2), (10 * _normal(8, seed=1), 5)])


@one_batch.right
def _(b, M):
    sums = torch.stack([b[list(batch)].sum() for batch in combinations(range(len(b)), M)])
    return (len(b) / M * sums).var(correction=0)


@one_batch.mistake("This variance is not zero at M = N, where each batch holds all images. Two images of a batch are "
                   "not independent: no image is drawn twice.")
def _(b, M):
    return len(b) ** 2 / M * b.var()


@one_batch.mistake("The spread of the b_n has the divisor N here. Try N = 2 and M = 1, where the two estimates are "
                   "2 b_1 and 2 b_2.")
def _(b, M):
    return one_batch.solution(b, M) * (len(b) - 1) / len(b)


@one_batch.mistake("This is the variance of the batch's mean. The estimate stands for the sum over all N images.")
def _(b, M):
    return one_batch.solution(b, M) / len(b) ** 2


@one_batch.mistake("This is the variance of the batch's sum. The estimate is N/M times that sum.")
def _(b, M):
    return one_batch.solution(b, M) * (M / len(b)) ** 2


@one_batch.mistake("The factor N/M is not squared. A variance is an average of squares.")
def _(b, M):
    return one_batch.solution(b, M) * M / len(b)


@one_batch.mistake("This is the standard deviation. The variance is asked for.")
def _(b, M):
    return one_batch.solution(b, M).sqrt()


thousand = Exercise("8.2")


def _moved(factor, adam):
    """How far ten steps lead that climb a parabola, times a factor."""
    weight, m, v = 0.3, 0.0, 0.0
    for t in range(1, 11):
        g = -2 * factor * (weight - 1)
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g**2
        weight += 1e-6 * (m / (1 - 0.9**t) / (math.sqrt(v / (1 - 0.999**t)) + 1e-8) if adam else g)
    return weight - 0.3


@thousand.right
def _():
    adam, plain = (round(math.log10(_moved(1000, adam) / _moved(1, adam))) for adam in (True, False))
    return {(3, 3): "a", (0, 0): "b", (0, 3): "c", (-3, 3): "d"}[adam, plain]


thousand.letters(
    a="Of the plain rule that is true. For Adam, put 1,000 g into (8.3): what becomes of m, and what of "
      "the root of v?",
    b="The factor does leave the highest point where it is. But a step is no jump to that point: the plain "
      "one is eta times g.",
    d="It is true that v grows a million times. But what divides the step is its root, and m grows too.")


holes = Exercise("8.3", cases=[
    (4 * _normal(400, 2), 1.5 * _normal(143, 2, seed=1) ** 3, 1.5 * _normal(90, 2, seed=2) ** 3, 0.8),
    (3 * _normal(400, 2), _normal(143, 2, seed=3), _normal(90, 2, seed=4), 0.7)])


@holes.right
def _(draws, codes, seen_codes, level):
    tree = cKDTree(seen_codes)
    return np.mean(tree.query(draws)[0] > np.quantile(tree.query(codes)[0], level))


@holes.mistake("This is the share of the draws that lie in no hole.")
def _(draws, codes, seen_codes, level):
    return 1 - holes.solution(draws, codes, seen_codes, level)


@holes.mistake("The limit comes from the draws' own distances here, so the share is 1 - level, wherever they lie.")
def _(draws, codes, seen_codes, level):
    return holes.solution(draws, draws, seen_codes, level)


@holes.mistake("Here 1 - level stands where level belongs: a limit that few codes keep makes holes everywhere.")
def _(draws, codes, seen_codes, level):
    return holes.solution(draws, codes, seen_codes, 1 - level)


@holes.mistake("The distance to all codes is averaged. In a hole even the nearest code is far.")
def _(draws, codes, seen_codes, level):
    far = torch.cdist(codes, seen_codes).mean(1).quantile(level)
    return (torch.cdist(draws, seen_codes).mean(1) > far).double().mean()


@holes.mistake("The minimum runs over the draws: this is a share of codes that no draw comes near. A hole has draws "
               "and no codes.")
def _(draws, codes, seen_codes, level):
    far = torch.cdist(codes, seen_codes).min(1).values.quantile(level)
    return (torch.cdist(draws, seen_codes).min(0).values > far).double().mean()


@holes.mistake("The distances are those to `codes`. Both must be to `seen_codes`, or the limit means nothing.")
def _(draws, codes, seen_codes, level):
    far = torch.cdist(codes, seen_codes).min(1).values.quantile(level)
    return (torch.cdist(draws, codes).min(1).values > far).double().mean()


code_noise = Exercise("8.4", rtol=1e-4, cases=[
    (_normal(5, 3), 0.7, _normal(3, seed=1).exp()), (0.4 * _normal(6, 2, seed=2), 0.3, 4 * _normal(2, seed=3).exp())])


def _minus_elbo(log_s, W, variance, prior_var):
    """At s, for the image of ones and a code of 0.3; the average of a quadratic is that over 2 J points."""
    latents, s = W.shape[1], torch.tensor(log_s, dtype=torch.float64).exp()
    code = torch.full((latents,), 0.3, dtype=torch.float64)
    steps = s * math.sqrt(latents) * torch.eye(latents, dtype=torch.float64)
    means = torch.cat([code + steps, code - steps]) @ W.T
    log_px_given_z = Normal(means, math.sqrt(variance)).log_prob(torch.ones(len(W))).sum(1).mean()
    return (kl_divergence(Normal(code, s), Normal(0.0, prior_var.sqrt())).sum() - log_px_given_z).item()


@code_noise.right
def _(W, variance, prior_var):
    return math.exp(minimize_scalar(_minus_elbo, bounds=(-6, 2), args=(W, variance, prior_var), method="bounded",
                                    options={"xatol": 1e-6}).x)


@code_noise.mistake("This is the variance s². The standard deviation s is asked for.")
def _(W, variance, prior_var):
    return code_noise.solution(W, variance, prior_var) ** 2


@code_noise.mistake("The prior counts as N(0, I) here. Its variances are those that were fitted to the codes.")
def _(W, variance, prior_var):
    return code_noise.solution(W, variance, torch.ones_like(prior_var))


@code_noise.mistake("The term -log s stands once here. The divergence has one for each latent.")
def _(W, variance, prior_var):
    return code_noise.solution(W, variance, prior_var) / math.sqrt(W.shape[1])


@code_noise.mistake("A factor 1/2 is out of place: the curvature of the squared error is 1/variance, not half of it.")
def _(W, variance, prior_var):
    return code_noise.solution(W, 2 * variance, prior_var)


@code_noise.mistake("The decoder's variance is missing: a noisy decoder must bear more noise on the code.")
def _(W, variance, prior_var):
    return code_noise.solution(W, 1.0, prior_var)


all_pairs = Exercise("8.5", cases=[
    (_normal(3, 4, 5).gt(0).double(), _normal(3, 1, 4, 5, seed=1)),
    (_normal(2, 1, 4, 5).gt(0).double(), _normal(2, 1, 4, 5, seed=2)),
    (_normal(1, 4, 5).gt(0).double(), _normal(1, 1, 4, 5, seed=1))])


@all_pairs.right
def _(x, logits):
    return [Bernoulli(logits=output.flatten()).log_prob(image.flatten()).sum() for image, output in zip(x, logits)]


@all_pairs.mistake("This is the function as it stood. Print the shape of `x * logits`.")
def _(x, logits):
    return (x * logits - softplus(logits)).sum((-3, -2, -1))


@all_pairs.mistake("Divided by the number of images the size is right. But each output still meets all images.")
def _(x, logits):
    return (x * logits - softplus(logits)).sum((-3, -2, -1)) / len(x)


@all_pairs.mistake("With one image `squeeze` drops its dimension too. One number for each image is wanted, for one "
                   "image in the shape (1,).")
def _(x, logits):
    x, logits = x.squeeze(), logits.squeeze()
    return (x * logits - softplus(logits)).sum((-2, -1))


@all_pairs.mistake("The pixels are averaged. The log probabilities of independent pixels add up.")
def _(x, logits):
    return torch.stack(all_pairs.solution(x, logits)) / logits[0].numel()


@all_pairs.mistake("The sum runs over the images too. One number for each image is wanted.")
def _(x, logits):
    return sum(all_pairs.solution(x, logits))


@all_pairs.mistake("The sign is that of a loss. A log probability of bits is never above zero.")
def _(x, logits):
    return -torch.stack(all_pairs.solution(x, logits))


highest = Exercise("8.6", rtol=2e-4)


@highest.right
def _():
    counts, white = torch.arange(785.0, dtype=torch.float64), torch.tensor(0.13, dtype=torch.float64)
    log_p = counts * white.log() + (784 - counts) * (1 - white).log()
    return [Binomial(784, white).log_prob(counts).exp() @ log_p, log_p[0]]


@highest.mistake("These are bits. In nats the logarithm is the natural one.")
def _():
    return [number / math.log(2) for number in highest.solution()]


@highest.mistake("Both are those of a single pixel. The image has 784.")
def _():
    return [number / 784 for number in highest.solution()]


@highest.mistake("The second is the image of white pixels alone.")
def _():
    return [highest.solution()[0], 784 * math.log(0.13)]


@highest.mistake("In the first only the white pixels count. The black ones are no certainty either.")
def _():
    return [784 * 0.13 * math.log(0.13), 784 * math.log(0.87)]


@highest.mistake("The first is the logarithm of the average probability. The average of the logarithm is lower.")
def _():
    return [784 * math.log(0.13**2 + 0.87**2), 784 * math.log(0.87)]


@highest.mistake("The two are exchanged: the average comes first. The black image is the most probable of all, so its "
                 "-109.2 nats are the higher number, beside -302.9.")
def _():
    return highest.solution()[::-1]
