"""Running the recipes: training that leaves weights and a log, and the measurement of their likelihood.

`python -m vae_lib.recording train NAME` trains on the last 50,000 training images, or on all if the recipe says so, and
keeps checkpoints in runs/, from which it resumes. With MALLOC_MMAP_MAX_=0 MALLOC_TRIM_THRESHOLD_=100000000000 in the
environment, freed memory stays with the process: with glibc 2.36 on x86 a step on the ELBO then takes 3% less time, one
on the bound of 16 samples 17%.
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

from vae_lib.checkpoints import load_weights, read_tensors, save_weights, write_tensors
from vae_lib.data import fixed_binarization, load, validation_split
from vae_lib.evaluation import ImportanceEstimates, average_estimates, held_out_elbo, importance_estimates
from vae_lib.files import refuse_unwritable, write_whole
from vae_lib.guards import integer
from vae_lib.latents import active_units, encode_all
from vae_lib.recipes import RECIPES, WEIGHTS, log_path, read_log, recipe, run_name, untrained, vae_and_prior
from vae_lib.refinement import Gaps, encoder_proposal, gaps, refine
from vae_lib.training import fit

PART, GAPS_PART = 1000, 20  # images that `measure` weighs, and whose q it refines, between two files
DECODED = {"cpu": 500, "cuda": 10_000}  # pairs of image and sample that it decodes at a time
REFINING = {"family": "full", "steps": 150}  # where all test images get a q, in one climb from the encoder's


def train(name, seed=0, folder=WEIGHTS, runs="runs"):
    """Train a recipe on the full MNIST and write its weights and its log into `folder`; resume from `runs`.

    The weights of another seed than 0, or of a recipe that does not ship, stay in `runs`. A recipe with `prior_of` or
    `made_of` wants those recipes' weights, of seed 0, in `folder`, and resumes only if they have not changed. If the
    run repeats that of the log in `folder`, its measurements stay in the new log; if it resumes that very run, date and
    seconds stay too. Lists in that log of what was tried before, "trials" in numbers and "tried" in words, always stay.
    """
    about, _, stages, prior_of, made_of, all_images, _ = recipe(name)
    stages = [options | {"seed": options["seed"] + seed} for options in stages]
    torch.manual_seed(seed)
    model = untrained(name, folder).to(_device())
    vae, prior = vae_and_prior(name, model, folder)
    data = load("MNIST")
    validation, images = validation_split(data.train)
    if all_images:
        images = data.train
    wall, cpu, epochs = time.perf_counter(), time.process_time(), []
    run, path = Path(runs, run_name(name, seed) + _of([*made_of, prior_of], folder)), log_path(name, seed, folder)
    refuse_unwritable(run, path)  # found out before hours of training, as is a log that is damaged
    if path.exists():
        read_log(path)
    resumed, before = run.with_name(f"{run.name}-stage0.safetensors").exists(), ""
    for i, options in enumerate(stages):
        checkpoint = run.with_name(f"{run.name}-stage{i}{before}.safetensors")
        if prior_of:
            options = options | {"objective": partial(options["objective"], vae=vae)}
        history = fit(model, images, checkpoint=checkpoint, resume=True, **options)
        before = f"-after-{_checksum(checkpoint)}"  # a stage goes on only from the very weights that it started from
        length = len(images) // options["batch_size"]
        steps = torch.tensor(list(history.values()))
        epochs.append(steps[:, :steps.shape[1] // length * length].unflatten(1, (-1, length)).mean(2))
    seconds = {"wall": round(time.perf_counter() - wall), "cpu": round(time.process_time() - cpu)}
    weights = _weights_path(name, seed, folder, runs)
    save_weights(model, weights)
    load_weights(model, weights)  # the log reports on the weights as they ship
    test = fixed_binarization(data.test)
    log = {
        "about": about, "prior_of": prior_of, "made_of": list(made_of),
        "stages": [_as_json(options) for options in stages],
        "date": datetime.date.today().isoformat(), "machine": _machine(),
        "seconds_of_last_start": seconds, "resumed": resumed,
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "weights": _checksum(weights) + _of([prior_of], folder),
        "validation": None if all_images else held_out_elbo(vae, fixed_binarization(validation), prior=prior)._asdict(),
        "test": held_out_elbo(vae, test, prior=prior)._asdict(),
        "active_units": active_units(encode_all(vae, test)[0]).sum().item(),
        "history": dict(zip(history, torch.cat(epochs, 1).tolist()))}
    print(json.dumps({key: log[key] for key in ("seconds_of_last_start", "validation", "test")}, indent=1))
    old = read_log(path) if path.exists() else {}
    if all(old.get(key) == log[key] for key in ("stages", "history", "validation", "test")):
        kept = ("seconds_of_last_start", "date", "machine", "resumed") if resumed else ()
        log |= {key: old[key] for key in (*kept, "nll", "nll_refined", "gaps") if key in old}
    log |= {key: old[key] for key in ("trials", "tried") if key in old}
    write_log(log, path)


def measure(name, num_samples=500, seed=0, folder=WEIGHTS, runs="runs", refined=False):
    """Add the test set's negative log-likelihood, from so many importance samples an image, to a run's log.

    They are drawn from the encoder's q or, with `refined`, from Gaussians that `refine` finds for each image by
    REFINING; the log's key is then "nll_refined". The estimates of every PART images go to `runs`, and a second start
    on such a device goes on from there. Like `fit`, it works on a GPU if CUDA finds one, with other draws than on a
    CPU; the log says on which machine. Raises FileNotFoundError for a run without weights or log, ValueError for a log
    of other weights than those to measure, and where there is no full test set.
    """
    integer("num_samples", num_samples)
    run = _to_measure(name, seed, folder, runs)

    def estimates(images, seed):
        q = None
        if refined:
            q = encoder_proposal(run.vae, images, run.options["batch_size"])
            q = refine(run.vae, images, start=q, seed=seed, **REFINING, **run.options)
        return importance_estimates(run.vae, images, num_samples, seed=seed, q=q, **run.options)

    kind = "-".join(map(str, [num_samples, *(REFINING.values() if refined else ())]))
    found = ImportanceEstimates(**_in_parts(run, kind, run.test, PART, estimates))
    average = average_estimates(found, num_samples)._asdict()
    _add_to_log(run, "nll_refined" if refined else "nll", num_samples, average | (REFINING if refined else {}))


def measure_gaps(name, num_images, num_samples=5000, seed=0, folder=WEIGHTS, runs="runs"):
    """Add to a run's log how much of its NLL is the encoder's fault: the means of `gaps` over the first test images.

    Beside the parts of the gap, each with its standard error over images, are the means of the ELBOs, of log p(x) and
    of the effective sizes. The gaps of every GAPS_PART images go to `runs`, and a second start on such a device goes on
    from there. Raises what `measure` raises, and ValueError for fewer than 2 images, or more than there are.
    """
    run = _to_measure(name, seed, folder, runs)
    integer("num_images", num_images, at_least=2, at_most=len(run.test))

    def split(images, seed):
        return gaps(run.vae, images, num_samples, seed=seed, **run.options)

    found = Gaps(**_in_parts(run, f"gaps-{num_samples}", run.test[:num_images], GAPS_PART, split))
    means = {name: part.mean().item() for name, part in found._asdict().items()}
    _add_to_log(run, "gaps", num_images, means | {"parts": found.means(), "num_samples": num_samples})


class _Run(NamedTuple):
    """What is measured: the VAE, its options, the bits of the test set; its log, its weights, and where parts go."""

    vae: object
    options: dict
    test: torch.Tensor
    log: Path
    weights: str
    parts: Path


def _to_measure(name, seed, folder, runs):
    weights, log = _weights_path(name, seed, folder, runs), log_path(name, seed, folder)
    if not weights.exists():
        raise FileNotFoundError(f"{weights}: wanted the weights of the run, which `train` leaves")
    vae, prior = vae_and_prior(name, load_weights(untrained(name, folder), weights).to(_device()), folder)
    checksum = _checksum(weights) + _of([recipe(name).prior_of], folder)
    _log_of(log, checksum)  # found out before a measurement that may take an hour
    data = load("MNIST")
    if data.source.startswith("sample"):
        raise ValueError(f"data: wanted the full test set of MNIST, got the {data.source}; VAE_DATA names its folder")
    parts = Path(runs, f"{run_name(name, seed)}-{checksum}")
    refuse_unwritable(parts, log)
    options = dict(batch_size=DECODED[_device()], autocast=True, prior=prior)
    return _Run(vae, options, fixed_binarization(data.test), log, checksum, parts)


def _in_parts(run, kind, images, size, found_in):
    """found_in(images, seed) of so many images at a time, joined by name; each part is kept in a file, and read again.

    The seed is the part's number. found_in returns a named tuple of tensors, with a row for each image.
    """
    parts = []
    for i, part in enumerate(images.split(size)):
        path = run.parts.with_name(f"{run.parts.name}-{kind}-{_device()}-images{len(part)}-part{i}.safetensors")
        if not path.exists():
            write_tensors(path, found_in(part, i)._asdict())
        parts.append(read_tensors(path)[0])
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}


def _log_of(path, weights):
    """The log in a file. Raises FileNotFoundError, or ValueError if it is not that of the weights of this checksum."""
    if not path.exists():
        raise FileNotFoundError(f"{path}: wanted the log of the run, which `train` leaves")
    log = read_log(path)
    if log.get("weights") != weights:
        raise ValueError(f"{path}: wanted the log of the weights {weights}, got that of {log.get('weights')}")
    return log


def _add_to_log(run, kind, size, found):
    """Add a measurement to a log, beside others of its kind, with date and machine, and print it."""
    log = _log_of(run.log, run.weights)  # again: another run may have left its weights and its log meanwhile
    log.setdefault(kind, {})[str(size)] = found | {"date": datetime.date.today().isoformat(), "machine": _machine()}
    write_log(log, run.log)
    print(json.dumps(found, indent=1))


def _device():
    return "cuda" if torch.cuda.is_available() else "cpu"


def _checksum(path):
    """The checksum of a file of weights, for the names of files that depend on it."""
    return f"{zlib.crc32(path.read_bytes()):08x}"


def _of(names, folder):
    """The end of the name of a file that depends on other recipes: "-of-" and the checksum of each one's weights."""
    return "".join(f"-of-{_checksum(Path(folder, f'{name}.safetensors'))}" for name in names if name)


