"""What next, from two_hours_folded? Short trials on held-out digits, each against the model as it stands.

    python tests/benchmarks/next_stage.py

Each trial goes on from two_hours_folded on the last 50,000 training images, for about as long by the clock as the first
one, whose 800 steps are a tenth of those of its last stage; the average of the weights spans a tenth, too. The negative
log-likelihoods of held-out digits, 2,000 by draws of the encoder's q and 400 by draws of a refined q, go to
next_stage.json, with the paired differences of all. Took two and a half hours of CPU time on a slow machine; a run that
was cut goes on from its checkpoints in runs/.
"""

from functools import partial
from pathlib import Path
from types import SimpleNamespace

import torch
from torch.distributions import Normal, kl_divergence
from torch.func import functional_call
from trials import from_two_hours_folded

from vae_lib.annealing import own_images
from vae_lib.objectives import elbo, resampled_dreg
from vae_lib.recipes import L16, L64


def for_the_encoder(model):
    """The model as objectives take it, with a decoder that hands gradients to z and keeps none for its weights."""
    weights = {name: value.detach() for name, value in model.decoder.named_parameters()}
    return SimpleNamespace(encoder=model.encoder, likelihood=model.likelihood,
                           decoder=lambda z: functional_call(model.decoder, weights, (z,)))


def drawn(model, x):
    """As many images of the model's own as there are in x."""
    return own_images(model, len(x), seed=torch.randint(2**40, ()).item())[0]


def bound_of_own_images(model, x, num_samples):
    """The bound of x and, for the encoder alone, that of as many images of the model's own."""
    bound = resampled_dreg(model, x, num_samples)
    return bound._replace(elbo=bound.elbo + resampled_dreg(for_the_encoder(model), drawn(model, x), num_samples).elbo)


def kl_of_own_images(model, x, num_samples):
    """The bound of x and, for the encoder alone, minus KL(q || posterior) of as many images of the model's own.

    That KL is log p(x') - ELBO, and log p(x') does not depend on the encoder.
    """
    bound = resampled_dreg(model, x, num_samples)
    return bound._replace(elbo=bound.elbo + elbo(for_the_encoder(model), drawn(model, x)).elbo)


def shifts(model, x, num_samples, weight=0.1):
    """The bound of x, minus weight * KL(q(z|x') || q(z|x)), x' being x moved by one pixel; after Sinha & Dieng 2021."""
    bound = resampled_dreg(model, x, num_samples)
    side, axis = (1, -1)[torch.randint(2, ())], (2, 3)[torch.randint(2, ())]
    q, moved_q = (Normal(mu, (0.5 * log_var).exp()) for mu, log_var in map(model.encoder, (x, x.roll(side, axis))))
    return bound._replace(elbo=bound.elbo - weight * kl_divergence(moved_q, q).sum(1))


def by(objective):
    """The change that an objective on 16 samples makes to the plain run."""
    return dict(objective=partial(objective, num_samples=16))


PLAIN = L16 | dict(steps=800, learning_rate=1e-3, weight_decay=0.1, ema=0.995, seed=70)
RUNS = {
    "16 samples": PLAIN,
    "16 samples, 430 steps": PLAIN | dict(steps=430),
    "64 samples": PLAIN | dict(steps=260, objective=L64["objective"]),
    "Muon": PLAIN | dict(steps=770, muon=True),
    "bound of own images": PLAIN | dict(steps=430) | by(bound_of_own_images),
    "KL of own images": PLAIN | dict(steps=650) | by(kl_of_own_images),
    "shifts": PLAIN | dict(steps=640) | by(shifts),
}

if __name__ == "__main__":
    from_two_hours_folded(RUNS, Path(__file__).with_suffix(".json"))
