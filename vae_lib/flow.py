"""A normalizing flow as a density of latents, to stand where N(0, I) stood as the prior (page 10)."""

from functools import wraps
from inspect import signature

import torch
from torch import nn

from vae_lib.gaussian import log_normal
from vae_lib.models import are_sizes, takes_latents


def takes_flow_sizes(init):
    """Make a flow refuse sizes of which no couplings can be built: a ValueError names the argument."""
    @wraps(init)
    def checked(self, *args, **kwargs):
        given = signature(init).bind(self, *args, **kwargs).arguments
        for name, fits, wanted in (
            ("latent_dim", lambda it: are_sizes([it]) and it % 2 == 0, "a positive even integer"),
            ("hidden", lambda it: are_sizes([it]), "a positive integer"),
            ("couplings", lambda it: are_sizes([it]), "a positive integer"),
        ):
            if name in given and not fits(given[name]):
                raise ValueError(f"{name}: wanted {wanted}, got {given[name]!r}")
        init(self, *args, **kwargs)
    return checked


class Coupling(nn.Module):
    """One half of the latents sets by how much the other half is scaled and shifted; then the halves are interleaved.

    forward: z (..., latent_dim) to u of the same shape and log |det du/dz|, (...), in nats. `inverse` turns u back
    into z. A new coupling only interleaves. Equation (10.6); Dinh, Sohl-Dickstein & Bengio 2017, equations 7 and 8.
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
    forward: latent_dim is even. Equations (10.5) and (10.6); Dinh, Sohl-Dickstein & Bengio 2017.
    """

    @takes_flow_sizes
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

    def log_prob(self, z):
        """log r(z), in nats: (..., latent_dim) to (...)."""
        u, log_det = self(z)
        return log_normal(u, torch.zeros_like(u), torch.zeros_like(u)) + log_det

    @torch.no_grad()
    def sample(self, num_samples, generator=None):
        """Draws z ~ r(z), without gradients: (num_samples, latent_dim), of the weights' type and on their device."""
        weight = next(self.parameters())
        z = torch.randn(num_samples, self.latent_dim, generator=generator, dtype=weight.dtype, device=weight.device)
        for coupling in reversed(self.couplings):
            z = coupling.inverse(z)
        return z
