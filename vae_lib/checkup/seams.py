"""Where a model encodes and where it decodes: the calls between which the latents pass, found by watching a run.

Mostly one part returns mu and log_var, and one turns z into an image. But two layers may return them, and z may pass
through several layers that stand in one `forward`. A name is then that of two parts, as in "fc_mu, fc_var".
"""

from itertools import islice, permutations
from operator import attrgetter
from typing import NamedTuple

import torch
from torch import Tensor

from vae_lib.checkup.answers import Part, first_line, halves_part, output_part, posterior_part, swapped
from vae_lib.checkup.stand_ins import Call, watched

TRIED = 60  # of the places where mu and z may be, in one run


class Seams(NamedTuple):
    """The names of encoder and decoder, an example of each one's call, and the parts of their answers that count."""

    encode: Call
    decode: Call
    posterior: Part
    output: Part
    drive: object


def parts_of(model):
    """The names of what may encode or decode: every module in a model, and its methods encode and decode."""
    names = []
    for path, module in model.named_modules():
        methods = [name for name in ("encode", "decode") if callable(getattr(module, name, None))]
        names += [path] * bool(path) + [f"{path}.{name}" if path else name for name in methods]
    return list(dict.fromkeys(names))


def heads_in(calls):
    """Calls of two parts that may return mu and log_var, each with the place of the later one.

    They have equal arguments and answers of one shape, and none of the parts lies in the other.
    """
    for (here, first), (there, second) in permutations(enumerate(calls), 2):
        if not (isinstance(first.answer, Tensor) and isinstance(second.answer, Tensor)):
            continue
        nested = any(one.name.startswith(f"{other.name}.") for one, other in ((first, second), (second, first)))
        alike = first.answer.shape == second.answer.shape and first.argument.dtype == second.argument.dtype
        if (alike and not nested and first.answer is not second.answer and first.answer.dim() > 1
                and torch.equal(first.argument, second.argument)):
            both = Call(f"{first.name}, {second.name}", first.argument, (first.answer, second.answer))
            yield max(here, there), both


def decoders_in(calls, numel):
    """The calls, and from each the way to the last one that returns `numel` numbers."""
    yield from calls
    ends = [place for place, call in enumerate(calls) if output_part(call.answer, numel)]
    last = calls[ends[-1]] if ends else None
    for first in calls[:ends[-1]] if ends else ():
        if first.name != last.name:
            yield Call(f"{first.name}, {last.name}", first.argument, last.answer)


def seams_of(first, second, part, pixels, drive):
    """The Seams of two calls; None unless the second turns z of the size of the first one's mu into images."""
    posterior = part(first.answer, second.argument)
    if posterior is None:
        return None
    latent_shape = posterior.tensors[0].shape[1:]
    if second.argument.shape[-len(latent_shape):] != latent_shape:
        return None
    rows = second.argument.numel() // latent_shape.numel()
    output = output_part(second.answer, rows * pixels)
    in_rows = output and any(output.tensors[0].shape[:dims].numel() == rows for dims in range(1, 5))
    return Seams(first, second, posterior, output, drive) if in_rows else None


def candidates(calls, x, drive, encode, decode):
    """Pairs (Seams, sure), the likeliest first; sure, where one part says by its answer's form that it encodes."""
    for part, one in ((posterior_part, True), (halves_part, True), (posterior_part, False),
                      (swapped(posterior_part), True), (swapped(halves_part), True)):
        for place, first in enumerate(calls) if one else heads_in(calls):
            rest = calls[place + 1:]
            for second in decoders_in(rest, x.numel()) if encode in (None, first.name) else ():
                if decode in (None, second.name):
                    seams = seams_of(first, second, part, x[0].numel(), drive)
                    if seams is not None:
                        yield seams, encode is not None or (part is posterior_part and one)


def find_seams(model, x, drives, encode, decode, located):
    """The Seams of a model, by running the first of `drives`, functions of (model, x), in which both are called.

    located(seams) says whether z follows mu there; such are taken first. Raises ValueError where nothing returns mu and
    log_var, or nothing turns z into an image, and for unknown names.
    """
    reasons, names = [], parts_of(model)
    for argument, name in (("encode", encode), ("decode", decode)):
        for part in name.split(", ") if name is not None else ():
            try:
                attrgetter(part)(model)
            except (AttributeError, TypeError):
                raise ValueError(f"{argument}: wanted the name of a part of the model, got {name!r}") from None
            names += [part] * (part not in names)
    for drive in drives:
        calls, error = watched(model, lambda drive=drive: drive(model, x.clone()), names)
        tried = list(islice(candidates(calls, x, drive, encode, decode), TRIED))
        found = next((seams for seams, _ in tried if located(seams)), None)
        found = found or next((seams for seams, sure in tried if sure), None)
        if found is not None:
            return found
        scripted = isinstance(model, torch.jit.ScriptModule)
        reasons.append(f"{', '.join(dict.fromkeys(call.name for call in calls)) or 'no part'} ran"
                       + (f"; {first_line(error)}" if error else "")
                       + "; a scripted model hides its parts: give the module that it was made of" * scripted)
    raise ValueError("model: wanted a VAE with a part that returns (mu, log_var) and one that turns z into an image; "
                     "name them with encode= and decode= (two layers: encode='fc_mu, fc_var'), or give it methods "
                     "encode(x) and decode(z). Found: "
                     + " / ".join(dict.fromkeys(reasons)))
