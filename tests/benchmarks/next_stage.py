"""What next, from two_hours_folded? Short trials on held-out digits, each against the model as it stands.

    python tests/benchmarks/next_stage.py

Each trial goes on from two_hours_folded on the last 50,000 training images, for about as long by the clock as the first
one; only the second has fewer steps, those of "bound of own images". The 800 steps of the first are a tenth of those of
the model's last stage, and the average of the weights spans 200 steps, a tenth, too. The negative log-likelihoods of
held-out digits, 2,000 by draws of the encoder's q and 400 by draws of a refined q, go to next_stage.json, with the
paired differences of all. Took two and a half hours of CPU time on a slow machine; a run that was cut goes on from its
checkpoints in runs/.

Terms for the encoder give the decoder no gradient. But `fit` clips the norm of all gradients together at 100, so a
large term makes the decoder's steps smaller. At the start it does so in "KL of own images" alone.
"""

from functools import partial
from pathlib import Path
from types import SimpleNamespace

import torch
from torch.func import functional_call
from trials import from_two_hours_folded

from vae_lib.annealing import own_images
from vae_lib.gaussian import kl_between_normals
from vae_lib.objectives import elbo, resampled_dreg
from vae_lib.recipes import L16, L64


def for_the_encoder(model):
    """The model as objectives take it, with a decoder that hands gradients to z and keeps none for its weights."""
    weights = {name: value.detach() for name, value in model.decoder.named_parameters()}
    return SimpleNamespace(encoder=model.encoder, likelihood=model.likelihood,
                           decoder=lambda z: functional_call(model.decoder, weights, (z,)))


def drawn(model, x):
    """As many images of the model's own as there are in x, others at each call."""
    return own_images(model, len(x), seed=torch.randint(2**40, (), device=x.device).item())[0]


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


def shifts(model, x, num_samples, weight):
    """The bound of x, minus weight * KL(q(z|x') || q(z|x)), x' being x moved by a pixel, one way for the whole batch.

    Sinha & Dieng 2021 weigh this KL, and train on the ELBO of x' besides, which is left out here.
    """
    bound = resampled_dreg(model, x, num_samples)
    back, across = torch.randint(2, (2,), device=x.device)
    moved = x.roll((1, -1)[back], (2, 3)[across])
    return bound._replace(elbo=bound.elbo - weight * kl_between_normals(*model.encoder(moved), *model.encoder(x)))


PLAIN = L16 | dict(steps=800, learning_rate=1e-3, weight_decay=0.1, ema=0.995, seed=70)
RUNS = {
    "16 samples": PLAIN,
    "16 samples, 430 steps": PLAIN | dict(steps=430),
    "64 samples": PLAIN | dict(steps=260, objective=L64["objective"]),
    "Muon": PLAIN | dict(steps=770, muon=True),
    "bound of own images": PLAIN | dict(steps=430, objective=partial(bound_of_own_images, num_samples=16)),
    "KL of own images": PLAIN | dict(steps=650, objective=partial(kl_of_own_images, num_samples=16)),
    "shifts": PLAIN | dict(steps=640, objective=partial(shifts, num_samples=16, weight=0.1)),
}

if __name__ == "__main__":
    from_two_hours_folded(RUNS, Path(__file__).with_suffix(".json"))
