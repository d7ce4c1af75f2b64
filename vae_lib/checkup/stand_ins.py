"""Other functions in place of a model's parts, for a while: to watch what passes, or to answer something chosen."""

from contextlib import ExitStack, contextmanager
from functools import partial
from operator import attrgetter
from typing import NamedTuple

from torch import Tensor, nn

from vae_lib.checkup.answers import NotReadable


class Call(NamedTuple):
    """A call of the model's part `name`, of which one tensor argument and the answer are kept.

    Of two parts that encode, `answer` is a pair; of the first and the last that decode, it is that of the last.
    """

    name: str
    argument: Tensor
    answer: object


@contextmanager
def replaced(model, name, function):
    """The model's part `name`, a method or a module, answers function(original, *args, **kwargs) for a while."""
    *path, last = name.split(".")
    owner = attrgetter(".".join(path))(model) if path else model
    if isinstance(getattr(owner, last), nn.Module):
        owner = getattr(owner, last)
        last = "_call_impl" if owner._forward_hooks else "forward"  # the answer is what the part's own hooks leave
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


@contextmanager
def answering(model, seams, encode, decode):
    """For a while the model's encoder answers encode(its argument), and its decoder decode(z)."""
    heads, decoders, made = seams.encode.name.split(", "), seams.decode.name.split(", "), []
    latent_shape, dtype = seams.posterior.tensors[0].shape[1:], seams.decode.argument.dtype

    def head(original, *args, place, **kwargs):
        answer = encode(first_tensor(args, kwargs))
        return answer if len(heads) == 1 else answer[place]

    def enter(original, *args, **kwargs):
        z = first_tensor(args, kwargs)
        made.append(decode(z))
        if len(decoders) == 1:
            return made[-1]
        usual = z.to(dtype).narrow(z.dim() - len(latent_shape), 0, latent_shape[0])  # z may have more latents
        return original(*(usual if value is z else value for value in args), **kwargs)

    def leave(original, *args, **kwargs):
        if not made:
            raise NotReadable(f"{decoders[1]} ran before {decoders[0]}")
        return made[-1]

    with ExitStack() as stack:
        for place, name in enumerate(heads):
            stack.enter_context(replaced(model, name, partial(head, place=place)))
        for name, function in zip(decoders, (enter, leave)):
            stack.enter_context(replaced(model, name, function))
        yield


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
