"""Where a model encodes and where it decodes: the two calls between which the latents pass, found by watching a run."""

from contextlib import ExitStack, contextmanager
from itertools import combinations
from operator import attrgetter
from typing import NamedTuple

from torch import Tensor, nn

from vae_lib.checkup.answers import Part, first_line, halves_part, output_part, posterior_part


class Call(NamedTuple):
    """A call of the model's part `name`, of which one tensor argument and the answer are kept."""

    name: str
    argument: Tensor
    answer: object


class Seams(NamedTuple):
    """The names of encoder and decoder, an example of each one's call, and the parts of their answers that count."""

    encode: Call
    decode: Call
    posterior: Part
    output: Part
    drive: object


@contextmanager
def replaced(model, name, function):
    """The model's part `name`, a method or a module, answers function(original, *args, **kwargs) for a while."""
    *path, last = name.split(".")
    owner = attrgetter(".".join(path))(model) if path else model
    if isinstance(getattr(owner, last), nn.Module):
        owner, last = getattr(owner, last), "forward"
    original, own = getattr(owner, last), vars(owner)
    before = own.get(last)
    own[last] = lambda *args, **kwargs: function(original, *args, **kwargs)
    try:
        yield
    finally:
        if before is None:
            del own[last]
        else:
            own[last] = before


def first_tensor(args, kwargs):
    """The first tensor among the arguments of a call, or None."""
    return next((value for value in (*args, *kwargs.values()) if isinstance(value, Tensor)), None)


def watched(model, run, names):
    """The calls of the parts `names` during run(), in the order in which they began; and the error that stopped it."""
    calls = []

    def spy(name):
        def watch(original, *args, **kwargs):
            place, argument = len(calls), first_tensor(args, kwargs)
            calls.append(None)
            answer = original(*args, **kwargs)
            calls[place] = Call(name, argument, answer)
            return answer
        return watch

    with ExitStack() as stack:
        for name in names:
            stack.enter_context(replaced(model, name, spy(name)))
        try:
            run()
            error = None
        except Exception as caught:  # a foreign model may raise anything: another way to run it is tried
            error = caught
    return [call for call in calls if call is not None and call.argument is not None], error


def parts_of(model):
    """The names of what may be a model's encoder or decoder: two methods, and every module in it."""
    methods = [name for name in ("encode", "decode") if callable(getattr(model, name, None))]
    return methods + [name for name, _ in model.named_modules(remove_duplicate=True) if name and name not in methods]


def seams_of(first, second, part, pixels, drive):
    """The Seams of two calls; None unless the second turns z of the size of the first one's mu into images."""
    posterior = part(first.answer, second.argument)
    if posterior is None:
        return None
    latent_shape = posterior.tensors[0].shape[1:]
    if second.argument.shape[-len(latent_shape):] != latent_shape:
        return None
    output = output_part(second.answer, second.argument.numel() // latent_shape.numel() * pixels)
    return output and Seams(first, second, posterior, output, drive)


def find_seams(model, x, drives, encode=None, decode=None):
    """The Seams of a model, by running the first of `drives`, functions of (model, x), in which both are called.

    Raises ValueError where nothing returns mu and log_var, or nothing turns z into an image, and for unknown names.
    """
    reasons, names = [], parts_of(model)
    for argument, name in (("encode", encode), ("decode", decode)):
        if name is not None and name not in names:
            try:
                attrgetter(name)(model)
            except (AttributeError, TypeError):
                raise ValueError(f"{argument}: wanted the name of a part of the model, got {name!r}") from None
            names.append(name)
    for drive in drives:
        calls, error = watched(model, lambda drive=drive: drive(model, x), names)
        for part in (posterior_part, halves_part):
            for first, second in combinations(calls, 2):
                if encode in (None, first.name) and decode in (None, second.name):
                    seams = seams_of(first, second, part, x[0].numel(), drive)
                    if seams is not None:
                        return seams
        reasons.append(f"{', '.join(dict.fromkeys(call.name for call in calls)) or 'no part'} ran"
                       + (f"; {first_line(error)}" if error else ""))
    raise ValueError("model: wanted a VAE with a part that returns (mu, log_var) and one that turns z into an image; "
                     "name them with encode= and decode=, or give it methods encode(x) and decode(z). Found: "
                     + " / ".join(reasons))
