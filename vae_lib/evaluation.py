"""How good a trained model is, and how it uses its latents, in nats (pages 09 to 11).

Nothing here trains: models are put in evaluation mode, without gradients, and get the mode they were in back.
Random draws come from generators of their own: one seed gives one result, and the global stream stays put.
"""

import math
from typing import NamedTuple

import torch
from tqdm.auto import tqdm

from vae_lib.gaussian import kl_to_standard_normal, log_normal, reparameterize
from vae_lib.likelihoods import Bernoulli
from vae_lib.memory import keeping_freed_memory
from vae_lib.models import AE
from vae_lib.modes import evaluating
from vae_lib.objectives import elbo, log_weights, sample_posterior


class HeldOut(NamedTuple):
    """Means over images of the ELBO and its two parts, and the ELBO's standard error over images, in nats."""

    elbo: float
    log_px_given_z: float
    kl: float
    stderr: float


class ImportanceEstimates(NamedTuple):
    """What the importance samples of each image gave, four tensors (N,): log p(x), the effective sample size, the
    mean of log p(x|z), and the KL. In nats but for the size; float64."""

    log_px: torch.Tensor
    effective_sample_size: torch.Tensor
    log_px_given_z: torch.Tensor
    kl: torch.Tensor


class NLL(NamedTuple):
    """Means over images of -log p(x), estimated from num_samples weights each, and of what came with it, in nats.

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


class KLSplit(NamedTuple):
    """The average KL and its two parts, in nats, with the standard error of the sum of the two parts.

    Neither part's own standard error is larger. Mutual information over num_images images is at most
    ln(num_images): equation (10.2).
    """

    average_kl: float
    mutual_information: float
    kl_to_prior: float
    stderr: float
    num_images: int


def held_out_elbo(model, x, num_samples=1, batch_size=500, seed=0, prior=None):
    """The ELBO of images not trained on, and its two parts: a HeldOut of floats, in nats per image.

    Shapes: x (N, C, H, W), floats binarised or scaled as for training, N >= 2. Each image's ELBO is the
    average over `num_samples` draws of z from q(z|x), never its value at the mean. The draws depend on seed
    and batch size. With a `prior`, as for `nll`, the KL is less by log r(z) - log p(z) at the same draws. Raises
    TypeError or ValueError for other types, shapes and ranges, and for NaN. Equations (2.7) and (10.4).
    """
    _check_images(model, x, at_least=2)
    _check_prior(prior)
    _check_counts(num_samples=num_samples, batch_size=batch_size)
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
                gains = [_log_ratio(prior, reparameterize(mu, log_var, again)).double() for _ in range(num_samples)]
                gain = torch.stack(gains).mean(0)
                parts[-1] += torch.stack([gain, torch.zeros_like(gain), -gain])
    parts = torch.cat(parts, dim=1)
    _refuse_nan(**dict(zip(HeldOut._fields, parts)))
    return HeldOut(*parts.mean(1).tolist(), stderr=_stderr(parts[0]))


def nll(model, x, num_samples=500, batch_size=500, seed=0, autocast=False, progress=True, prior=None):
    """Negative log-likelihood of each image by importance weighting, averaged over images: an NLL of floats, in nats.

    The estimate is minus log of the mean of num_samples weights p(x, z) / q(z|x). Its expectation is an upper
    bound on -log p(x) that falls with num_samples. `batch_size` pairs of image and sample are decoded at a time,
    so memory does not grow with either number; the draws depend on seed, batch size and number of samples. The
    model's memory format is contiguous afterwards. Networks run in float32 or, with autocast, in bfloat16; the
    importance weights are float32, sums over them float64. p(z) is N(0, I) or, with a `prior`, the density r(z)
    whose logarithm its method log_prob gives: (..., latent_dim) to (...), in nats.
    Shapes: x (N, C, H, W), floats binarised or scaled as for training, N >= 2. Raises TypeError or ValueError for
    other types, shapes and ranges, and FloatingPointError for NaN. Equation (11.3); Burda, Grosse & Salakhutdinov
    2016, section 5.
    """
    _check_images(model, x, at_least=2)
    estimates = importance_estimates(model, x, num_samples, batch_size, seed, autocast, progress, prior)
    return average_estimates(estimates, num_samples)


def average_estimates(estimates, num_samples):
    """The NLL over images, from what `importance_estimates` found for them, at once or in parts that were joined."""
    nll, size, log_px_given_z, kl = (values.mean().item() for values in estimates)
    return NLL(-nll, _stderr(estimates.log_px), size, log_px_given_z - kl, log_px_given_z, kl, num_samples)


def importance_estimates(model, x, num_samples=500, batch_size=500, seed=0, autocast=False, progress=True, prior=None):
    """What `nll` averages, image by image: ImportanceEstimates. Arguments, errors as for `nll`, but N >= 1."""
    _check_images(model, x)
    _check_prior(prior)
    _check_counts(num_samples=num_samples, batch_size=batch_size)
    device = next(model.parameters(), x).device
    generator = torch.Generator(device).manual_seed(seed)
    samples_at_once = min(num_samples, batch_size)
    results = []
    model.to(memory_format=torch.channels_last)  # convolutions are faster so
    try:
        with (keeping_freed_memory(), evaluating(model, prior),
              tqdm(total=len(x), disable=not progress, unit="images") as bar):
            for images in x.split(batch_size // samples_at_once):
                with torch.autocast(device.type, torch.bfloat16, enabled=autocast):
                    results.append(_estimates(model, images.to(device), num_samples, samples_at_once, generator, prior))
                bar.update(len(images))
    finally:
        model.to(memory_format=torch.contiguous_format)
    estimates = ImportanceEstimates(*torch.cat(results, dim=1))
    _refuse_nan(**estimates._asdict())
    return estimates


def _estimates(model, x, num_samples, at_once, generator, prior):
    """log p(x), effective sample size, mean log p(x|z) and KL of each image, from samples taken `at_once`: (4, N)."""
    mu, log_var = (part.to(x.dtype) for part in model.encoder(x))
    log_sum, log_sum_squares = torch.full((2, len(x)), -torch.inf, dtype=torch.float64, device=x.device)
    total, gain = torch.zeros_like(log_sum), torch.zeros_like(log_sum)
    for taken in range(0, num_samples, at_once):
        z = sample_posterior(mu, log_var, min(at_once, num_samples - taken), generator)
        log_px_given_z = model.likelihood.log_prob(x, model.decoder(z).to(x.dtype))
        log_w = log_weights(log_px_given_z, z, mu, log_var).double()
        if prior is not None:
            log_ratio = _log_ratio(prior, z).double()
            log_w, gain = log_w + log_ratio, gain + log_ratio.sum(0)
        log_sum = torch.logaddexp(log_sum, log_w.logsumexp(0))
        log_sum_squares = torch.logaddexp(log_sum_squares, (2 * log_w).logsumexp(0))
        total += log_px_given_z.double().sum(0)
    kl = kl_to_standard_normal(mu.double(), log_var.double()) - gain / num_samples
    size = (2 * log_sum - log_sum_squares).exp()
    return torch.stack([log_sum - math.log(num_samples), size, total / num_samples, kl])


def _log_ratio(prior, z):
    """log r(z) - log p(z) of a prior r against N(0, I), in the precision of z: (..., latent_dim) to (...)."""
    with torch.autocast(z.device.type, enabled=False):
        log_rz = prior.log_prob(z)
    if log_rz.shape != z.shape[:-1]:
        raise ValueError(f"prior: wanted log_prob to turn shape {tuple(z.shape)} into {tuple(z.shape[:-1])}, "
                         f"got {tuple(log_rz.shape)}")
    return log_rz - log_normal(z, torch.zeros_like(z), torch.zeros_like(z))


def encode_all(model, x, batch_size=500):
    """The parameters of q(z|x) for every image: mu and log_var, each (N, latent_dim), on the device of x.

    Shapes: x (N, C, H, W). Raises TypeError or ValueError for other types, shapes and ranges, and for NaN.
    """
    _check_images(model, x)
    _check_counts(batch_size=batch_size)
    device = next(model.parameters(), x).device
    with evaluating(model):
        outputs = [model.encoder(images.to(device)) for images in x.split(batch_size)]
    mu, log_var = (torch.cat(output).to(x.device) for output in zip(*outputs, strict=True))
    _refuse_nan(mu=mu, log_var=log_var)
    return mu, log_var


def log_aggregate_posterior(z, mu, log_var, block_size=64):
    """log q(z) of the aggregate posterior q(z) = 1/N sum_n q(z|x_n), by log-sum-exp, in float64 and nats.

    Shapes: z (S, latent_dim), mu and log_var (N, latent_dim), to (S,). Works on block_size^2 * latent_dim
    numbers at a time. Raises TypeError or ValueError for other types and shapes, and for NaN. Equation (10.1);
    Hoffman & Johnson 2016.
    """
    _check_posteriors(mu, log_var)
    _check_floats("z", z, "(S, latent_dim)")
    if z.shape[1] != mu.shape[1]:
        raise ValueError(f"z: wanted latent_dim {mu.shape[1]}, as mu has, got shape {tuple(z.shape)}")
    _check_counts(block_size=block_size)
    z, mu, log_var = z.double(), mu.double(), log_var.double()
    log_sums = []
    for z_block in z.split(block_size):
        log_sum = torch.full_like(z_block[:, 0], -torch.inf)
        for mu_block, log_var_block in zip(mu.split(block_size), log_var.split(block_size), strict=True):
            log_qz_given_x = log_normal(z_block[:, None], mu_block, log_var_block)
            log_sum = torch.logaddexp(log_sum, log_qz_given_x.logsumexp(-1))
        log_sums.append(log_sum)
    return torch.cat(log_sums) - math.log(len(mu))


def average_kl_split(mu, log_var, num_samples=1000, seed=0):
    """The average KL(q(z|x_n) || p(z)) over N images, and its two parts: a KLSplit of floats, in nats.

    Shapes: mu and log_var (N, latent_dim). The average KL comes in closed form. The mutual information
    between image and z, E[log q(z|x) - log q(z)], and KL(q(z) || p(z)) = E[log q(z) - log p(z)] are each
    estimated from `num_samples` draws of their own (an image, then its z), so their sum meets it within the
    standard error only. Raises TypeError or ValueError for other types and shapes, and for NaN. Equation (10.1);
    Hoffman & Johnson 2016.
    """
    _check_posteriors(mu, log_var)
    _check_counts(num_samples=num_samples, at_least=2)
    mu, log_var = mu.detach().double(), log_var.detach().double()
    generator = torch.Generator(mu.device).manual_seed(seed)

    def draw():
        n = torch.randint(len(mu), (num_samples,), generator=generator, device=mu.device)
        z = reparameterize(mu[n], log_var[n], generator)
        return z, log_normal(z, mu[n], log_var[n]), log_aggregate_posterior(z, mu, log_var)

    z, log_qz_given_x, log_qz = draw()
    information = log_qz_given_x - log_qz
    z, _, log_qz = draw()
    divergence = log_qz - log_normal(z, torch.zeros_like(z), torch.zeros_like(z))
    stderr = math.hypot(_stderr(information), _stderr(divergence))
    average_kl = kl_to_standard_normal(mu, log_var).mean().item()
    return KLSplit(average_kl, information.mean().item(), divergence.mean().item(), stderr, len(mu))


def active_units(mu, threshold=0.01):
    """Which latents the model uses: those whose mean varies over images, Var(E[z|x]) > threshold.

    Shapes: mu (N, latent_dim), N >= 2, to bool (latent_dim,), whose sum is the number of active units. Raises
    TypeError or ValueError for other types and shapes, and for NaN. Burda, Grosse & Salakhutdinov 2016.
    """
    _check_floats("mu", mu, "(N, latent_dim)", at_least=2)
    if not 0 <= threshold < math.inf:
        raise ValueError(f"threshold: wanted a finite number, 0 or more, got {threshold!r}")
    return mu.double().var(0) > threshold


def _refuse_nan(**results):
    """Stop with a FloatingPointError that names the result rather than return NaN or infinity as a measurement."""
    for name, values in results.items():
        if not values.isfinite().all():
            raise FloatingPointError(f"{name} is not finite: the model or its prior has diverged, "
                                     "or float32 has overflowed")


def _stderr(values):
    """The standard error of the mean of independent values (N,)."""
    return values.std().item() / math.sqrt(len(values))


def _check_images(model, x, at_least=1):
    if not (isinstance(model, torch.nn.Module) and hasattr(model, "likelihood")) or isinstance(model, AE):
        raise TypeError(f"model: wanted a VAE, got {type(model).__name__}")
    _check_floats("x", x, "(N, C, H, W)", at_least)
    if isinstance(model.likelihood, Bernoulli) and not 0 <= x.min() <= x.max() <= 1:
        raise ValueError(f"x: wanted values in [0, 1] for a Bernoulli, got {x.min():g} to {x.max():g}")


def _check_prior(prior):
    if prior is not None and (isinstance(prior, type) or not hasattr(prior, "log_prob")):
        raise TypeError(f"prior: wanted a density with a method log_prob, or None for N(0, I), got {prior!r}")


def _check_posteriors(mu, log_var):
    _check_floats("mu", mu, "(N, latent_dim)")
    _check_floats("log_var", log_var, "(N, latent_dim)")
    if mu.shape != log_var.shape:
        raise ValueError(f"log_var: wanted shape {tuple(mu.shape)}, as mu has, got {tuple(log_var.shape)}")
    if log_var.abs().max() > 700:  # beyond, the variance is zero or infinite even in float64
        raise ValueError(f"log_var: wanted values between -700 and 700, got {log_var.min():g} to {log_var.max():g}")


def _check_floats(name, value, shape, at_least=1):
    """Refuse by name what is not a finite floating-point tensor of this shape with `at_least` rows."""
    wanted = f"a floating-point tensor of shape {shape}, {shape[1]} >= {at_least}"
    if not isinstance(value, torch.Tensor):
        raise TypeError(f"{name}: wanted {wanted}, got {type(value).__name__}")
    got = f"{str(value.dtype).removeprefix('torch.')} of shape {tuple(value.shape)}"
    if not value.is_floating_point():
        raise TypeError(f"{name}: wanted {wanted}, got {got}")
    if value.dim() != shape.count(",") + 1 or len(value) < at_least or value.numel() == 0:
        raise ValueError(f"{name}: wanted {wanted}, got {got}")
    if not value.isfinite().all():
        raise ValueError(f"{name}: wanted finite numbers, got NaN or infinity")


def _check_counts(at_least=1, **counts):
    for name, value in counts.items():
        if not (isinstance(value, int) and not isinstance(value, bool) and value >= at_least):
            raise ValueError(f"{name}: wanted an integer, {at_least} or more, got {value!r}")
