"""Recorded training runs on MNIST: every choice they make, and the weights and logs that they left.

`python -m vae_lib.recipes conv_mnist` repeats a run: it trains on the last 50,000 training images, keeps a checkpoint
in runs/ from which it resumes, and leaves NAME.safetensors (float16) and NAME.json (the log) in vae_lib/weights/.
"""

import datetime
import json
import platform
import sys
import time
from functools import partial
from pathlib import Path
from typing import NamedTuple

import torch

from vae_lib.data import fixed_binarization, load, validation_split
from vae_lib.evaluation import held_out_elbo
from vae_lib.models import conv_vae
from vae_lib.storage import load_weights, save_weights
from vae_lib.training import fit

WEIGHTS = Path(__file__).with_name("weights")


class Recipe(NamedTuple):
    """A network, made by `build()`, and the arguments of `fit` that trained it; `about` says what it is for."""

    about: str
    build: object
    options: dict


RECIPES = {
    "conv_mnist": Recipe(
        "the convolutional VAE of page 09, trained longer",
        partial(conv_vae, image_shape=(1, 28, 28), channels=(32, 64), latent_dim=20),
        dict(steps=7800, batch_size=128, learning_rate=2e-3, warm_up=400, decay=True, ema=0.999, clip=100.0,
             seed=0, autocast=True),
    ),
}


def recipe(name):
    """The recipe of this name. Raises ValueError, with the names there are, for another."""
    if not isinstance(name, str) or name not in RECIPES:
        raise ValueError(f"recipe: wanted one of {', '.join(RECIPES)}, got {name!r}")
    return RECIPES[name]


def pretrained(name):
    """The model of a recipe with the weights that ship with the library, in eval mode."""
    with torch.random.fork_rng(devices=[]):  # weights are drawn, then replaced: no page's random stream moves
        model = recipe(name).build()
    return load_weights(model, WEIGHTS / f"{name}.safetensors")


def training_log(name):
    """The log of the run behind `pretrained(name)`: a dict, with its history, one number an epoch, in nats."""
    recipe(name)
    return json.loads((WEIGHTS / f"{name}.json").read_text())


def train(name, folder=WEIGHTS, runs="runs"):
    """Train a recipe on the full MNIST and write its weights and its log into `folder`; resume from `runs`."""
    _, build, options = recipe(name)
    data = load("MNIST")
    validation, images = validation_split(data.train)
    torch.manual_seed(options["seed"])
    model, wall, cpu = build(), time.perf_counter(), time.process_time()
    history = fit(model, images, checkpoint=Path(runs, f"{name}.safetensors"), resume=True, **options)
    seconds = {"wall": round(time.perf_counter() - wall), "cpu": round(time.process_time() - cpu)}
    save_weights(model, Path(folder, f"{name}.safetensors"))
    load_weights(model, Path(folder, f"{name}.safetensors"))  # what is reported is what ships
    epoch = len(images) // options["batch_size"]
    log = {
        "about": recipe(name).about, "options": options, "date": datetime.date.today().isoformat(),
        "machine": f"{platform.machine()}, {torch.get_num_threads()} threads, torch {torch.__version__}",
        "seconds_of_last_start": seconds,
        "parameters": sum(weights.numel() for weights in model.parameters()),
        "validation": held_out_elbo(model, fixed_binarization(validation))._asdict(),
        "test": held_out_elbo(model, fixed_binarization(data.test))._asdict(),
        "history": {key: torch.tensor(values[:len(values) // epoch * epoch]).reshape(-1, epoch).mean(1).tolist()
                    for key, values in history.items()},
    }
    Path(folder, f"{name}.json").write_text(json.dumps(log, indent=1) + "\n")
    print(json.dumps({key: log[key] for key in ("seconds_of_last_start", "validation", "test")}, indent=1))


if __name__ == "__main__":
    for argument in sys.argv[1:]:
        train(argument)
