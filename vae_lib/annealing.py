"""log p(x) between two bounds, for images that the model drew itself: their z is an exact draw of the posterior.

From below come averages of weights with all draws from q, as in `evaluation`; from above, averages with the image's own
z among them. Importance weights meet slowly where q is bad; annealed ones lead the draws from q to the posterior in
small steps, there and back. Page 11.
"""

import math
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor
from tqdm.auto import tqdm

from vae_lib import latents
from vae_lib.evaluation import check_proposal, importance_estimates
from vae_lib.flow import FlowVAE
from vae_lib.guards import count, finite_or_stop, integer, takes, tensor
from vae_lib.modes import evaluating
from vae_lib.objectives import log_mean_exp, log_prior
from vae_lib.refinement import encoder_proposal, log_joint, stream

ACCEPTED = 0.65  # share of accepted moves that the warm-up aims at; Wu et al. 2017


class Sandwich(NamedTuple):
    """Bounds on log p(x) of each image, in nats, float64: lower is below and upper above it, each on average, (N,)."""

    lower: Tensor
    upper: Tensor | None


@takes(num_images=integer, seed=count)
def own_images(model, num_images, seed=0):
    """Images that the model draws, and the z of each: x (N, C, H, W), then z (N, latent_dim), on the model's device.

    p(z) is N(0, I) in this module: a FlowVAE raises ValueError, and is to be `folded` first. TypeError for no VAE.
    """
    _check_model(model)
    like = next(model.parameters())
    generator = stream(like.device, 4, seed)
    with evaluating(model):
        z = like.new_empty(num_images, model.latent_dim).normal_(generator=generator)
        return model.likelihood.sample(model.decoder(z), generator), z


@takes(num_samples=partial(integer, at_least=2), batch_size=integer)
def importance_sandwich(model, x, z, num_samples=500, q=None, batch_size=500, seed=0, progress=True):
    """Bounds on log p(x) from importance weights: the lower one of num_samples - 1, the upper one with z among them.

    z (N, latent_dim) is the one that each image of x (N, C, H, W) was drawn with, from N(0, I); other arguments, and
    errors, are those of `importance_estimates`. Networks run in float32, as z is a draw of that model's posterior. The
    bounds meet as num_samples grows. Equation (11.3) and exercise 11.1; Sobolev & Vetrov 2019.
    """
    _check_model(model)
    q = encoder_proposal(model, x, batch_size) if q is None else q
    check_proposal("q", q, x)
    tensor("z", z, len(x), q.loc.shape[-1])
    lower = importance_estimates(model, x, num_samples - 1, batch_size, seed, progress=progress, q=q).log_px
    device = next(model.parameters(), x).device
    with evaluating(model):
        log_w = torch.cat([log_joint(model, images.to(device), own.to(device).double())
                           for images, own in zip(x.split(batch_size), z.split(batch_size))])
    log_w = log_w.to(x.device) - q.to(x.device).log_prob(z.to(x.device))
    upper = torch.logaddexp(lower + math.log(num_samples - 1), log_w) - math.log(num_samples)
    finite_or_stop({"upper": upper}, latents.DIVERGED)
    return Sandwich(lower, upper)


