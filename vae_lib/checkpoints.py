"""Weights, and the checkpoints from which `fit` goes on: safetensors files, written whole or not at all."""

import json
import math
import re
import zlib
from functools import partial
from inspect import isfunction
from itertools import zip_longest
from pathlib import Path

import safetensors.torch
import torch
from torch import nn

from vae_lib.files import write_whole
from vae_lib.guards import finite_or_stop

FORMAT = "checkpoint of vae_lib.training.fit, 5"


def save_weights(model, path, half=True):
    """Write weights and buffers to a safetensors file, whole or not at all; as float16 if `half`.

    Raises FloatingPointError for a value that is not finite (float16 ends at 65,504).
    """
    write_tensors(path, {name: value.half() if half and value.is_floating_point() else value
                         for name, value in model.state_dict().items()})


def load_weights(model, path):
    """Read what `save_weights` wrote into a model of the same layers; return the model, in eval mode.

    Raises FileNotFoundError, or ValueError for a file that is damaged or does not fit the model.
    """
    found, _ = read_tensors(path)
    refuse_misfit(path, found, model)
    model.load_state_dict(found)
    return model.eval()


def read_tensors(path):
    """The tensors of a safetensors file, by name, and the texts that came with them.

    Raises OSError for a file that is missing or may not be read, ValueError for another kind and for a damaged one.
    """
    if Path(path).is_dir():
        raise ValueError(f"path: wanted a safetensors file, got the folder {path}")
    open(path, "rb").close()  # tells a file that may not be read from one that is missing: safe_open does not
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}
    except safetensors.SafetensorError as error:
        raise ValueError(f"{path} is truncated or no safetensors file: {error}") from error


def write_tensors(path, tensors, texts=None):
    """Write tensors, and texts, by name to a safetensors file. FloatingPointError for a value that is not finite."""
    tensors = {name: _copied(value) for name, value in tensors.items()}
    finite_or_stop(tensors, f"{path} was not written")
    write_whole(path, safetensors.torch.save(tensors, texts))


def refuse_misfit(path, found, model):
    """Raise ValueError if the tensors that were found differ from the model's in any name or shape."""
    here = model.state_dict()
    for name in sorted(here.keys() | found.keys()):
        sizes = [tuple(group[name].shape) if name in group else "absent" for group in (found, here)]
        if sizes[0] != sizes[1]:
            raise ValueError(f"{path} does not fit this model: {name} is {sizes[0]} in the file, {sizes[1]} here")


def write_checkpoint(path, settings, model, optimizers, average, history, random_state):
    """Write all that a run needs to go on; optimizers by name. FloatingPointError for weights that are not finite."""
    states = {name: optimizer.state_dict() for name, optimizer in optimizers.items()}
    groups = {"model": model.state_dict(), "average": average, "random": {"state": random_state},
              "history": {name: torch.tensor(values, dtype=torch.float64) for name, values in history.items()},
              **{f"{name} {i}": values for name, state in states.items() for i, values in state["state"].items()}}
    tensors = {f"{group}/{name}": value for group, values in groups.items() for name, value in values.items()}
    rest = {"format": FORMAT, "settings": settings, "model": described(model),
            "param_groups": {name: state["param_groups"] for name, state in states.items()}}
    write_tensors(path, tensors, {"checkpoint": json.dumps(rest)})


