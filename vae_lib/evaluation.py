"""How good a trained model is: its ELBO on held-out images, and its likelihood by importance sampling (pages 09 to 11).

Nothing here trains: models are put in evaluation mode, without gradients, and get the mode they were in back.
Random draws come from generators of their own: one seed gives one result, and the global stream stays put.
"""

import math
from typing import NamedTuple

import torch
from tqdm.auto import tqdm

from vae_lib import latents
from vae_lib.flow import FlowVAE
from vae_lib.gaussian import kl_to_standard_normal, reparameterize
from vae_lib.guards import count, density, finite_or_stop, function, integer, optional, takes, tensor
from vae_lib.modes import evaluating
from vae_lib.objectives import elbo, log_prior, log_ratio, log_weights, sample_posterior


class HeldOut(NamedTuple):
    """Means over images of the ELBO and its two parts, and the ELBO's standard error over images, in nats."""

    elbo: float
    log_px_given_z: float
    kl: float
    stderr: float


class ImportanceEstimates(NamedTuple):
    """Estimates from the importance samples of each image, four tensors (N,), float64, in nats but for the size."""

    log_px: torch.Tensor
    effective_sample_size: torch.Tensor
    log_px_given_z: torch.Tensor
    kl: torch.Tensor


class NLL(NamedTuple):
    """Means over images of -log p(x), estimated from num_samples weights each, and of other estimates, in nats.

    stderr is the standard error of nll over images. effective_sample_size, from 1 to num_samples, says how many
    equal weights would do as well. elbo = log_px_given_z - kl is from the same samples.
    """

    nll: float
    stderr: float
    effective_sample_size: float
    elbo: float
    log_px_given_z: float
    kl: float
    num_samples: int


@takes(num_samples=integer, batch_size=integer, seed=count, prior=optional(density))
def held_out_elbo(model, x, num_samples=1, batch_size=500, seed=0, prior=None):
    """The ELBO of images not trained on, and its two parts: a HeldOut of floats, in nats per image.

    Shapes: x (N, C, H, W), floats binarised or scaled as for training, N >= 2. Each image's ELBO is the average over
    `num_samples` draws of z from q(z|x), never its value at the mean. The draws depend on seed, batch size and number
    of samples. With a `prior`, as for `nll`, the KL is less by log r(z) - log p(z) at the same draws. Raises TypeError
    or ValueError for other types, shapes and ranges and for NaN in x, FloatingPointError where the model gives NaN.
    Equations (2.7) and (10.4).
    """
    latents.check_vae(model, x, at_least=2)
    check_prior(model, prior)
    device = next(model.parameters(), x).device
    generator, again = (torch.Generator(device).manual_seed(seed) for _ in range(2))  # for a prior, the same z again
    parts = []
    with evaluating(model, prior):
        for images in x.split(batch_size):
            images = images.to(device)
            bounds = [torch.stack(elbo(model, images, generator)) for _ in range(num_samples)]
            parts.append(torch.stack(bounds).double().mean(0))
            if prior is not None:
                mu, log_var = model.encoder(images)
                gains = [log_ratio(prior, reparameterize(mu, log_var, again)).double() for _ in range(num_samples)]
                gain = torch.stack(gains).mean(0)
                parts[-1] += torch.stack([gain, torch.zeros_like(gain), -gain])
    parts = torch.cat(parts, dim=1)
    finite_or_stop(dict(zip(HeldOut._fields, parts)), latents.DIVERGED)
    return HeldOut(*parts.mean(1).tolist(), stderr=latents.stderr_of(parts[0]))


@takes(num_samples=integer, refine=optional(function))
def nll(model, x, num_samples=500, batch_size=500, seed=0, autocast=False, progress=True, prior=None, refine=None):
    """Negative log-likelihood of each image by importance weighting, averaged over images: an NLL of floats, in nats.

    The estimate is minus log of the mean of num_samples weights p(x, z) / q(z|x). Its expectation is an upper bound on
    -log p(x) that falls with num_samples. `batch_size` pairs of image and sample are decoded at a time, so memory does
    not grow with either number, but for the q of `refine`; the draws depend on seed, batch size and number of samples.
    The model's memory format is contiguous afterwards. Networks run in float32 or, with autocast, in bfloat16; the
    importance weights are float32, with `refine` float64, and sums over them are float64. p(z) is N(0, I) or, with a
    `prior`, the density r(z) whose logarithm its method log_prob gives: (..., latent_dim) to (...), in nats. Samples
    come from the encoder's q(z|x) or, with `refine`, from the Proposal that this function makes: `refinement.refine`,
    or a `partial(refine, family="mixture")`. It is called as refine(model, x, batch_size=, seed=, autocast=, progress=,
    prior=) with this call's values, which override those of a partial. The expectation is an upper bound with any q
    that was not chosen by these draws: `refine` has generators of its own, and so must yours, of other seeds. With
    `refine` the KL is an average over samples too, not a closed form. Shapes: x (N, C, H, W), floats binarised or
    scaled as for training, N >= 2. Raises TypeError or ValueError for other types, shapes and ranges and for NaN in x,
    FloatingPointError where the model gives NaN. Equation (11.3); Burda, Grosse & Salakhutdinov 2016, section 5; Kim et
    al. 2018 for a q refined image by image.
    """
    latents.check_vae(model, x, at_least=2)
    common = dict(batch_size=batch_size, seed=seed, autocast=autocast, progress=progress, prior=prior)
    q = None
    if refine is not None:
        q = refine(model, x, **common)
        check_proposal("refine", q, x)
    return average_estimates(importance_estimates(model, x, num_samples, q=q, **common), num_samples)


