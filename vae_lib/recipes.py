"""Recorded training runs on MNIST: every choice they make, and the weights and logs that they left.

`python -m vae_lib.recipes train conv_mnist` repeats a run: it trains on the last 50,000 training images, keeps
checkpoints in runs/ from which it resumes, and leaves NAME.safetensors (float16) and NAME.json (the log) in
vae_lib/weights/. `python -m vae_lib.recipes measure six_minutes 5000` adds the likelihood of the test set, from that
many importance samples, to the log. `--seed 1` after either is a run of its own, with another seed.
"""

import argparse
import datetime
import json
import platform
import time
import zlib
from functools import partial
from pathlib import Path
from typing import NamedTuple

import torch

from vae_lib import checkpoints
from vae_lib.checkpoints import load_weights, save_weights
from vae_lib.data import fixed_binarization, load, validation_split
from vae_lib.evaluation import (
    ImportanceEstimates,
    active_units,
    average_estimates,
    encode_all,
    held_out_elbo,
    importance_estimates,
)
from vae_lib.flow import RealNVP, folded
from vae_lib.models import conv_vae
from vae_lib.objectives import ex_post, resampled_dreg, sleep_phase
from vae_lib.residual import residual_vae
from vae_lib.training import fit

WEIGHTS = Path(__file__).with_name("weights")
PART = 1000  # images that `measure` weighs before it writes down what it found
DECODED = {"cpu": 500, "cuda": 10_000}  # pairs of image and sample that it decodes at a time


class Recipe(NamedTuple):
    """A network, made by `build()`, and the arguments of each `fit` that trained it, in turn; `about` says what for.

    The network is a VAE or, if `prior_of` names another recipe, a density of that VAE's latents, to be its prior. If
    `made_of` names other recipes, their trained networks are, in this order, the arguments of `build`.
    """

    about: str
    build: object
    stages: tuple
    prior_of: str | None = None
    made_of: tuple = ()


# how the residual networks are trained, on the ELBO and on the bound of 16 samples
RESIDUAL = dict(batch_size=128, decay=True, ema=0.9995, clip=100.0, seed=0, autocast=True)
L16 = RESIDUAL | dict(objective=partial(resampled_dreg, num_samples=16))


def staged(elbo_steps, learning_rate, bound_steps, bound_learning_rate, again_steps=0, **options):
    """The ELBO first, as it is cheap; then the bound of 16 samples, which may come a second time, with other draws."""
    stages = (RESIDUAL | dict(steps=elbo_steps, learning_rate=learning_rate, output_bias=True) | options,
              L16 | dict(steps=bound_steps, learning_rate=bound_learning_rate) | options)
    again = stages[1] | dict(steps=again_steps, seed=10)  # its draws are not those of the first time
    return stages + (again,) * (again_steps > 0)


RECIPES = {
    "conv_mnist": Recipe(
        "the convolutional VAE of page 09, trained longer",
        partial(conv_vae, image_shape=(1, 28, 28), channels=(32, 64), latent_dim=20),
        (dict(steps=7800, batch_size=128, learning_rate=2e-3, warm_up=400, decay=True, ema=0.999, clip=100.0,
              seed=0, autocast=True),),
    ),
    "six_minutes": Recipe(
        "a residual VAE, meant for six minutes on two cores",
        partial(residual_vae, channels=(32, 64), latent_dim=40, blocks=1),
        staged(4500, 3e-3, 700, 1e-3),
    ),
    "twelve_minutes": Recipe(
        "the same network, meant for twelve minutes on two cores",
        partial(residual_vae, channels=(32, 64), latent_dim=40, blocks=1),
        staged(12000, 3e-3, 2000, 1e-3),
    ),
    "thirty_minutes": Recipe(
        "the same network, meant for thirty minutes on two cores",
        partial(residual_vae, channels=(32, 64), latent_dim=40, blocks=1),
        staged(16000, 3e-3, 10000, 1.5e-3),
    ),
    "seventy_five_minutes": Recipe(
        "two residual blocks a stage, with weight decay, meant for seventy-five minutes on two cores",
        partial(residual_vae, channels=(32, 64), latent_dim=40, blocks=2),
        staged(13000, 2e-3, 11000, 1.5e-3, weight_decay=0.1),
    ),
    "two_hours": Recipe(
        "seventy_five_minutes, then the bound of 16 samples once more; meant for two hours on two cores",
        partial(residual_vae, channels=(32, 64), latent_dim=40, blocks=2),
        staged(13000, 2e-3, 11000, 1.5e-3, again_steps=8000, weight_decay=0.1),
    ),
    "two_hours_flow": Recipe(
        "a flow for the prior of two_hours, meant for seven minutes on two cores",
        partial(RealNVP, latent_dim=40),
        (dict(steps=8000, batch_size=128, learning_rate=2e-3, decay=True, ema=0.999, clip=100.0, seed=0,
              objective=partial(ex_post, num_samples=4)),),
        prior_of="two_hours",
    ),
    "two_hours_folded": Recipe(
        "two_hours and its flow as one VAE with the prior N(0, I), trained on; meant for half an hour on two cores",
        folded,
        (RESIDUAL | dict(steps=2000, learning_rate=1e-3, objective=sleep_phase, ema=0.995),
         L16 | dict(steps=8000, learning_rate=1.5e-3, weight_decay=0.1, seed=20)),
        made_of=("two_hours", "two_hours_flow"),
    ),
}