def read_checkpoint(path, steps, settings, model, optimizers, average):
    """Put a checkpoint's weights, averages and optimizer state in place; return its history and its random state.

    Raises ValueError for a file that is damaged or of another format, other settings, another model, and fewer steps.
    """
    tensors, texts = read_tensors(path)
    saved = json.loads(texts.get("checkpoint", "{}"))
    if saved.get("format") != FORMAT:
        got = saved.get("format", "a file of another kind")
        raise ValueError(f"checkpoint: wanted a {FORMAT!r}, got {got!r}: {path}")
    for name, value in settings.items():
        if saved["settings"].get(name) != value:
            raise ValueError(f"resume: {path} was written with {name}={saved['settings'].get(name)}, "
                             f"got {name}={value}")
    groups = {}
    for key, value in tensors.items():
        group, _, name = key.partition("/")
        groups.setdefault(group, {})[name] = value
    refuse_misfit(path, groups["model"], model)
    names = [[group["param_names"] for parts in by_name.values() for group in parts] for by_name in (
        saved["param_groups"], {name: optimizer.param_groups for name, optimizer in optimizers.items()})]
    if names[0] != names[1]:
        here = ", ".join(sum(names[1], []))
        raise ValueError(f"{path} does not fit this model: it trained other weights than {here}")
    for line, line_here in zip_longest(saved["model"], described(model)):
        if line != line_here:
            raise ValueError(f"{path} does not fit this model: {line} in the file, {line_here} here")
    history = {name: groups["history"][name].tolist() for name in ("elbo", "log_px_given_z", "kl")}
    if len(history["elbo"]) > steps:
        raise ValueError(f"steps: {path} has {len(history['elbo'])} steps behind it, got {steps}")
    model.load_state_dict(groups["model"])
    for kind, optimizer in optimizers.items():
        state = {i: {name: torch.empty_like(weights).copy_(value) if value.shape == weights.shape else value
                     for name, value in groups[f"{kind} {i}"].items()}  # in the memory format of the weights
                 for i, weights in enumerate(optimizer.param_groups[0]["params"])
                 if f"{kind} {i}" in groups}  # weights that never had a gradient have no state
        optimizer.load_state_dict({"state": state, "param_groups": saved["param_groups"][kind]})
    for name, value in average.items():
        value.copy_(groups["average"][name])
    return history, groups["random"]["state"]


def described(model):
    """What tells a model from others whose weights have the same names and shapes, in lines: type, likelihood, layers.

    Of a likelihood without a repr of its own that is the class.
    """
    likelihood, dtype = getattr(model, "likelihood", None), next(model.parameters()).dtype
    return re.sub(" at 0x[0-9a-fA-F]+", "", f"{dtype}\n{likelihood!r}\n{model!r}").splitlines()


def fingerprint(images):
    """Type and shape of images, and a checksum of up to 1,000 of them: it tells one set from another."""
    some = images[::math.ceil(len(images) / 1000)].cpu().numpy().tobytes()
    return f"{images.dtype} {tuple(images.shape)} {zlib.crc32(some):08x}"


def name_of(objective):
    """A text that tells one objective from another: the name of its module and its own, and the arguments of a partial.

    It does not tell whether the function's code has changed, nor, of a module, what is neither in its repr nor in its
    state_dict. Raises ValueError for a lambda, a function within a function, and an object without a repr of its own,
    as two of these cannot be told apart.
    """
    if isinstance(objective, partial):
        given = [*map(_shown, objective.args), *(f"{name}={_shown(it)}" for name, it in objective.keywords.items())]
        name = f"{name_of(objective.func)}({', '.join(given)})"
    elif isfunction(objective):
        name = f"{objective.__module__}.{objective.__qualname__}"
    else:
        name = _shown(objective)
    if any(mark in name for mark in ("<lambda>", "<locals>", " at 0x")):
        raise ValueError("objective: wanted, for a checkpoint, a function that is defined at the top of a module, a "
                         f"partial of one, or an object whose repr says which it is, got {name}")
    return name


def _shown(value):
    """The repr of an argument; behind a module or a tensor a checksum, as their reprs leave numbers out."""
    tensors = value.state_dict() if isinstance(value, nn.Module) else {"": value}
    if not all(isinstance(part, torch.Tensor) for part in tensors.values()):
        return repr(value)
    content = safetensors.torch.save({name: _copied(part) for name, part in tensors.items()})
    return f"{value!r} {zlib.crc32(content):08x}"


def _copied(tensor):
    """A tensor of its own in main memory: safetensors takes none that shares memory, and no strided ones."""
    return tensor.detach().cpu().clone(memory_format=torch.contiguous_format)