@takes(num_samples=integer)
def average_estimates(estimates, num_samples):
    """The NLL over images, from their ImportanceEstimates.

    Raises ValueError for fewer than 2 images: one has no standard error.
    """
    tensor("log_px", estimates.log_px, "N", at_least=2)
    nll, size, log_px_given_z, kl = (values.mean().item() for values in estimates)
    return NLL(-nll, latents.stderr_of(estimates.log_px), size, log_px_given_z - kl, log_px_given_z, kl, num_samples)


@takes(num_samples=integer, batch_size=integer, seed=count, prior=optional(density))
def importance_estimates(model, x, num_samples=500, batch_size=500, seed=0, autocast=False, progress=True, prior=None,
                         q=None):
    """The estimates that `nll` averages, image by image. Arguments and errors as for `nll`, but N >= 1.

    In place of `refine` it takes a `q`: None for the encoder's, or the Proposal for these images that `refine` made.
    """
    latents.check_vae(model, x)
    check_prior(model, prior)
    if q is not None:
        check_proposal("q", q, x)
    device = next(model.parameters(), x).device
    generator = torch.Generator(device).manual_seed(seed)
    samples_at_once = min(num_samples, batch_size)
    results = []
    model.to(memory_format=torch.channels_last)  # convolutions are faster so
    try:
        with evaluating(model, prior), tqdm(total=len(x), disable=not progress, unit="images") as bar:
            for chosen in torch.arange(len(x)).split(batch_size // samples_at_once):
                of_q = None if q is None else q[chosen].to(device)
                with torch.autocast(device.type, torch.bfloat16, enabled=autocast):
                    results.append(_estimates(model, x[chosen].to(device), num_samples, samples_at_once, generator,
                                              prior, of_q))
                bar.update(len(chosen))
    finally:
        model.to(memory_format=torch.contiguous_format)
    estimates = ImportanceEstimates(*torch.cat(results, dim=1).to(x.device))
    finite_or_stop(estimates._asdict(), latents.DIVERGED)
    return estimates


def check_prior(model, prior):
    """Refuse to measure a FlowVAE as if its prior were N(0, I): ValueError."""
    if prior is None and isinstance(model, FlowVAE):
        raise ValueError("prior: wanted model.flow, the prior of this FlowVAE, got None")


def check_proposal(name, q, x):
    """Refuse what is no proposal, or one for another number of images than x has: TypeError or ValueError."""
    parts = "loc", "to", "sample", "log_prob", "__len__", "__getitem__"
    if isinstance(q, type) or not all(hasattr(q, part) for part in parts):
        raise TypeError(f"{name}: wanted a Proposal, as `refine` makes it, got {q!r}")
    if len(q) != len(x):
        raise ValueError(f"{name}: wanted a Proposal for {len(x)} images, as many as x has, got one for {len(q)}")


def _estimates(model, x, num_samples, at_once, generator, prior, q):
    """log p(x), effective sample size, mean log p(x|z) and KL of each image, from samples taken `at_once`: (4, N)."""
    if q is None:
        mu, log_var = (part.to(x.dtype) for part in model.encoder(x))
    log_sum, log_sum_squares = x.new_full((2, len(x)), -torch.inf, dtype=torch.float64)
    total, total_log_w, gain = x.new_zeros(3, len(x), dtype=torch.float64)
    for taken in range(0, num_samples, at_once):
        number = min(at_once, num_samples - taken)
        z = sample_posterior(mu, log_var, number, generator) if q is None else q.sample(number, generator)
        log_px_given_z = model.likelihood.log_prob(x, model.decoder(z.to(x.dtype)).to(x.dtype))
        if q is None:
            log_w = log_weights(log_px_given_z, z, mu, log_var).double()
        else:
            log_w = log_px_given_z.double() + log_prior(z) - q.log_prob(z)
        if prior is not None:
            more = log_ratio(prior, z.to(x.dtype)).double()
            log_w, gain = log_w + more, gain + more.sum(0)
        log_sum = torch.logaddexp(log_sum, log_w.logsumexp(0))
        log_sum_squares = torch.logaddexp(log_sum_squares, (2 * log_w).logsumexp(0))
        total += log_px_given_z.double().sum(0)
        total_log_w += log_w.sum(0)
    if q is None:
        kl = kl_to_standard_normal(mu.double(), log_var.double()) - gain / num_samples
    else:
        kl = (total - total_log_w) / num_samples
    size = (2 * log_sum - log_sum_squares).exp()
    return torch.stack([log_sum - math.log(num_samples), size, total / num_samples, kl])
