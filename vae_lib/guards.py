"""The checks of arguments: each refuses a value with the argument's name, the value wanted, and the one it got.

A guard is a function of an argument's name and value. It returns the value as the library works with it (an int, a
float, a tuple, a tensor in float64), or raises TypeError or ValueError. `takes` puts guards before a function.
NumPy's numbers count as numbers, True and False do not.
"""

import math
from functools import partial, wraps
from inspect import signature
from numbers import Integral, Real

import torch
from torch import Tensor, nn

HALVES = (torch.float16, torch.bfloat16)
FLOATS = (*HALVES, torch.float32, torch.float64)


def before(function, check):
    """The function, called after check(arguments), a dict by name that the check may change. Defaults are not in it."""
    parameters = signature(function)

    @wraps(function)
    def checked(*args, **kwargs):
        given = parameters.bind(*args, **kwargs)
        check(given.arguments)
        return function(*given.args, **given.kwargs)
    return checked


def takes(**guards):
    """Make a function check arguments: with takes(n=integer) it is called with integer("n", n) in place of n."""
    def check(given):
        given |= {name: guard(name, given[name]) for name, guard in guards.items() if name in given}
    return lambda function: before(function, check)


def widened(function):
    """Make a function work, and answer, in float32 where it is given float16 or bfloat16.

    In float16 exp(12) is infinite, and a sum of thousands of nats is rounded to whole ones.
    """
    return before(function, widen)


def widen(given):
    """The arguments, a dict by name, with tensors of float16 and bfloat16 in float32."""
    given |= {name: value.float() for name, value in given.items() if getattr(value, "dtype", None) in HALVES}


def integer(name, value, at_least=1, at_most=math.inf, multiple_of=1):
    """The value as an int; ValueError unless it is an integer between the two limits."""
    if (isinstance(value, Integral) and not isinstance(value, bool) and at_least <= value <= at_most
            and value % multiple_of == 0):
        return int(value)
    kind = "an even integer" if multiple_of == 2 else "an integer"
    limits = f"{at_least} or more" if at_most == math.inf else f"{at_least} to {at_most}"
    raise ValueError(f"{name}: wanted {kind}, {limits}, got {value!r}")


def number(name, value, wanted, fits):
    """The value as a float; ValueError unless it is a real number that fits."""
    if isinstance(value, Real) and not isinstance(value, bool) and fits(value):
        return float(value)
    raise ValueError(f"{name}: wanted {wanted}, got {value!r}")


count = partial(integer, at_least=0)
even = partial(integer, at_least=2, multiple_of=2)
positive = partial(number, wanted="a positive finite number", fits=lambda it: 0 < it < math.inf)
not_negative = partial(number, wanted="a finite number, 0 or more", fits=lambda it: 0 <= it < math.inf)
fraction = partial(number, wanted="a number between 0 and 1", fits=lambda it: 0 < it < 1)


def interval(name, value):
    """The two ends as floats; ValueError unless they are finite numbers, the lower one first."""
    ends = [end for end in value if isinstance(end, Real)] if isinstance(value, (tuple, list)) else []
    if len(ends) == 2 == len(value) and -math.inf < ends[0] < ends[1] < math.inf:
        return float(ends[0]), float(ends[1])
    raise ValueError(f"{name}: wanted two finite numbers, the lower one first, got {value!r}")


def sizes(name, value, wanted="positive integers", fits=lambda it: True):
    """The sizes as a tuple of ints; ValueError unless they are positive integers, as many as fit."""
    if isinstance(value, (tuple, list)) and fits(value) and all(
            isinstance(size, Integral) and not isinstance(size, bool) and size > 0 for size in value):
        return tuple(map(int, value))
    raise ValueError(f"{name}: wanted {wanted}, got {value!r}")


def one_of(*words):
    """The guard of an argument that is one of these words."""
    def guard(name, value):
        if value not in words:
            raise ValueError(f"{name}: wanted {' or '.join(map(repr, words))}, got {value!r}")
        return value
    return guard


def function(name, value, wanted="a function"):
    """The function itself; TypeError unless it can be called."""
    if not callable(value):
        raise TypeError(f"{name}: wanted {wanted}, got {type(value).__name__}")
    return value


def optional(guard):
    """The guard of an argument that may be None."""
    return lambda name, value: None if value is None else guard(name, value)