def _weights_path(name, seed, folder, runs):
    return Path(folder if seed == 0 and recipe(name).ships else runs, f"{run_name(name, seed)}.safetensors")


def _machine():
    cpu = f"{platform.machine()}, {torch.get_num_threads()} threads"
    return f"{torch.cuda.get_device_name() if torch.cuda.is_available() else cpu}, torch {torch.__version__}"


def _as_json(options):
    """The arguments of a fit as the log has them: an objective by its name and arguments."""
    if "objective" not in options:
        return options
    objective = partial(options["objective"])  # of a partial, the same
    return options | {"objective": objective.func.__name__, **objective.keywords}


def write_log(log, path):
    """Write a log as JSON, whole or not at all."""
    write_whole(path, (json.dumps(log, indent=1) + "\n").encode())


def main(arguments=None):
    parser = argparse.ArgumentParser(prog="run.py", description="Recorded training runs.")
    tasks = parser.add_subparsers(dest="task", required=True)
    commands = {task: tasks.add_parser(task) for task in ("train", "measure")}
    for command in commands.values():
        command.add_argument("name", choices=RECIPES)
        command.add_argument("--seed", type=int, default=0)
    commands["measure"].add_argument("num_samples", type=int, nargs="?", help="of importance, an image: 500, or 5000 "
                                     "with --gaps")
    what = commands["measure"].add_mutually_exclusive_group()
    what.add_argument("--gaps", type=int, metavar="IMAGES", help="split log p(x) - ELBO on that many")
    what.add_argument("--refined", action="store_true", help="draw from a q that is refined for each image")
    options = parser.parse_args(arguments)
    if options.task == "train":
        return train(options.name, options.seed)
    given = {} if options.num_samples is None else {"num_samples": options.num_samples}
    if options.gaps is not None:
        measure_gaps(options.name, options.gaps, seed=options.seed, **given)
    else:
        measure(options.name, seed=options.seed, refined=options.refined, **given)


if __name__ == "__main__":
    main()