@takes(temperatures=integer, chains=integer, leapfrogs=integer, batch_size=integer, seed=count)
def ais(model, x, z=None, q=None, temperatures=100, chains=8, leapfrogs=5, batch_size=500, seed=0, progress=True):
    """Bounds on log p(x) by annealed importance sampling, of each image; without its own z there is no upper one.

    x            (N, C, H, W); z (N, latent_dim), the one that each image was drawn with, or None
    q            where the chains start: a Proposal of one Gaussian an image, or None for the encoder's
    temperatures steps from q to the posterior: densities q(z|x)^(1 - b) p(x, z)^b, for b = 0, 1/T, ..., 1
    chains       for each image: weights are averaged over them before the logarithm
    leapfrogs    of each transition, by Hamiltonian Monte Carlo with q's covariance for its shape
    batch_size   chains that are decoded at a time

    Forwards, log w sums up log p(x, z) - log q(z|x), over T, along a chain from q. Backwards, from the posterior's draw
    z, the average of 1 / w is unbiased for 1 / p(x). Step sizes, one for each image and temperature, are found in a
    run of their own first; had they followed the chains that are weighed, neither would be a bound. All is in nats.
    Raises TypeError or ValueError for other types, shapes and ranges and for a FlowVAE, FloatingPointError for NaN.
    Neal 2001; Grosse, Ghahramani & Adams 2015 (bidirectional Monte Carlo); Wu, Burda, Salakhutdinov & Grosse 2017.
    """
    latents.check_vae(model, x)
    _check_model(model)
    q = encoder_proposal(model, x, batch_size) if q is None else q
    check_proposal("q", q, x)
    if q.loc.shape[1] != 1:
        raise ValueError(f"q: wanted one Gaussian an image, got a mixture of {q.loc.shape[1]}")
    if z is not None:
        tensor("z", z, len(x), q.loc.shape[-1])
    device = next(model.parameters(), x).device
    generator = torch.Generator(device).manual_seed(seed)
    betas = torch.linspace(0, 1, temperatures + 1, dtype=torch.float64)
    found = []
    with evaluating(model), tqdm(total=len(x), disable=not progress, unit="images", desc="ais") as bar:
        for chosen in torch.arange(len(x)).split(max(1, batch_size // chains)):
            images, start = x[chosen].to(device), q[chosen].to(device)
            target = partial(_target, model, images, start)
            run = partial(_run, target, betas, leapfrogs=leapfrogs, generator=generator)
            shape = chains, *start.loc[:, 0].shape
            noise = partial(torch.randn, shape, dtype=torch.float64, device=device, generator=generator)
            steps = torch.full((temperatures, len(images)), 0.3, dtype=torch.float64, device=device)
            run(noise(), steps, adapt=True)
            bounds = [log_mean_exp(run(noise(), steps))]
            if z is not None:
                u = torch.linalg.solve_triangular(
                    start.scale_tril[:, 0], (z[chosen].to(device) - start.loc[:, 0])[..., None], upper=False)[..., 0]
                bounds.append(-log_mean_exp(-run(u.expand(shape), steps, backwards=True)))
            found.append(torch.stack(bounds).to(x.device))
            bar.update(len(images))
    bounds = torch.cat(found, 1)
    finite_or_stop({"log_w": bounds}, latents.DIVERGED)
    return Sandwich(bounds[0], None if z is None else bounds[1])


def _check_model(model):
    latents.check_model(model)
    if isinstance(model, FlowVAE):
        raise ValueError("model: wanted a VAE with the prior N(0, I), got a FlowVAE: `folded` makes one of it")


def _target(model, x, q, u):
    """log p(x, z) of z = loc + scale_tril u, as a density of u, and its gradient: u (chains, N, latent_dim)."""
    with torch.enable_grad():
        u = u.detach().requires_grad_()
        log_density = log_joint(model, x, q.of_components(u[:, None])[:, 0])
        log_density = log_density + q.scale_tril[:, 0].diagonal(dim1=-2, dim2=-1).log().sum(-1)
        (slope,) = torch.autograd.grad(log_density.sum(), u)
    return log_density.detach(), slope


def _run(target, betas, u, steps, leapfrogs, generator, backwards=False, adapt=False):
    """log w of chains that go from N(0, I) to the target or, backwards, from the target: (chains, N).

    With adapt it changes `steps` (temperatures, N) on the way, by a tenth at each temperature: the later ones grow
    where more moves are accepted than ACCEPTED says, and shrink where fewer are.
    """
    log_w, state = 0.0, (u, *target(u))
    order = range(1, len(betas))
    for i in reversed(order) if backwards else order:
        if backwards and i < len(order):
            state, _ = _move(target, state, betas[i], steps[i], leapfrogs, generator)
        log_w = log_w + (betas[i] - betas[i - 1]) * (state[1] - log_prior(state[0]))
        if not backwards and i < len(order):
            state, accepted = _move(target, state, betas[i], steps[i], leapfrogs, generator)
            if adapt:
                factor = torch.where(accepted > ACCEPTED, 1.1, 0.9)
                steps[i:] *= factor
    return log_w


def _move(target, state, beta, step, leapfrogs, generator):
    """A transition that leaves N(0, I)^(1 - beta) target^beta as it is, and the share of chains that accepted, (N,)."""
    u, log_target, slope = state
    step = step[:, None]
    start = momentum = torch.randn(u.shape, dtype=u.dtype, device=u.device, generator=generator)
    new, new_log_target, new_slope = state
    for _ in range(leapfrogs):
        momentum = momentum + 0.5 * step * (beta * new_slope - (1 - beta) * new)
        new = new + step * momentum
        new_log_target, new_slope = target(new)
        momentum = momentum + 0.5 * step * (beta * new_slope - (1 - beta) * new)
    before = beta * log_target + (1 - beta) * log_prior(u) + log_prior(start)
    after = beta * new_log_target + (1 - beta) * log_prior(new) + log_prior(momentum)
    chance = torch.rand(before.shape, dtype=u.dtype, device=u.device, generator=generator)
    accepted = chance.log() < after - before
    moved = accepted[..., None]
    state = (torch.where(moved, new, u), torch.where(accepted, new_log_target, log_target),
             torch.where(moved, new_slope, slope))
    return state, accepted.double().mean(0)
