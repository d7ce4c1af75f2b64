"""A normalizing flow as a density of latents: a prior in place of N(0, I), or a part of the decoder (page 12)."""

import copy
from types import SimpleNamespace

import torch
from torch import nn

from vae_lib.gaussian import log_normal
from vae_lib.guards import even, integer, takes, takes_latents
from vae_lib.models import VAE
from vae_lib.objectives import log_ratio, resampled_dreg


class Coupling(nn.Module):
    """A map z to u: half of z is kept, the other is scaled and shifted by functions of it; then both are interleaved.

    forward: z (..., latent_dim) to u of the same shape and log |det du/dz|, (...), in nats. `inverse` turns u back
    into z. Scale and shift start at 1 and 0. Equation (12.6); Dinh, Sohl-Dickstein & Bengio 2017, equations 7 and 8.
    """

    def __init__(self, latent_dim, hidden):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(latent_dim // 2, hidden), nn.SiLU(), nn.Linear(hidden, hidden), nn.SiLU(),
                                 nn.Linear(hidden, latent_dim))
        nn.init.zeros_(self.net[-1].weight)
        nn.init.zeros_(self.net[-1].bias)

    def log_scale_and_shift(self, kept):
        log_scale, shift = self.net(kept).chunk(2, -1)
        return log_scale.tanh(), shift

    def forward(self, z):
        kept, moved = z.chunk(2, -1)
        log_scale, shift = self.log_scale_and_shift(kept)
        moved = moved * log_scale.exp() + shift
        return torch.stack([moved, kept], -1).flatten(-2), log_scale.sum(-1)

    def inverse(self, u):
        moved, kept = u.unflatten(-1, (-1, 2)).unbind(-1)
        log_scale, shift = self.log_scale_and_shift(kept)
        return torch.cat([kept, (moved - shift) * (-log_scale).exp()], -1)


class RealNVP(nn.Module):
    """A density r(z) of latents: couplings, one after another, turn z into u, and u has the density N(0, I).

    forward: z (..., latent_dim) to u and log |det du/dz|, as in Coupling. A new flow is N(0, I) itself. Every latent is
    moved by some coupling if 2 ** couplings > latent_dim. Raises ValueError for sizes that do not fit, here or in
    forward and inverse: latent_dim is even. Equations (12.5) and (12.6); Dinh, Sohl-Dickstein & Bengio 2017.
    """

    @takes(latent_dim=even, hidden=integer, couplings=integer)
    def __init__(self, latent_dim, hidden=64, couplings=8):
        super().__init__()
        self.latent_dim = latent_dim
        self.couplings = nn.ModuleList(Coupling(latent_dim, hidden) for _ in range(couplings))

    @takes_latents
    def forward(self, z):
        log_det = torch.zeros_like(z[..., 0])
        for coupling in self.couplings:
            z, added = coupling(z)
            log_det = log_det + added
        return z, log_det

    @takes_latents
    def inverse(self, u):
        """The z that forward turns into u: (..., latent_dim) to the same."""
        for coupling in reversed(self.couplings):
            u = coupling.inverse(u)
        return u

    def log_prob(self, z):
        """log r(z), in nats: (..., latent_dim) to (...)."""
        u, log_det = self(z)
        return log_normal(u, torch.zeros_like(u), torch.zeros_like(u)) + log_det

    @takes(num_samples=integer)
    def sample(self, num_samples, generator=None):
        """Draws z ~ r(z), without gradients: (num_samples, latent_dim), of the weights' type and on their device."""
        u = next(self.parameters()).new_empty(num_samples, self.latent_dim).normal_(generator=generator)
        return self.inverse(u).detach()


class FlowVAE(VAE):
    """A VAE and a flow for its prior as one network, copies of both, so that all is trained together.

    `flow` is its prior r(z), the argument `prior` of `nll`, `held_out_elbo` and `refine`. Of the objectives only
    `resampled_dreg_with_flow` knows it: the others take N(0, I). Raises what `folded` raises. Equation (12.7).
    """

    def __init__(self, vae, flow):
        _check_parts(vae, flow)
        vae = copy.deepcopy(vae)
        super().__init__(vae.encoder, vae.decoder, vae.likelihood)
        self.flow = copy.deepcopy(flow).to(next(vae.parameters()))


