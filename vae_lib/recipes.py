"""The recipes of recorded training runs on MNIST, and the weights and logs of these runs (pages 09 to 12).

The files lie in vae_lib/weights/: NAME.safetensors (float16) and NAME.json, the log. `python -m vae_lib.recording train
conv_mnist` repeats a run, and `python -m vae_lib.recording measure six_minutes 5000` adds the likelihood of the test
set, from that many importance samples, to its log: module `recording`. With `--refined` each image gets a q of its own
for them, and `--gaps 200` splits the gap of the ELBO on 200 test digits. `--seed 1` after either is a run of its own.
"""

import copy
import json
from functools import partial
from pathlib import Path
from typing import NamedTuple

import torch
from torch import nn

from vae_lib.checkpoints import load_weights
from vae_lib.flow import FlowVAE, RealNVP, folded, resampled_dreg_with_flow
from vae_lib.likelihoods import Bernoulli
from vae_lib.models import VAE, DenseDecoder, DenseEncoder, conv_vae
from vae_lib.objectives import ex_post, resampled_dreg, sleep_phase
from vae_lib.residual import residual_vae

WEIGHTS = Path(__file__).with_name("weights")


class Recipe(NamedTuple):
    """A network, made by `build()`, and the arguments of each `fit` that trained it, in turn; `about` says its purpose.

    The network is a VAE or, if `prior_of` names another recipe, a density of that VAE's latents, to be its prior. If
    `made_of` names other recipes, their trained networks are, in this order, the arguments of `build`. With
    `all_images` the first 10,000 training images, which others leave for validation, are used too: no page may test it
    on those. Unless it `ships`, only the log lies beside the library, and the weights of a run stay in runs/.
    """

    about: str
    build: object
    stages: tuple
    prior_of: str | None = None
    made_of: tuple = ()
    all_images: bool = False
    ships: bool = True

    @property
    def learned_prior(self):
        """Whether the prior is a flow, and not N(0, I)."""
        return self.prior_of is not None or self.build is FlowVAE


# two residual networks, and how they are trained: on the ELBO, on the bound of 16 samples, in the sleep phase of a
# folded model, and, in later stages by Muon, on the bounds of 16 and of 64
ONE_BLOCK, TWO_BLOCKS = (partial(residual_vae, channels=(32, 64), latent_dim=40, blocks=blocks) for blocks in (1, 2))
RESIDUAL = dict(batch_size=128, decay=True, ema=0.9995, clip=100.0, seed=0, autocast=True)
L16 = RESIDUAL | dict(objective=partial(resampled_dreg, num_samples=16))
SLEEP = RESIDUAL | dict(learning_rate=1e-3, objective=sleep_phase, ema=0.995)
LONGER = L16 | dict(learning_rate=1.5e-3, weight_decay=0.1, muon=True)
L64 = LONGER | dict(objective=partial(resampled_dreg, num_samples=64))


def two_latents_vae():
    """The VAE of the live page: its decoder ends in 32 units, as the page weighs each of them at every grid point."""
    shape = (1, 28, 28)
    return VAE(DenseEncoder(shape, (128, 128), 2, nn.SiLU), DenseDecoder(shape, (32, 96, 96), 2, nn.SiLU), Bernoulli())


def staged(elbo_steps, learning_rate, bound_steps, bound_learning_rate, again_steps=0, **options):
    """The ELBO first, as it is cheap; then the bound of 16 samples, which may come a second time, with other draws."""
    stages = (RESIDUAL | dict(steps=elbo_steps, learning_rate=learning_rate, output_bias=True) | options,
              L16 | dict(steps=bound_steps, learning_rate=bound_learning_rate) | options)
    again = stages[1] | dict(steps=again_steps, seed=10)  # its draws are not those of the first time
    return stages + (again,) * (again_steps > 0)