def tensor(name, value, *shape, kind="a floating-point tensor", dtypes=FLOATS, at_least=1):
    """The tensor itself; TypeError or ValueError unless it has this shape, one of these types, and finite values.

    In `shape` a number must be met, a string stands for any size but zero, "..." in front for any leading
    dimensions. `at_least` says how long the first dimension is.
    """
    more = f", {shape[0]} >= {at_least}" if at_least > 1 else ""
    wanted = f"{name}: wanted {kind} of shape ({', '.join(map(str, shape))}){more}"
    if not isinstance(value, Tensor):
        raise TypeError(f"{wanted}, got {type(value).__name__}")
    got = f"got {str(value.dtype).removeprefix('torch.')} of shape {tuple(value.shape)}"
    if value.dtype not in dtypes:
        raise TypeError(f"{wanted}, {got}")
    last = shape[1:] if shape[0] == "..." else shape
    dims_fit = value.dim() >= len(last) if shape[0] == "..." else value.dim() == len(last)
    sizes_fit = all(isinstance(size, str) or size == found for size, found in zip(last[::-1], value.shape[::-1]))
    if not (dims_fit and sizes_fit and value.numel() and (at_least == 1 or len(value) >= at_least)):
        raise ValueError(f"{wanted}, {got}")
    if value.is_floating_point() and not value.isfinite().all():
        raise ValueError(f"{name}: wanted finite numbers, got NaN or infinity")
    return value


def float64(name, value, *shape):
    """The tensor in float64, checked as by `tensor`."""
    return tensor(name, value, *shape).double()


def distributions(name, value, *shape):
    """The tensor in float64; ValueError unless each row, or the vector, is a distribution."""
    value = float64(name, value, *shape)
    if (value < 0).any() or ((value.sum(-1) - 1).abs() > 1e-5).any():
        raise ValueError(f"{name}: wanted numbers, 0 or more, that sum to one, got {value.min():g} to "
                         f"{value.max():g} and sums from {value.sum(-1).min():g} to {value.sum(-1).max():g}")
    return value


def posteriors(mu, log_var):
    """The two tensors in float64; TypeError or ValueError unless they have one shape (N, latent_dim)."""
    mu = float64("mu", mu, "N", "latent_dim")
    log_var = float64("log_var", log_var, *mu.shape)
    if log_var.abs().max() > 700:  # beyond, the variance is zero or infinite even in float64
        raise ValueError(f"log_var: wanted values between -700 and 700, got {log_var.min():g} to {log_var.max():g}")
    return mu, log_var


def at_least_one(name, value):
    """The tensor; ValueError if its first dimension is missing or empty."""
    if value.dim() == 0 or len(value) == 0:
        raise ValueError(f"{name}: wanted at least one entry along a first dimension, got shape {tuple(value.shape)}")
    return value


def grey_images(name, value):
    """The images; TypeError or ValueError unless they are uint8 of shape (N, C, H, W)."""
    return tensor(name, value, "N", "C", "H", "W", kind="a uint8 tensor, grey values 0 to 255,", dtypes=(torch.uint8,))


def training_images(name, value):
    """The images; TypeError or ValueError unless they are grey values as uint8, or floats, of shape (N, C, H, W)."""
    tensor(name, value, "N", "C", "H", "W", kind="a uint8, float32 or float64 tensor",
           dtypes=(torch.uint8, torch.float32, torch.float64))
    if value.dtype == torch.uint8 and value.max() <= 1:
        raise ValueError(f"{name}: wanted uint8 grey values, 0 to 255, got 0 to {value.max()}; bits come as float32")
    return value


def pixels_for(likelihood, name, value):
    """Raise ValueError if a pixel lies outside the range for which the likelihood is meant."""
    lowest, highest = getattr(likelihood, "pixel_range", (-math.inf, math.inf))
    if value.min() < lowest or value.max() > highest:
        raise ValueError(f"{name}: wanted values in [{lowest}, {highest}] for a {type(likelihood).__name__}, "
                         f"got {value.min():g} to {value.max():g}")


def finite_or_stop(tensors, reason):
    """Raise FloatingPointError, with the reason, if one of the tensors, a dict by name, has NaN or infinity."""
    for name, value in tensors.items():
        if not value.isfinite().all():
            raise FloatingPointError(f"{name} is not finite: {reason}")


def trainable(name, value):
    """The model; TypeError if it is no module, or wraps one; ValueError if none of its weights requires a gradient."""
    if not isinstance(value, nn.Module):
        raise TypeError(f"{name}: wanted a VAE, or a torch.nn.Module that the objective takes, "
                        f"got {type(value).__name__}")
    if isinstance(getattr(value, "module", None), nn.Module) and not hasattr(value, "encoder"):
        raise TypeError(f"{name}: wanted the model itself, got {type(value).__name__} around it: give its `module`")
    if not any(weights.requires_grad for weights in value.parameters()):
        raise ValueError(f"{name}: wanted weights that require gradients, got none")
    return value


