"""Appendix B: tests that find what is wrong with a run, and what they can and cannot tell."""

import math

import torch
from scipy.stats import ttest_rel
from torch import nn

from vae_lib.answers import Exercise
from vae_lib.models import dense_vae
from vae_lib.objectives import elbo

limit = Exercise("B.1", cases=[(2, 0.6), (16, 0.3), (2, -0.6), (5, -0.2)])


@limit.right
def _(pixels, r):
    matrix = torch.full((pixels, pixels), r).fill_diagonal_(1.0)
    return torch.linalg.eigvalsh(matrix).max()


@limit.mistake("This is right for r above 0. Below 0 it is the smallest eigenvalue, and any direction whose entries "
               "add up to zero has a larger one.")
def _(pixels, r):
    return 1 + (pixels - 1) * r


@limit.mistake("A pixel has the correlation r with the other pixels only. With itself it is 1, which stands there "
               "already.")
def _(pixels, r):
    return max(1 + pixels * r, 1 - r)


@limit.mistake("This is the eigenvalue of the vectors whose entries add up to zero. For r above 0 the vector of ones "
               "has a larger one.")
def _(pixels, r):
    return 1 - r


@limit.mistake("The matrix of ones has the eigenvalue D, but r times it is not the whole matrix: on its diagonal "
               "stands 1.")
def _(pixels, r):
    return pixels * r


@limit.mistake("This is a bound on every eigenvalue, and for r below 0 and more than two pixels none reaches it.")
def _(pixels, r):
    return 1 + (pixels - 1) * abs(r)


@limit.mistake("This is the sum of all eigenvalues, the trace.")
def _(pixels, r):
    return float(pixels)


@limit.mistake("This is the smallest eigenvalue. A code helps as soon as the largest one exceeds the weight.")
def _(pixels, r):
    return min(1 + (pixels - 1) * r, 1 - r)


running = Exercise("B.2")


@running.right
def _():
    layer, batch = nn.BatchNorm1d(1), torch.tensor([[-1.0], [1.0]]) * math.sqrt(4.5)  # its variance is 9
    seen = []
    for _ in range(60):
        layer(batch)
        seen.append(layer.running_var.item())
    left = [(9 - value) / 8 for value in seen]
    return [100 * left[24], 1 + next(i for i, share in enumerate(left) if share < 0.01), seen[24]]


@running.mistake("Not a tenth of the start goes in each step, but a tenth of what is left.")
def _():
    return [0, 10, 9]


@running.mistake("The old value counts 0.9 and the new one 0.1, not the other way round.")
def _():
    return [100 * 0.1**25, 3, 9 - 8 * 0.1**25]


@running.mistake("The second is where the weight is one per cent exactly. Steps are whole, so round up.")
def _():
    return [100 * 0.9**25, math.log(0.01) / math.log(0.9), 9 - 8 * 0.9**25]


@running.mistake("The first is a share. Asked is a number of per cent.")
def _():
    return [0.9**25, 44, 9 - 8 * 0.9**25]


@running.mistake("The first is what has arrived. Asked is what is left of the start.")
def _():
    return [100 - 100 * 0.9**25, 44, 9 - 8 * 0.9**25]


@running.mistake("These are the numbers after 24 steps. The first step already takes a tenth of the start away.")
def _():
    return [100 * 0.9**24, 44, 9 - 8 * 0.9**24]


@running.mistake("The third is a standard deviation. Asked is the variance.")
def _():
    return [100 * 0.9**25, 44, math.sqrt(9 - 8 * 0.9**25)]


@running.mistake("After 43 steps 1.08 % are left, so it takes one more.")
def _():
    return [100 * 0.9**25, 43, 9 - 8 * 0.9**25]


@running.mistake("The third mixes 1 and 9 the wrong way round: what is left of the start is the small share.")
def _():
    return [100 * 0.9**25, 44, 1 + 8 * 0.9**25]


others = Exercise("B.3", cases=[
    (torch.tensor([[-80.0, -300.0, -250.0], [-310.0, -95.0, -200.0], [-180.0, -400.0, -120.0]]).double(),),
    (torch.tensor([[-1.0, -2.5], [-4.0, -1.5]]).double(),)])