def recipe(name):
    """The recipe of this name. Raises ValueError, with the names there are, for another."""
    if not isinstance(name, str) or name not in RECIPES:
        raise ValueError(f"recipe: wanted one of {', '.join(RECIPES)}, got {name!r}")
    return RECIPES[name]


def pretrained(name):
    """The model of a recipe with the weights that ship with the library, in eval mode.

    It is a VAE or, for a recipe with `prior_of`, the prior alone: `nll(pretrained("two_hours"), x,
    prior=pretrained("two_hours_flow"))`.
    """
    with torch.random.fork_rng(devices=[]):  # weights are drawn, then replaced: no page's random stream moves
        return _trained(name, WEIGHTS)


def training_log(name, seed=0):
    """The log of the run behind `pretrained(name)`, or of its run with another seed: a dict, with its history.

    The history has one number an epoch, in nats, of what each stage's objective returned; "nll" has what `measure`
    found, by number of samples. Raises ValueError for a recipe that there is not, FileNotFoundError for a seed that
    was not run.
    """
    recipe(name)
    return json.loads(_log_path(name, seed, WEIGHTS).read_text())


def recorded_runs():
    """The logs of all runs that were recorded, seed by seed: {(name, seed): log}, in the order of RECIPES."""
    runs = {}
    for path in WEIGHTS.glob("*.json"):
        name, _, seed = path.stem.partition("-seed")
        runs[name, int(seed or 0)] = json.loads(path.read_text())
    names = list(RECIPES)
    return dict(sorted(runs.items(), key=lambda run: (names.index(run[0][0]), run[0][1])))


def run_name(name, seed):
    """What the files of a run are called: a recipe's own seed is 0."""
    return name if seed == 0 else f"{name}-seed{seed}"


