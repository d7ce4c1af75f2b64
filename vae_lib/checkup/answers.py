"""What encoders and decoders return, in many forms: the tensors that count, and the same form around other tensors."""

import copy
import math
from collections.abc import Mapping
from contextlib import suppress
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.distributions import Bernoulli, Distribution, Independent, Normal

MU = ("mu", "mean", "loc", "embedding", "z_mean", "mean_z")
SPREADS = {"log_var": "log_var", "logvar": "log_var", "log_covariance": "log_var", "z_log_var": "log_var",
           "log_std": "log_std", "logstd": "log_std", "log_sigma": "log_std",
           "std": "std", "scale": "std", "sigma": "std", "stddev": "std", "variance": "variance", "var": "variance"}


class NotReadable(Exception):
    """A function of the model does not do what a probe needs; the text says what."""


class Part(NamedTuple):
    """A tensor or two within an answer, of which take(answer) finds the like in another answer of the same form.

    put(*tensors) makes an answer of that form around other tensors. `spread` is what the second is, if a name says so.
    """

    tensors: tuple
    take: object
    put: object
    spread: str | None = None


def entries(answer):
    """The entries of a tuple, list, mapping or object, by key, and a function that makes the same of other entries."""
    if not isinstance(answer, (tuple, list)):
        held = isinstance(answer, Mapping)

        def rebuild(new):
            made = copy.copy(answer)
            for key, value in new.items():
                made.__setitem__(key, value) if held else object.__setattr__(made, key, value)
            return made
        return dict(answer if held else vars(answer)), rebuild
    keys = getattr(answer, "_fields", range(len(answer)))
    make = getattr(type(answer), "_make", type(answer))
    return dict(zip(keys, answer)), lambda new: make(new.values())


def with_entries(answer):
    """Whether an answer has entries: a tuple, list or mapping, or an object with attributes, a dataclass for one."""
    return isinstance(answer, (tuple, list, Mapping)) or (hasattr(answer, "__dict__") and not isinstance(
        answer, (Tensor, nn.Module, Distribution)))


def posterior_part(answer, z=None):
    """Mean and spread of q(z|x) in what an encoder returns, as a Part; None if they are not found.

    A third tensor may be z itself, the decoder's argument: it is neither, and becomes nan in other answers.
    """
    normal = answer.base_dist if isinstance(answer, Independent) else answer
    if isinstance(normal, Normal):
        wrap = (lambda it: Independent(it, answer.reinterpreted_batch_ndims)) if normal is not answer else lambda it: it
        take = lambda answer: (answer.mean, answer.stddev)
        return Part(take(answer), take, lambda mu, std: wrap(Normal(mu, std)), "std")
    if not with_entries(answer):
        return None
    found, rebuild = entries(answer)
    keys = [key for key, value in found.items() if isinstance(value, Tensor) and value.is_floating_point()]
    drawn = [key for key in keys if z is not None and len(keys) > 2 and torch.equal(found[key], z)]
    keys = [key for key in keys if key not in drawn]
    named = [[key for key in keys if str(key).lower() in names] for names in (MU, SPREADS)]
    pair = [named[0][0], named[1][0]] if all(named) else keys[:2] if isinstance(answer, (tuple, list)) else []
    several = not isinstance(answer, (tuple, list)) and len(named[1]) > 1  # a std would not follow its log_var
    if len(pair) < 2 or several or found[pair[0]].shape != found[pair[1]].shape or found[pair[0]].dim() < 2:
        return None

    def put(mu, second):
        return rebuild(found | {pair[0]: mu, pair[1]: second} | {key: torch.full_like(mu, torch.nan) for key in drawn})

    def take(answer):
        return tuple(entries(answer)[0][key] for key in pair)
    return Part(take(answer), take, put, SPREADS.get(str(pair[1]).lower()))


def swapped(find):
    """The same search, for an answer that holds the spread first and mu second."""
    def find_swapped(answer, z):
        part = find(answer, z)
        return part and Part(part.tensors[::-1], lambda answer: part.take(answer)[::-1],
                             lambda mu, second: part.put(second, mu))
    return find_swapped


def halves_part(answer, z):
    """Mean and spread as the halves of one tensor (rows, 2 * latents, ...), where z has so many latents; else None."""
    if not isinstance(answer, Tensor) or answer.dim() < 2 or answer.shape[1] % 2:
        return None
    latent_shape = (answer.shape[1] // 2, *answer.shape[2:])
    if z.shape[-len(latent_shape):] != latent_shape:
        return None
    take = lambda answer: answer.chunk(2, 1)
    return Part(take(answer), take, lambda mu, second: torch.cat([mu, second], 1))


def output_part(answer, numel):
    """The tensor of `numel` numbers in what a decoder returns, as a Part; None if there is none."""
    if isinstance(answer, Tensor):
        return Part((answer,), lambda answer: (answer,), lambda output: output) if answer.numel() == numel else None
    inner = answer.base_dist if isinstance(answer, Independent) else answer
    if isinstance(inner, (Bernoulli, Normal)) and inner.mean.numel() == numel:
        wrap = (lambda it: Independent(it, answer.reinterpreted_batch_ndims)) if inner is not answer else lambda it: it
        if isinstance(inner, Bernoulli):
            take = lambda answer: (getattr(answer, "base_dist", answer).logits,)
            return Part(take(answer), take, lambda logits: wrap(Bernoulli(logits=logits)))
        take = lambda answer: (answer.mean,)
        return Part(take(answer), take, lambda mean: wrap(Normal(mean, inner.scale.flatten()[0])))
    if not with_entries(answer):
        return None
    found, rebuild = entries(answer)
    key = next((key for key, value in found.items() if isinstance(value, Tensor) and value.numel() == numel), None)
    if key is None:
        return None
    shape = found[key].shape

    def put(output):
        others = {name: value[:1].expand_as(output).to(output.dtype) for name, value in found.items()
                  if name != key and isinstance(value, Tensor) and value.shape == shape}
        return rebuild(found | others | {key: output})
    return Part((found[key],), lambda answer: (entries(answer)[0][key],), put)


def number_of(value):
    """A loss as a float: a number, a tensor with one, or what holds it under `loss`.

    NotReadable for anything else, and for what is not finite.
    """
    if isinstance(value, Mapping):
        if "loss" not in value:
            raise NotReadable(f"wanted one number, got {type(value).__name__} without the key 'loss'")
        value = value["loss"]
    value = getattr(value, "loss", value)
    with suppress(TypeError, ValueError, RuntimeError):
        number = float(value)
        if not math.isfinite(number):
            raise NotReadable(f"it gave {number}")
        return number
    raise NotReadable(f"wanted one number, got {type(value).__name__} "
                      f"{tuple(value.shape) if isinstance(value, Tensor) else ''}".rstrip())


def first_line(error):
    """What an error says, in one line of at most 160 characters."""
    text = f"{type(error).__name__}: {error}"
    if "does not require grad" in text:
        return "it asks for gradients; wanted a function that computes the loss alone, not a step of training"
    line = text.splitlines()[0]
    return f"it raised {line if len(line) <= 160 else line[:157] + '...'}"