RECIPES = {
    "conv_mnist": Recipe(
        "the convolutional VAE of page 09, trained longer", partial(conv_vae, channels=(32, 64), latent_dim=20),
        (dict(steps=7800, batch_size=128, learning_rate=2e-3, warm_up=400, decay=True, ema=0.999, clip=100.0, seed=0,
              autocast=True),)),
    "six_minutes": Recipe(
        "a residual VAE, meant for six minutes on two cores", ONE_BLOCK, staged(4500, 3e-3, 700, 1e-3)),
    "twelve_minutes": Recipe(
        "the same network, meant for twelve minutes on two cores", ONE_BLOCK, staged(12000, 3e-3, 2000, 1e-3),
        ships=False),
    "two_hours": Recipe(
        "two residual blocks a stage, weight decay, the bound of 16 samples twice; meant for two hours on two cores",
        TWO_BLOCKS, staged(13000, 2e-3, 11000, 1.5e-3, again_steps=8000, weight_decay=0.1)),
    "two_hours_flow": Recipe(
        "a flow for the prior of two_hours, meant for a quarter of an hour on two cores",
        partial(RealNVP, latent_dim=40), (dict(steps=8000, batch_size=128, learning_rate=2e-3, decay=True, ema=0.999,
                                               clip=100.0, seed=0, objective=partial(ex_post, num_samples=4)),),
        prior_of="two_hours"),
    "two_hours_folded": Recipe(
        "two_hours and its flow as one VAE with the prior N(0, I), trained on; meant for half an hour on two cores",
        folded, (SLEEP | dict(steps=2000),
                 L16 | dict(steps=8000, learning_rate=1.5e-3, weight_decay=0.1, seed=20)),
        made_of=("two_hours", "two_hours_flow")),
    "flow_together": Recipe(
        "two_hours and its flow, trained on together, with all 60,000 images; meant for an hour on two cores",
        FlowVAE, (LONGER | dict(steps=9000, seed=30, objective=partial(resampled_dreg_with_flow, num_samples=16)),),
        made_of=("two_hours", "two_hours_flow"), all_images=True),
    "folded_64": Recipe(
        "two_hours_folded, trained on with all 60,000 images, by 64 samples; meant for an hour and a half on two cores",
        copy.deepcopy, (L64 | dict(steps=8000, seed=80),), made_of=("two_hours_folded",), all_images=True),
    "two_latents": Recipe(
        "a small VAE with two latents, for the live page; meant for five minutes on one core", two_latents_vae,
        (dict(steps=24_000, batch_size=128, learning_rate=2e-3, output_bias=True, warm_up=400, decay=True, ema=0.999,
              clip=100.0, seed=0),))}


def recipe(name):
    """The recipe of this name. Raises ValueError, with the names there are, for another."""
    if not isinstance(name, str) or name not in RECIPES:
        raise ValueError(f"recipe: wanted one of {', '.join(RECIPES)}, got {name!r}")
    return RECIPES[name]


def pretrained(name):
    """The model of a recipe with the weights that ship with the library, in eval mode.

    It is a VAE or, for a recipe with `prior_of`, the prior alone: `nll(pretrained("two_hours"), x,
    prior=pretrained("two_hours_flow"))`. That of `flow_together` has its prior in it: `nll(model, x,
    prior=model.flow)`. Raises FileNotFoundError for a recipe whose weights do not ship.
    """
    with torch.random.fork_rng(devices=[]):  # weights are drawn, then replaced: no page's random stream moves
        return trained(name, WEIGHTS)


def training_log(name, seed=0):
    """The log of the run behind `pretrained(name)`, or of its run with another seed: a dict, with its history.

    The history has the mean of each epoch, in nats, of the stage's objective and its parts; "nll" has the results of
    `measure`, by number of samples, "nll_refined" those with a refined q, and "gaps" the parts of the ELBO's gap, by
    number of images. "trials" and "tried" say what was tried before, in numbers and in words. "weights" is the checksum
    of the weights that were measured (with that of the VAE behind, for a prior alone); some logs of other seeds lack
    it. Raises ValueError for an unknown recipe, FileNotFoundError for a seed that was not run.
    """
    recipe(name)
    return read_log(log_path(name, seed, WEIGHTS))


def recorded_runs():
    """The logs of all runs that were recorded, seed by seed: {(name, seed): log}, in the order of RECIPES."""
    runs = {}
    for path in WEIGHTS.glob("*.json"):
        name, _, seed = path.stem.partition("-seed")
        runs[name, int(seed or 0)] = read_log(path)
    names = list(RECIPES)
    return dict(sorted(runs.items(), key=lambda run: (names.index(run[0][0]), run[0][1])))


def vae_and_prior(name, model, folder):
    """The VAE whose likelihood a recipe's model is measured by, on its device, and its prior, None for N(0, I)."""
    if isinstance(model, FlowVAE):
        return model, model.flow
    prior_of = recipe(name).prior_of
    if prior_of is None:
        return model, None
    return trained(prior_of, folder).to(next(model.parameters()).device), model


def untrained(name, folder):
    """A recipe's network before it is trained; networks that it is made of have their weights, from `folder`."""
    return recipe(name).build(*(trained(other, folder) for other in recipe(name).made_of))


def trained(name, folder):
    model, path = untrained(name, folder), Path(folder, f"{name}.safetensors")
    if not path.exists():
        where = "" if recipe(name).ships else " in runs/, as they do not ship"
        raise FileNotFoundError(f"{path}: wanted the weights of {name}, which `train` leaves{where}")
    return load_weights(model, path)


def read_log(path):
    """The log in a file. Raises FileNotFoundError, or ValueError for a file that is damaged."""
    try:
        return json.loads(path.read_text())
    except ValueError as error:
        raise ValueError(f"{path} is truncated or no JSON: {error}") from error


def log_path(name, seed, folder):
    return Path(folder, f"{run_name(name, seed)}.json")


def run_name(name, seed):
    """The name of a run's files: a recipe's own seed is 0."""
    return name if seed == 0 else f"{name}-seed{seed}"
