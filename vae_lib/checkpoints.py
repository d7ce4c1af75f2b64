"""Weights and checkpoints on disk: safetensors files, written whole or not at all."""

import json
import os
from pathlib import Path

import safetensors.torch
import torch


def save_weights(model, path, half=True):
    """Write weights and buffers to a safetensors file, whole or not at all; as float16 if `half`.

    Raises FloatingPointError for a value that is not finite (float16 ends at 65,504).
    """
    write(path, {name: value.half() if half and value.is_floating_point() else value
                  for name, value in model.state_dict().items()})


def load_weights(model, path):
    """Read what `save_weights` wrote into a model of the same layers; return the model, in eval mode.

    Raises FileNotFoundError, or ValueError for a file that is damaged or does not fit the model.
    """
    found, settings = read(path)
    if settings:
        raise ValueError(f"path: wanted weights, got {path}, a checkpoint of fit; resume it with fit")
    fill(model.state_dict(), found, path)
    return model.eval()


def fill(tensors, found, path):
    """Copy tensors that were read into those of the same names; ValueError if any name or shape differs."""
    for name in sorted(tensors.keys() | found.keys()):
        here, there = (tuple(group[name].shape) if name in group else "absent" for group in (tensors, found))
        if here != there:
            raise ValueError(f"{path} does not fit this model: {name} is {there} in the file, {here} here")
    for name, value in found.items():
        tensors[name].copy_(value)


def read(path):
    """The tensors of a safetensors file, and the settings that `fit` left in it or None."""
    if Path(path).is_dir():
        raise ValueError(f"path: wanted a safetensors file, got the folder {path}")
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            settings = (file.metadata() or {}).get("settings", "null")
            return {name: file.get_tensor(name) for name in file.keys()}, json.loads(settings)
    except safetensors.SafetensorError as error:
        raise ValueError(f"{path} is truncated or no safetensors file: {error}") from error


def write(path, tensors, settings=None):
    """Write a safetensors file, which is whole or, if anything fails, what it was before."""
    tensors = {name: value.detach().cpu().clone(memory_format=torch.contiguous_format)
               for name, value in tensors.items()}
    for name, value in tensors.items():
        if not value.isfinite().all():
            raise FloatingPointError(f"{path} was not written: {name} is not finite")
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.part")
    with open(part, "wb") as file:
        file.write(safetensors.torch.save(tensors, {"settings": json.dumps(settings)}))
        file.flush()
        os.fsync(file.fileno())
    os.replace(part, path)