def resampled_dreg_with_flow(model, x, num_samples, generator=None):
    """`resampled_dreg` of a FlowVAE with its flow as prior: encoder, decoder and flow get their gradients at once.

    p(x|z) r(z) is p(x|z) r(z) / p(z) times p(z) = N(z; 0, I), so the ratio goes where the likelihood stands. As there,
    `log_px_given_z` has no gradient; `kl` is to N(0, I), so `fit` must have no warm-up. Shapes: x (batch, C, H, W) to
    three tensors (batch,), in nats. Raises TypeError for another model. Equation (12.3), of (12.2).
    """
    if not isinstance(model, FlowVAE):
        raise TypeError(f"model: wanted a FlowVAE, got {type(model).__name__}")
    found = []

    def log_prob(x, decoded):
        output, z = decoded
        found.append(model.likelihood.log_prob(x, output))
        return found[-1] + log_ratio(model.flow, z)

    tilted = SimpleNamespace(encoder=model.encoder, decoder=lambda z: (model.decoder(z), z),
                             likelihood=SimpleNamespace(log_prob=log_prob))
    return resampled_dreg(tilted, x, num_samples, generator)._replace(log_px_given_z=found[0].mean(0))


class FoldedEncoder(nn.Module):
    """An encoder whose means go through a flow: its Gaussians are over u, not z. The variances stay as they were.

    Shapes: (batch, C, H, W) to mu, log_var, both (batch, latent_dim). Autocast does not reach the flow. Raises what
    the encoder raises. Page 12.
    """

    def __init__(self, encoder, flow):
        super().__init__()
        self.flow, self.encoder = flow, encoder
        self.image_shape, self.latent_dim = encoder.image_shape, encoder.latent_dim

    def forward(self, x):
        mu, log_var = self.encoder(x)
        with torch.autocast(x.device.type, enabled=False):
            return self.flow(mu.to(x.dtype))[0], log_var


class FoldedDecoder(nn.Module):
    """A decoder behind the inverse of a flow: u becomes z, and z an image.

    Shapes: (..., latent_dim) to (..., C, H, W). Autocast does not reach the flow. Raises ValueError for other
    latents. Equation (12.7).
    """

    def __init__(self, decoder, flow):
        super().__init__()
        self.flow, self.decoder = flow, decoder
        self.image_shape, self.latent_dim = decoder.image_shape, decoder.latent_dim

    def forward(self, u):
        with torch.autocast(u.device.type, enabled=False):
            z = self.flow.inverse(u.to(next(self.flow.parameters()).dtype))
        return self.decoder(z)


def folded(vae, flow=None):
    """A VAE with latents u = flow(z) and the prior N(0, I), whose p(x) is that of `vae` with `flow` for its prior.

    A FlowVAE's flow may be left out: it is its own. Everything is copied, and the flow twice, for encoder and decoder,
    in the type and on the device of the VAE's weights. The posterior of u is not that of z, so the encoder has to be
    trained anew. Raises TypeError for what is no VAE or no RealNVP, ValueError for a flow of other latents, or
    another one than a FlowVAE's own. Equation (12.7), of (12.5); Chen et al. 2017, section 3.2.
    """
    flow = getattr(vae, "flow", None) if flow is None else flow
    _check_parts(vae, flow)
    vae, flows = copy.deepcopy(vae), [copy.deepcopy(flow).to(next(vae.parameters())) for _ in range(2)]
    return VAE(FoldedEncoder(vae.encoder, flows[0]), FoldedDecoder(vae.decoder, flows[1]), vae.likelihood)


def _check_parts(vae, flow):
    if getattr(vae, "flow", flow) is not flow:
        raise ValueError("flow: wanted that of the FlowVAE, vae.flow, got another")
    for name, value, wanted in (("vae", vae, VAE), ("flow", flow, RealNVP)):
        if not isinstance(value, wanted):
            raise TypeError(f"{name}: wanted a {wanted.__name__}, got {value!r}")
    if flow.latent_dim != vae.latent_dim:
        raise ValueError(f"flow: wanted latent_dim {vae.latent_dim}, as the VAE has, got {flow.latent_dim}")