def device(name, value):
    """The device as torch has it, of its name; ValueError unless it is the CPU, or a CUDA device that is there."""
    try:
        found = torch.device(value)
    except (RuntimeError, TypeError):
        found = None
    if found is None or found.type not in ("cpu", "cuda"):
        raise ValueError(f"{name}: wanted cpu or cuda, got {value!r}")
    if found.type == "cuda" and not torch.cuda.is_available():
        raise ValueError(f"{name}: wanted cpu, as torch finds no CUDA here, got {value!r}")
    if found.type == "cuda" and (found.index or 0) >= (there := torch.cuda.device_count()):
        raise ValueError(f"{name}: wanted one of {there} CUDA devices, counted from 0, got {value!r}")
    return found


def bound_of(batch_size, value):
    """The bound; TypeError or ValueError unless its three parts have shape (batch_size,): nothing was broadcast."""
    shapes = [tuple(getattr(part, "shape", ())) for part in value] if isinstance(value, tuple) else type(value).__name__
    if shapes != [(batch_size,)] * 3:
        error = ValueError if isinstance(value, tuple) else TypeError
        raise error(f"objective: wanted a Bound of three tensors of shape ({batch_size},), got {shapes}")
    return value


def density(name, value, wanted="a density with a method log_prob, or None for N(0, I)"):
    """The value; TypeError if it has no method log_prob, or is a class that has one."""
    if isinstance(value, type) or not hasattr(value, "log_prob"):
        raise TypeError(f"{name}: wanted {wanted}, got {value!r}")
    return value


def activation(name, value):
    """The class of an activation, or None; ValueError for an activation itself."""
    if value is None or isinstance(value, type):
        return value
    raise ValueError(f"{name}: wanted a class such as nn.ReLU, or None, got {value!r}")


def takes_sizes(init):
    """Make a constructor refuse sizes of which no network can be built: ValueError."""
    def divides(given):
        shrink = 2 ** len(given.get("channels", ()))
        if any(size % shrink for size in given["image_shape"][1:]):
            raise ValueError(f"image_shape: wanted a height and a width that {shrink} divides, a factor of 2 "
                             f"for each stage, got {given['image_shape']!r}")
    return takes(image_shape=partial(sizes, wanted="positive integers (C, H, W)", fits=lambda it: len(it) == 3),
                 channels=partial(sizes, wanted="a positive integer for each stage", fits=len),
                 hidden=partial(sizes, wanted="a positive integer for each hidden layer"),
                 latent_dim=integer, blocks=integer, activation=activation,
                 output_activation=activation)(before(init, divides))


def takes_parts(init):
    """Make a VAE refuse a likelihood that is none, and networks for different images: TypeError or ValueError."""
    def fit_together(given):
        density("likelihood", given["likelihood"], wanted="Bernoulli() or Gaussian(variance)")
        shapes = given["encoder"].image_shape, given["decoder"].image_shape
        if shapes[0] != shapes[1]:
            raise ValueError(f"image_shape: encoder has {shapes[0]}, decoder {shapes[1]}")
    return before(init, fit_together)


def takes_images(forward):
    """Make an encoder refuse anything but float images of its size: TypeError or ValueError."""
    def fits(given):
        network, x = given.values()
        dtype = next(network.parameters()).dtype
        if getattr(x, "dtype", None) != dtype:
            raise TypeError(f"x: wanted a tensor of {dtype}, as the weights are, got {getattr(x, 'dtype', type(x))}; "
                            "vae_lib.data has to_unit and binarize")
        if x.shape[1:] != network.image_shape:
            raise ValueError(f"x: wanted images of shape (batch, {', '.join(map(str, network.image_shape))}), "
                             f"got {tuple(x.shape)}")
    return before(forward, fits)


def takes_latents(forward):
    """Make a decoder or a flow refuse latents of another dimension than its own: ValueError."""
    def fits(given):
        network, (name, z) = given["self"], list(given.items())[1]
        if z.dim() == 0 or z.shape[-1] != network.latent_dim:
            raise ValueError(f"{name}: wanted latents of shape (..., {network.latent_dim}), got {tuple(z.shape)}")
    return before(forward, fits)


def takes_pixels(function):
    """Make a function refuse images x of another size than the decoder's output that it compares them with: ValueError.

    Without it (8, 28, 28) and (8, 1, 28, 28) would be broadcast: each image compared with each output. Tensors of
    float16 and bfloat16 come in float32, as by `widened`.
    """
    def fits(given):
        x, wanted = given["x"], given["output"].shape[-3:]
        if x.dim() < 3 or x.shape[-3:] != wanted:
            raise ValueError(f"x: wanted images of shape (..., {', '.join(map(str, wanted))}), as the decoder's "
                             f"output has, got {tuple(x.shape)}")
        widen(given)
    return before(function, fits)
