"""Appendix B: tests that find what is wrong with a run, and what they can and cannot tell."""

import math

import torch
from scipy.stats import ttest_rel
from torch import nn
from torch.distributions import Normal, kl_divergence

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


@running.mistake("In PyTorch `momentum` is the share of the new value: 0.1 come in, and 0.9 stay.")
def _():
    return [100 * 0.1**25, 3, 9 - 8 * 0.1**25]


@running.mistake("Not a tenth of the start goes in each step, but a tenth of what is left.")
def _():
    return [0, 10, 9]


@running.mistake("After 43 steps 1.08 % are left, so it takes one more.")
def _():
    return [100 * 0.9**25, 43, 9 - 8 * 0.9**25]


@running.mistake("The third mixes 1 and 9 the wrong way round: what is left of the start is the small share.")
def _():
    return [100 * 0.9**25, 44, 1 + 8 * 0.9**25]


vitals = Exercise("B.3", cases=[
    (torch.tensor([[2.0, 1.0, 0.0], [-1.5, 1.0, 0.02]]).double(),
     torch.tensor([[-3.0, 0.0, -0.1], [-2.0, 0.0, 0.04]]).double()),
    (torch.tensor([[1.0, 0.19], [-1.0, 0.0], [1.0, 0.0], [0.0, 0.0]]).double(),
     torch.tensor([[-1.0, 0.0], [-2.0, 0.0], [-1.0, 0.0], [0.0, 0.0]]).double())])


def _three(kl, square, counted=None):
    active = ((kl if counted is None else counted) > 0.01).sum()
    return torch.stack([kl.sum(), active.double(), square.mean()])


@vitals.right
def _(mu, log_var):
    q = Normal(mu, log_var.exp().sqrt())
    return _three(kl_divergence(q, Normal(0.0, 1.0)).mean(0), q.mean**2 + q.variance)


def _kl(mu, log_var):
    return 0.5 * (mu**2 + log_var.exp() - log_var - 1)


@vitals.mistake("A latent counts as active here if one image uses it. Average its KL over the images before you "
                "compare.")
def _(mu, log_var):
    return _three(_kl(mu, log_var).mean(0), mu**2 + log_var.exp(), _kl(mu, log_var).amax(0))


@vitals.mistake("The KL is averaged over the latents. It is a sum: each latent has its own price.")
def _(mu, log_var):
    kl = _kl(mu, log_var).mean(0)
    return _three(kl, mu**2 + log_var.exp()) * torch.tensor([1 / len(kl), 1, 1])


@vitals.mistake("The mean square leaves the width of q out. Draws of q scatter by sigma squared around mu.")
def _(mu, log_var):
    return _three(_kl(mu, log_var).mean(0), mu**2)


@vitals.mistake("The square has log_var where its exponential belongs.")
def _(mu, log_var):
    return _three(_kl(mu, log_var).mean(0), mu**2 + log_var)


@vitals.mistake("This counts the latents whose mean varies. Here a latent is active if its average KL exceeds 0.01.")
def _(mu, log_var):
    return _three(_kl(mu, log_var).mean(0), mu**2 + log_var.exp(), mu.var(0))


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
    d="The codes of a fresh encoder differ by little and the noise between them is as wide as the prior, so they tell "
      "next to nothing about the image.")

paired = Exercise("B.5", cases=[
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


@paired.mistake("This is the standard deviation of a difference. That of a mean of N is smaller by the root of N.")
def _(first, second):
    return [(first - second).mean(), (first - second).std()]


@paired.mistake("The standard deviation divides by N - 1, since the mean was estimated from the same images.")
def _(first, second):
    return [(first - second).mean(), ((first - second).var(correction=0) / len(first)).sqrt()]


@paired.mistake("The standard deviation is divided by N, not by the root of N.")
def _(first, second):
    return [(first - second).mean(), (first - second).std() / len(first)]


@paired.mistake("The order is turned: a positive number should mean that the first is better.")
def _(first, second):
    return [(second - first).mean(), (second - first).std() / len(first) ** 0.5]