def train(name, seed=0, folder=WEIGHTS, runs="runs"):
    """Train a recipe on the full MNIST and write its weights and its log into `folder`; resume from `runs`.

    The weights of another seed than 0 stay in `runs`. A recipe with `prior_of` or `made_of` wants those recipes'
    weights, of seed 0, in `folder`, and resumes only if they have not changed. If the run repeats that of the log in
    `folder`, its measurements stay in the new log; if it resumes what that log is of, date and seconds stay too.
    Notes on what else was tried, under "tried", always stay.
    """
    about, _, stages, prior_of, made_of = recipe(name)
    stages = [options | {"seed": options["seed"] + seed} for options in stages]
    torch.manual_seed(seed)
    model = _untrained(name, folder).to(_device())
    vae, prior = _vae_and_prior(name, model, folder)
    data = load("MNIST")
    validation, images = validation_split(data.train)
    wall, cpu, epochs = time.perf_counter(), time.process_time(), []
    run = Path(runs, run_name(name, seed) + _of([*made_of, prior_of], folder))
    checkpoints = [run.with_name(f"{run.name}-stage{i}.safetensors") for i in range(len(stages))]
    resumed = any(path.exists() for path in checkpoints)
    for checkpoint, options in zip(checkpoints, stages):
        if prior_of:
            options = options | {"objective": partial(options["objective"], vae=vae)}
        history = fit(model, images, checkpoint=checkpoint, resume=True, **options)
        length = len(images) // options["batch_size"]
        steps = torch.tensor(list(history.values()))
        epochs.append(steps[:, :steps.shape[1] // length * length].unflatten(1, (-1, length)).mean(2))
    seconds = {"wall": round(time.perf_counter() - wall), "cpu": round(time.process_time() - cpu)}
    weights = _weights_path(name, seed, folder, runs)
    save_weights(model, weights)
    load_weights(model, weights)  # what is reported is what ships
    test = fixed_binarization(data.test)
    log = {
        "about": about, "prior_of": prior_of, "made_of": list(made_of),
        "stages": [_as_json(options) for options in stages],
        "date": datetime.date.today().isoformat(), "machine": _machine(),
        "seconds_of_last_start": seconds, "resumed": resumed,
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "validation": held_out_elbo(vae, fixed_binarization(validation), prior=prior)._asdict(),
        "test": held_out_elbo(vae, test, prior=prior)._asdict(),
        "active_units": active_units(encode_all(vae, test)[0]).sum().item(),
        "history": dict(zip(history, torch.cat(epochs, 1).tolist())),
    }
    print(json.dumps({key: log[key] for key in ("seconds_of_last_start", "validation", "test")}, indent=1))
    path = _log_path(name, seed, folder)
    old = json.loads(path.read_text()) if path.exists() else {}
    log |= {key: old[key] for key in ("tried",) if key in old}  # notes on what else was tried, by hand
    if all(old.get(key) == log[key] for key in ("stages", "history", "validation", "test")):
        kept = ("seconds_of_last_start", "date", "machine", "resumed", "nll") if resumed else ("nll",)
        log |= {key: old[key] for key in kept if key in old}
    _write_log(log, path)


def measure(name, num_samples, seed=0, folder=WEIGHTS, runs="runs"):
    """Add the test set's negative log-likelihood, from so many importance samples an image, to a run's log.

    What it found for every PART images goes to `runs`, and a second start on such a device goes on from there. Like
    `fit`, it works on a GPU if CUDA finds one, with other draws than on a CPU; the log says on which machine.
    """
    device = _device()
    weights = _weights_path(name, seed, folder, runs)
    vae, prior = _vae_and_prior(name, load_weights(_untrained(name, folder), weights).to(device), folder)
    path = _log_path(name, seed, folder)
    if not path.exists():  # found out before a measurement that may take an hour
        raise FileNotFoundError(f"{path}: wanted the log of the run, which `train` leaves")
    data = load("MNIST")
    if data.source.startswith("sample"):
        raise ValueError(f"data: wanted the full test set of MNIST, got the {data.source}; VAE_DATA names its folder")
    of_vae = _of([recipe(name).prior_of], folder)
    run = Path(runs, f"{run_name(name, seed)}-{_checksum(weights)}{of_vae}-{num_samples}-{device}")
    parts = []
    for i, images in enumerate(fixed_binarization(data.test).split(PART)):
        part = run.with_name(f"{run.name}-part{i}.safetensors")
        if not part.exists():
            estimates = importance_estimates(vae, images, num_samples, DECODED[device], seed=i, autocast=True,
                                             prior=prior)
            checkpoints.write(part, estimates._asdict())
        parts.append(ImportanceEstimates(**checkpoints.read(part)[0]))
    found = average_estimates(ImportanceEstimates(*map(torch.cat, zip(*parts))), num_samples)._asdict()
    log = json.loads(path.read_text())
    log.setdefault("nll", {})[str(num_samples)] = found | {"date": datetime.date.today().isoformat(),
                                                           "machine": _machine()}
    _write_log(log, path)
    print(json.dumps(found, indent=1))


def _device():
    return "cuda" if torch.cuda.is_available() else "cpu"


def _untrained(name, folder):
    """A recipe's network before it is trained; what it is made of has its weights, from `folder`."""
    return recipe(name).build(*(_trained(other, folder) for other in recipe(name).made_of))


def _trained(name, folder):
    model, path = _untrained(name, folder), Path(folder, f"{name}.safetensors")
    if not path.exists():
        raise FileNotFoundError(f"{path}: wanted the weights of {name}, which `train` leaves")
    return load_weights(model, path)


def _vae_and_prior(name, model, folder):
    """The VAE whose likelihood a recipe's model is measured by, on its device, and its prior, None for N(0, I)."""
    prior_of = recipe(name).prior_of
    if prior_of is None:
        return model, None
    return _trained(prior_of, folder).to(next(model.parameters()).device), model


def _checksum(path):
    """What tells one file of weights from another, in the names of files that depend on it."""
    return f"{zlib.crc32(path.read_bytes()):08x}"


def _of(names, folder):
    """What the name of a file ends with that depends on the weights of other recipes: it tells which these are."""
    return "".join(f"-of-{_checksum(Path(folder, f'{name}.safetensors'))}" for name in names if name)


def _weights_path(name, seed, folder, runs):
    return Path(folder if seed == 0 else runs, f"{run_name(name, seed)}.safetensors")


def _machine():
    cpu = f"{platform.machine()}, {torch.get_num_threads()} threads"
    return f"{torch.cuda.get_device_name() if torch.cuda.is_available() else cpu}, torch {torch.__version__}"


def _as_json(options):
    """The arguments of a fit as the log has them: an objective by its name and arguments."""
    if "objective" not in options:
        return options
    objective = partial(options["objective"])  # of a partial, the same
    return options | {"objective": objective.func.__name__, **objective.keywords}


def _log_path(name, seed, folder):
    return Path(folder, f"{run_name(name, seed)}.json")


def _write_log(log, path):
    """Write a log whole, or leave what was there."""
    part = path.with_name(f"{path.name}.part")
    part.write_text(json.dumps(log, indent=1) + "\n")
    part.replace(path)


def main(arguments=None):
    parser = argparse.ArgumentParser(prog="recipes", description="Recorded training runs.")
    tasks = parser.add_subparsers(dest="task", required=True)
    for task in ("train", "measure"):
        command = tasks.add_parser(task)
        command.add_argument("name", choices=RECIPES)
        command.add_argument("--seed", type=int, default=0)
    command.add_argument("num_samples", type=int, nargs="?", default=500, help="importance samples an image")
    options = parser.parse_args(arguments)
    if options.task == "train":
        train(options.name, options.seed)
    else:
        measure(options.name, options.num_samples, options.seed)


if __name__ == "__main__":
    main()