@others.right
def _(log_px_given_z):
    rows = enumerate(log_px_given_z)
    return torch.stack([row[i] - torch.cat([row[:i], row[i + 1:]]).mean() for i, row in rows])


@others.mistake("The image's own code is among those that are averaged over. There are N - 1 others.")
def _(log_px_given_z):
    return log_px_given_z.diagonal() - log_px_given_z.mean(1)


@others.mistake("This averages over columns: one code for all images. Wanted is one image under the codes of the "
                "others, a row.")
def _(log_px_given_z):
    return others.solution(log_px_given_z.T)


@others.mistake("This is the loss against the best of the others. Wanted is their average.")
def _(log_px_given_z):
    apart = log_px_given_z.clone().fill_diagonal_(-torch.inf)
    return log_px_given_z.diagonal() - apart.amax(1)


@others.mistake("The sign is turned: an image is better off with its own code, and the number should be positive.")
def _(log_px_given_z):
    return -others.solution(log_px_given_z)


@others.mistake("The others are added up. Divide by their number, N - 1.")
def _(log_px_given_z):
    return 2 * log_px_given_z.diagonal() - log_px_given_z.sum(1)


@others.mistake("This is averaged over the images. Each image has a number of its own.")
def _(log_px_given_z):
    return others.solution(log_px_given_z).mean()


held = Exercise("B.4")


@held.right
def _():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        vae, x = dense_vae((1, 4, 4), hidden=(16,), latent_dim=4), torch.zeros(200, 1, 4, 4)
        x[:, :, :2] = (torch.rand(200, 1, 1, 1) < 0.5).double()  # the upper half is white, or it is not
        before = elbo(vae, x)
        optimizer = torch.optim.Adam(vae.decoder.parameters(), lr=0.01)
        for _ in range(100):
            optimizer.zero_grad()
            (-elbo(vae, x).elbo.mean()).backward()
            optimizer.step()
        after = elbo(vae, x)
    learned = bool(after.log_px_given_z.mean() > before.log_px_given_z.mean() + 2)
    return {(False, True): "a", (True, True): "b", (True, False): "c"}[learned, torch.equal(before.kl, after.kl)]


held.letters(
    a="The decoder does learn: at least which pixels are often white. That is worth hundreds of nats.",
    c="What would move the KL? It depends on the encoder's weights alone, and the optimiser does not hold them.",
    d="The codes of a fresh encoder hardly differ, and the noise around each is as wide as the prior, so they tell "
      "next to nothing about the image.")

paired = Exercise("B.5", rtol=1e-4, cases=[
    (torch.tensor([-80.0, -120.0, -95.0, -140.0]).double(), torch.tensor([-82.0, -121.5, -98.0, -141.0]).double()),
    (torch.tensor([-1.0, 2.0, 4.0, -3.0, 0.5]).double(), torch.tensor([1.5, 2.5, -4.0, 0.0, -0.5]).double())])


@paired.right
def _(first, second):
    result = ttest_rel(first.numpy(), second.numpy())
    mean = (first.numpy() - second.numpy()).mean()
    return [mean, mean / result.statistic]


@paired.mistake("This is `broken`: it treats the two runs as if they had seen different images. How hard an image is "
                "counts in both, and cancels in the difference.")
def _(first, second):
    return [first.mean() - second.mean(), ((first.var() + second.var()) / len(first)).sqrt()]


@paired.mistake("This is the standard deviation of one difference. That of a mean of N is less: divide by the root of "
                "N.")
def _(first, second):
    return [(first - second).mean(), (first - second).std()]


@paired.mistake("The variance divides by N - 1, since the mean was estimated from the same images.")
def _(first, second):
    return [(first - second).mean(), ((first - second).var(correction=0) / len(first)).sqrt()]


@paired.mistake("The standard deviation is divided by N, not by the root of N.")
def _(first, second):
    return [(first - second).mean(), (first - second).std() / len(first)]


@paired.mistake("The second is a variance. The standard error is its root.")
def _(first, second):
    return [(first - second).mean(), (first - second).var() / len(first)]


@paired.mistake("The order is turned: a positive number should mean that the first is better.")
def _(first, second):
    return [(second - first).mean(), (second - first).std() / len(first) ** 0.5]
