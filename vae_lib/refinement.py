"""q optimised image by image: how much of a bound's gap is the encoder's fault, and how much its family's.

The encoder answers for an image at once. `refine` starts from that answer and climbs the ELBO of this one image. The
model stays as it is, and so does p(x). The result is a Proposal to draw importance samples from: `evaluation.nll` calls
`refine` for it. `gaps` measures with it what the encoder's q misses. Page 11; the gap that it splits is (3.12).
"""

import math
from functools import partial
from typing import NamedTuple

import torch
from torch.distributions import Categorical, MixtureSameFamily, MultivariateNormal
from tqdm.auto import tqdm

from vae_lib import latents
from vae_lib.evaluation import check_prior, check_proposal, importance_estimates
from vae_lib.guards import count, density, even, integer, not_negative, one_of, optional, positive, takes, tensor
from vae_lib.modes import evaluating
from vae_lib.objectives import log_prior, log_ratio

FAMILIES = "diagonal", "full", "mixture"
JUDGES = 8  # sets of fresh draws, each as large as a step's, by which a climb's end is compared with its start


class Proposal:
    """For each of N images a mixture of K Gaussians over its latents, in float64; K = 1 is one Gaussian.

    logits (N, K): log weights of the components, up to a constant; loc (N, K, latent_dim): their means; scale_tril
    (N, K, latent_dim, latent_dim): lower triangular factors of their covariances. Indexing picks images.
    Autocast does not reach it: in less than float64 log q(z|x) of a narrow Gaussian would be wrong by nats.
    """

    def __init__(self, logits, loc, scale_tril):
        self.logits, self.loc, self.scale_tril = logits.double(), loc.double(), scale_tril.double()

    def parts(self):
        return self.logits, self.loc, self.scale_tril

    def __len__(self):
        return len(self.loc)

    def __getitem__(self, images):
        return Proposal(*(part[images] for part in self.parts()))

    def to(self, device):
        return Proposal(*(part.to(device) for part in self.parts()))

    def detach(self):
        return Proposal(*(part.detach() for part in self.parts()))

    def log_prob(self, z):
        """log q(z|x), in nats: (..., N, latent_dim) to (..., N)."""
        with torch.autocast(z.device.type, enabled=False):
            gaussians = MultivariateNormal(self.loc, scale_tril=self.scale_tril, validate_args=False)
            weights = Categorical(logits=self.logits, validate_args=False)
            return MixtureSameFamily(weights, gaussians, validate_args=False).log_prob(z.double())

    def noise(self, num_samples, generator=None):
        """Standard normal noise for `of_components`: (num_samples, K, N, latent_dim)."""
        shape = num_samples, *self.loc.transpose(0, 1).shape
        return self.loc.new_empty(shape).normal_(generator=generator)

    def of_components(self, eps):
        """What each component makes of standard normal noise: (..., K, N, latent_dim) to the same shape."""
        with torch.autocast(eps.device.type, enabled=False):
            return self.loc.transpose(0, 1) + torch.einsum("nkij,...knj->...kni", self.scale_tril, eps)

    def sample(self, num_samples, generator=None):
        """Draws z ~ q(z|x), each of a component drawn by its weight: (num_samples, N, latent_dim)."""
        z = self.of_components(self.noise(num_samples, generator))
        drawn = torch.multinomial(self.logits.softmax(-1), num_samples, replacement=True, generator=generator)
        return z.gather(1, drawn.mT[:, None, :, None].expand_as(z[:, :1]))[:, 0]

    def repeated(self, number):
        """The same density as a mixture of `number` components: each one becomes as many equal ones."""
        return Proposal(*(part.repeat_interleave(number // part.shape[1], 1) for part in self.parts()))

    def scattered(self, spread, generator=None):
        """Each component but the first moved to a draw of its own, `spread` times as far from its mean."""
        shift = spread * self.noise(1, generator)[0]
        shift[0] = 0
        return Proposal(self.logits, self.of_components(shift).transpose(0, 1), self.scale_tril)

    def moved(self, logits, shift, log_scale, lower):
        """The mixture with other weights, its components moved, stretched and turned, in units of their own widths.

        Shapes: (N, K), twice (N, K, latent_dim), and (N, K, latent_dim, latent_dim), of which what is below the
        diagonal counts.
        """
        loc = self.loc + (self.scale_tril @ shift[..., None])[..., 0]
        return Proposal(logits, loc, self.scale_tril @ (lower.tril(-1) + log_scale.exp().diag_embed()))


def encoder_proposal(model, x, batch_size=500):
    """The encoder's q(z|x) as a Proposal of one diagonal Gaussian an image. Shapes and errors as for `encode_all`."""
    mu, log_var = latents.encode_all(model, x, batch_size)
    return Proposal(torch.zeros_like(mu[:, :1]), mu[:, None], (0.5 * log_var).exp().diag_embed()[:, None])


def stream(device, number, seed):
    """A generator of other draws than the one of this seed itself, and than those of other numbers from 1 to 4."""
    return torch.Generator(device).manual_seed(number * 1_000_000_000 + seed)


def log_joint(model, x, z, prior=None, autocast=False):
    """log p(x, z) = log p(x|z) + log p(z), in nats, in float64: x (N, C, H, W) and z (..., N, latent_dim) to (..., N).

    p(z) is N(0, I) or the density `prior`. Networks run in float32 or, with autocast, in bfloat16.
    """
    inside = z.to(x.dtype)
    with torch.autocast(z.device.type, torch.bfloat16, enabled=autocast):
        output = model.decoder(inside)
    log_pz = log_prior(z)
    if prior is not None:
        log_pz = log_pz + log_ratio(prior, inside)
    return model.likelihood.log_prob(x, output.to(x.dtype)).double() + log_pz


@takes(num_samples=even)
def stratified_elbo(joint, q, num_samples, generator=None):
    """The ELBO of each image, with as many draws of every component of q, weighted by its weight, in nats: (N,).

    `joint` turns z (..., N, latent_dim) into log p(x, z), (..., N). Draws come in pairs eps and -eps: num_samples of
    them for each component, an even number, or it raises ValueError. The gradient to the weights is exact but for these
    draws: nothing is differentiated through the choice of a component. log q(z|x) passes gradients through z alone; its
    other part is zero on average, and left out there is no noise where q is the posterior. Equations (2.2) and (5.2);
    Morningstar et al. 2021 (stratified draws of mixtures); Roeder, Wu & Duvenaud 2017.
    """
    eps = q.noise(num_samples // 2, generator)
    z = q.of_components(torch.cat([eps, -eps]))
    log_w = joint(z) - q.detach().log_prob(z)
    return (q.logits.softmax(-1).T * log_w.mean(0)).sum(0)


@takes(family=one_of(*FAMILIES), steps=integer, num_samples=even, learning_rate=positive,
       components=partial(integer, at_least=2), spread=not_negative, batch_size=integer, seed=count,
       prior=optional(density))
def refine(model, x, family="full", steps=300, num_samples=8, learning_rate=0.03, components=4, spread=0.5,
           batch_size=500, seed=0, autocast=False, progress=True, prior=None, start=None):
    """q(z|x) of each image, optimised for this image alone: a Proposal for these images, on the device of x.

    family      "diagonal": one Gaussian with independent latents, like the encoder's; "full": one with any covariance;
                "mixture": `components` Gaussians, each a "full" one moved, and stretched along the axes of its factor
    steps       of Adam, whose rate falls from learning_rate to zero along half a cosine; widths are the unit of length
    num_samples draws a step, an even number, shared out among components in pairs; each gets a pair at least
    spread      how far apart, in widths, the components of a mixture start: as draws of the Gaussian, times this
    batch_size  pairs of image and sample that are decoded at a time, as in `nll`: it bounds memory
    autocast    whether networks run in bfloat16, as in `nll`
    start       the Proposal to begin with: for "diagonal" one Gaussian with independent latents, else any, whose
                components, if more than one, stay as many. None: for "diagonal" the encoder's, for "full" the
                refined "diagonal", for "mixture" the refined "full", by these arguments. To go on from a q of the
                same family give another seed: the same one repeats the draws of its climb

    Where a climb's end is worse than its start by more than two standard errors, on eight fresh sets of num_samples
    draws with the same noise for both, the image keeps its start. So no family's ELBO is below the one before by more
    than noise. That comparison is no estimate of the ELBO, since q was chosen by it. `nll` and `gaps` measure with
    draws of their own, also from the same seed: then their log p(x) is not too high on average, whichever q was chosen.
    A climb ends on the nearest hill and may stop short of its top: a family's best q can only be better.

    Weights get no gradients, the model is in eval mode meanwhile, and the caller's random state stays put. Raises
    TypeError or ValueError for other types, shapes and ranges, and FloatingPointError for an encoder's NaN. Equation
    (3.12); Cremer, Li & Duvenaud 2018; Kim et al. 2018, "Semi-amortized variational autoencoders".
    """
    latents.check_vae(model, x)
    check_prior(model, prior)
    if start is None and family == "diagonal":
        start = encoder_proposal(model, x, batch_size)
    elif start is None:
        before = FAMILIES[FAMILIES.index(family) - 1]
        start = refine(model, x, before, steps, num_samples, learning_rate, components, spread, batch_size, seed,
                       autocast, progress, prior)
    check_proposal("start", start, x)
    if family == "diagonal" and (start.loc.shape[1] > 1 or start.scale_tril.tril(-1).any()):
        got = f"{start.loc.shape[1]} Gaussians" if start.loc.shape[1] > 1 else "correlated ones"
        raise ValueError(f'start: wanted, for "diagonal", one Gaussian an image with independent latents, got {got}')
    device = next(model.parameters(), x).device
    generator = stream(device, 1 + FAMILIES.index(family), seed)
    number = start.loc.shape[1]
    if family == "mixture" and number == 1:
        number = components
    each = max(2, num_samples // number // 2 * 2)
    found = []
    with evaluating(model, prior), tqdm(total=len(x), disable=not progress, unit="images", desc=family) as bar:
        for chosen in torch.arange(len(x)).split(max(1, batch_size // (number * each))):
            joint = partial(log_joint, model, x[chosen].to(device), prior=prior, autocast=autocast)
            old = start[chosen].to(device).repeated(number)
            first = old if number == start.loc.shape[1] else old.scattered(spread, generator)
            new = _climb(joint, first, steps, each, learning_rate, family == "full", generator)
            found.append(_unless_worse(joint, old, new, each, generator).parts())
            bar.update(len(chosen))
    return Proposal(*map(torch.cat, zip(*found))).to(x.device)


def _climb(joint, start, steps, num_samples, learning_rate, turned, generator):
    """The end of the climb of every image's ELBO from a Proposal; only if `turned`, the components turn as well."""
    parameters = [start.logits.clone(), *(torch.zeros_like(part) for part in (start.loc, start.loc, start.scale_tril))]
    moving = [part.requires_grad_() for part in parameters[:3 + turned]]
    optimiser = torch.optim.Adam(moving, lr=learning_rate)
    rate = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    for _ in range(steps):
        optimiser.zero_grad()
        with torch.enable_grad():
            elbo = stratified_elbo(joint, start.moved(*parameters), num_samples, generator)
            (-elbo.sum()).backward(inputs=moving)
        optimiser.step()
        rate.step()
    return start.moved(*parameters).detach()


def _unless_worse(joint, old, new, num_samples, generator):
    """The new Proposal, but for images where fresh draws say that its ELBO is lower: there the old one."""
    gains = []
    for _ in range(JUDGES):
        state = generator.get_state()
        elbo = stratified_elbo(joint, new, num_samples, generator)
        generator.set_state(state)  # the same noise for both
        gains.append(elbo - stratified_elbo(joint, old, num_samples, generator))
    gains = torch.stack(gains)
    kept = gains.mean(0) > -2 * gains.std(0) / math.sqrt(JUDGES)  # not where it is nan
    return Proposal(*(torch.where(kept.view(-1, *[1] * (ours.dim() - 1)), ours, theirs)
                      for ours, theirs in zip(new.parts(), old.parts())))


class Gaps(NamedTuple):
    """Of each image, in nats, float64: ELBOs of the encoder's q and the refined ones, and log p(x) by samples of two q.

    Eight tensors (N,). log_px is from the refined mixture, log_px_by_encoder from the encoder's q; the last two are
    the effective sizes of these samples.
    """

    encoder: torch.Tensor
    diagonal: torch.Tensor
    full: torch.Tensor
    mixture: torch.Tensor
    log_px: torch.Tensor
    log_px_by_encoder: torch.Tensor
    effective_size: torch.Tensor
    effective_size_by_encoder: torch.Tensor

    def means(self):
        """The parts of the gap log p(x) - ELBO: {name: (mean over images, its standard error)}, in nats.

        "amortization" + "family" is the gap of the encoder's q. "full" and "mixture" are what these families win of
        "family", each over the one before, and "left" is what they leave. "missed" is how much the samples of the
        encoder's q fall short of those of the refined one. All are estimates: where a climb stops short, amortization
        is too small and family too large; log_px is too low on average. Raises ValueError for fewer than 2 images.
        """
        tensor("log_px", self.log_px, "N", at_least=2)
        parts = {"amortization": self.diagonal - self.encoder, "family": self.log_px - self.diagonal,
                 "full": self.full - self.diagonal, "mixture": self.mixture - self.full,
                 "left": self.log_px - self.mixture, "missed": self.log_px - self.log_px_by_encoder}
        return {name: (part.mean().item(), latents.stderr_of(part)) for name, part in parts.items()}


@takes(num_samples=integer, elbo_samples=integer)
def gaps(model, x, num_samples=5000, elbo_samples=500, batch_size=500, seed=0, autocast=False, progress=True,
         prior=None, **climbing):
    """What the encoder misses of log p(x), what its family, and what importance sampling from it: Gaps, image by image.

    The ELBOs of refined Gaussians are from `elbo_samples` draws, other estimates from num_samples, all of them draws
    by which nothing was chosen. `climbing` goes to `refine`, but for `family` and `start`, which it gets from here.
    Other arguments, shapes and errors are those of `refine` and `nll`. Equation (3.12); Cremer, Li & Duvenaud 2018.
    """
    common = dict(batch_size=batch_size, seed=seed, autocast=autocast, progress=progress, prior=prior)
    elbos, q = {}, None
    for family in FAMILIES:
        q = refine(model, x, family, start=q, **common, **climbing)
        found = importance_estimates(model, x, num_samples if family == "mixture" else elbo_samples, q=q, **common)
        elbos[family] = found.log_px_given_z - found.kl
    by_encoder = importance_estimates(model, x, num_samples, **common)
    return Gaps(by_encoder.log_px_given_z - by_encoder.kl, **elbos,
                log_px=found.log_px, log_px_by_encoder=by_encoder.log_px, effective_size=found.effective_sample_size,
                effective_size_by_encoder=by_encoder.effective_sample_size)
