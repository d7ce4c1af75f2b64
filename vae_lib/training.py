"""Training a VAE on images in memory, with checkpoints that resume exactly (pages 08 to 11)."""

import math
import re
import zlib
from contextlib import ExitStack
from itertools import count
from numbers import Integral, Real
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from tqdm.auto import tqdm

from vae_lib import checkpoints
from vae_lib.data import binarize, to_unit
from vae_lib.likelihoods import Bernoulli
from vae_lib.memory import keeping_freed_memory
from vae_lib.objectives import Bound, elbo


def fit(model, images, *, steps, batch_size=128, learning_rate=1e-3, binarized=True, seed=0, objective=elbo,
        output_bias=False, warm_up=0, decay=False, weight_decay=0.0, clip=None, ema=None, autocast=False, device=None,
        checkpoint=None, resume=False, checkpoint_every=None, progress=True):
    """Maximise the mean of objective(model, x).elbo over images x by Adam, in place; return the history.

    images       uint8 (N, C, H, W): drawn anew as binary pixels for each batch or, with binarized=False,
                 scaled to [0, 1]; float (N, C, H, W): used as they stand
    steps        optimiser steps; N // batch_size of them, an epoch, go through the images in a new order
    seed         seeds everything random, with the number of the epoch; the caller's random state is left alone
    objective    (model, x) -> Bound
    output_bias  whether the decoder's last bias starts at the logit of the mean image (of its mean, for a
                 convolution): without z, a Bernoulli then predicts what is predictable without it
    warm_up      steps over which the KL's weight rises from 0 to 1: elbo + (1 - weight) * kl is maximised
    decay        whether the learning rate falls to zero, along half a cosine
    weight_decay before a step, weights with a gradient shrink by 1 - learning rate * weight_decay, as in AdamW
    clip         largest norm of the gradient
    ema          leaves an average over all steps in the model, of its weights and batch-norm statistics: those
                 after step t count in proportion to ema ** -t, those before the first step for nothing
    autocast     whether networks compute in bfloat16; weights, likelihood and KL stay float32
    device       where to train, by default CUDA if there is any; the model then returns to where it was
    checkpoint   file to write every `checkpoint_every` steps (default: an epoch) and at the end
    resume       whether to go on from the checkpoint if it exists: to the same bits as without interruption,
                 on a CPU with as many threads; `steps` may have grown, unless there is `decay`

    Returns {"elbo": [...], "log_px_given_z": [...], "kl": [...]}, means over the batch of each step, in nats.
    The model is left in eval mode. While it is trained, freed memory stays with the process: `keeping_freed_memory`.
    Raises TypeError or ValueError for arguments that do not fit and for a checkpoint that is damaged or of another
    run; FileExistsError rather than overwrite a checkpoint unasked; FloatingPointError, naming step and term, for a
    bound that is not finite: the last checkpoint stays.
    Kingma & Welling 2014, algorithm 1; Kingma & Ba 2015; Loshchilov & Hutter 2019.
    """
    _check_inputs(images, model)
    _check_options(len(images), steps, batch_size, learning_rate, seed, warm_up, weight_decay, clip, ema,
                   checkpoint_every)
    if autocast and not (hasattr(model, "encoder") and hasattr(model, "decoder")):
        raise ValueError(f"autocast: wanted a model with an encoder and a decoder, got {type(model).__name__}")
    home = next(model.parameters()).device
    device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    if device.type not in ("cpu", "cuda"):
        raise ValueError(f"device: wanted cpu or cuda, got {device}")
    settings = {
        "images": _fingerprint(images), "batch_size": batch_size, "learning_rate": learning_rate,
        "binarized": binarized, "seed": seed, "objective": re.sub(" at 0x[0-9a-fA-F]+", "", repr(objective)),
        "output_bias": output_bias, "warm_up": warm_up, "decay": decay and f"over {steps} steps",
        "weight_decay": weight_decay, "clip": clip, "ema": ema, "autocast": autocast, "device": device.type,
    }
    save_every = checkpoint_every or len(images) // batch_size
    history, pending = {name: [] for name in Bound._fields}, []
    with keeping_freed_memory(), ExitStack() as stack:
        stack.callback(lambda: model.to(home, memory_format=torch.contiguous_format).eval())
        model.to(device, memory_format=torch.channels_last).train()  # convolutions are faster so
        optimizer, averages, tensors = _prepare(model, learning_rate, weight_decay, ema)
        current = [tensors[f"model.{name}"] for name in averages]
        random_state = _resume(checkpoint, resume, steps, settings, tensors, history)
        start = len(history["elbo"])
        if output_bias and start == 0:
            _start_output_bias(model, images)
        generator = torch.default_generator
        if device.type == "cuda":
            generator = torch.cuda.default_generators[next(model.parameters()).device.index]
        stack.callback(generator.set_state, generator.get_state())
        for network in (model.encoder, model.decoder) if autocast else ():
            stack.enter_context(network.register_forward_hook(_to_float32))
        bar = stack.enter_context(tqdm(total=steps, initial=start, disable=not progress, mininterval=0.3))
        batches = _batches(images.to(device), binarized, batch_size, start, seed, generator, random_state)

        for step, x in zip(range(start, steps), batches):
            with torch.autocast(device.type, torch.bfloat16, enabled=autocast):
                bound = objective(model, x)
            pending.append(torch.stack(bound).detach().mean(1))
            if device.type == "cpu":  # a GPU would have to wait
                _settle(pending, history)
            weight = min(1.0, step / warm_up) if warm_up else 1.0
            loss = -(bound.elbo if weight == 1 else bound.elbo + (1 - weight) * bound.kl).mean()
            optimizer.zero_grad()
            loss.backward()
            if clip is not None:
                torch.nn.utils.clip_grad_norm_(optimizer.param_groups[0]["params"], clip)
            if decay:
                optimizer.param_groups[0]["lr"] = learning_rate * 0.5 * (1 + math.cos(math.pi * step / steps))
            optimizer.step()
            if ema is not None:
                torch._foreach_lerp_(list(averages.values()), current, (1 - ema) / (1 - ema ** (step + 1)))

            last = step + 1 == steps
            shown = bar.update() or last  # true a few times a second
            saved = checkpoint is not None and (last or (step + 1) % save_every == 0)
            if shown or saved or step % 100 == 0:
                _settle(pending, history)
            if shown:
                means = [sum(history[name][-100:]) / len(history[name][-100:]) for name in history]
                bar.set_postfix_str("ELBO {:.2f} = {:.2f} - {:.2f} nats".format(*means))
            if saved:
                checkpoints.write(checkpoint, tensors | _as_tensors(history, generator), settings)
        for name, average in averages.items():
            tensors[f"model.{name}"].copy_(average)
    return history


def _check_inputs(images, model):
    """Refuse images that cannot be trained on or that a Bernoulli has no meaning for, and a frozen model."""
    if not isinstance(model, torch.nn.Module):
        raise TypeError("model: wanted a VAE, or a torch.nn.Module that the objective takes, "
                        f"got {type(model).__name__}")
    wanted = "images: wanted a uint8 or float32 tensor of shape (N, C, H, W)"
    if not isinstance(images, Tensor):
        raise TypeError(f"{wanted}, got {type(images).__name__}")
    got = f"{str(images.dtype).removeprefix('torch.')} of shape {tuple(images.shape)}"
    if images.dtype not in (torch.uint8, torch.float32, torch.float64):
        raise TypeError(f"{wanted}, got {got}")
    if images.dim() != 4 or images.numel() == 0:
        raise ValueError(f"{wanted}, got {got}")
    low, high = (value.item() for value in images.aminmax())
    if not (math.isfinite(low) and math.isfinite(high)):
        raise ValueError(f"images: wanted finite values, got {low:g} to {high:g}")
    if images.dtype == torch.uint8 and high <= 1:
        raise ValueError(f"images: wanted uint8 grey values, 0 to 255, got 0 to {high}; bits come as float32")
    bernoulli = isinstance(getattr(model, "likelihood", None), Bernoulli)
    if bernoulli and images.is_floating_point() and (low < 0 or high > 1):
        raise ValueError(f"images: a Bernoulli likelihood wants values in [0, 1], got {low:g} to {high:g}")
    if not any(weights.requires_grad for weights in model.parameters()):
        raise ValueError("model: wanted weights that require gradients, got none")


def _check_options(num_images, steps, batch_size, learning_rate, seed, warm_up, weight_decay, clip, ema,
                   checkpoint_every):
    """Refuse numbers that make no sense: a ValueError names the argument."""
    def whole(value, low, high=math.inf):
        return isinstance(value, Integral) and not isinstance(value, bool) and low <= value <= high

    def between(value, low, high):
        return isinstance(value, Real) and low < value < high

    every = checkpoint_every
    for name, value, fits, wanted in (
        ("steps", steps, whole(steps, 1), "a positive integer"),
        ("batch_size", batch_size, whole(batch_size, 1, num_images),
         f"1 to {num_images}, the number of images"),
        ("learning_rate", learning_rate, between(learning_rate, 0, math.inf), "a positive finite number"),
        ("seed", seed, whole(seed, 0), "an integer, 0 or more"),
        ("warm_up", warm_up, whole(warm_up, 0), "an integer, 0 or more"),
        ("weight_decay", weight_decay, isinstance(weight_decay, Real) and 0 <= weight_decay < math.inf,
         "a finite number, 0 or more"),
        ("clip", clip, clip is None or between(clip, 0, math.inf), "None or a positive finite number"),
        ("ema", ema, ema is None or between(ema, 0, 1), "None or a number between 0 and 1"),
        ("checkpoint_every", every, every is None or whole(every, 1), "None or a positive integer"),
    ):
        if not fits:
            raise ValueError(f"{name}: wanted {wanted}, got {value!r}")


def _start_output_bias(model, images):
    """Let the decoder's last bias say how often a pixel is white: for each pixel, or one number for a convolution."""
    bias = getattr(getattr(getattr(model, "decoder", None), "to_output", None), "bias", None)
    if bias is None or not isinstance(model.likelihood, Bernoulli):
        raise ValueError("output_bias: wanted a Bernoulli likelihood, and a decoder whose layer to_output has a bias")
    mean = (images if images.is_floating_point() else to_unit(images)).mean(0).clamp(1e-3, 1 - 1e-3)
    with torch.no_grad():
        bias.copy_(mean.logit().flatten() if bias.numel() == mean.numel() else mean.mean().logit())


def _fingerprint(images):
    """What tells one set of images from another: type, shape, and a checksum of up to 1,000 of them."""
    some = images[::math.ceil(len(images) / 1000)].cpu().numpy().tobytes()
    return f"{images.dtype} {tuple(images.shape)} {zlib.crc32(some):08x}"


def _prepare(model, learning_rate, weight_decay, ema):
    """AdamW; the averages by name (none without `ema`); and by name all live tensors of a checkpoint."""
    state = model.state_dict()
    tensors = {f"model.{name}": value for name, value in state.items()}
    averages = {name: value.clone() for name, value in state.items()
                if ema is not None and value.is_floating_point()}
    tensors |= {f"average.{name}": value for name, value in averages.items()}
    trained = {name: weights for name, weights in model.named_parameters() if weights.requires_grad}
    optimizer = torch.optim.AdamW(trained.values(), learning_rate, weight_decay=weight_decay, fused=True)
    for name, weights in trained.items():  # as AdamW would set it up in its first step; here, to be read into
        optimizer.state[weights] = {
            "step": torch.zeros((), device=weights.device),
            "exp_avg": torch.zeros_like(weights),
            "exp_avg_sq": torch.zeros_like(weights),
        }
        tensors |= {f"adam.{name}.{key}": value for key, value in optimizer.state[weights].items()}
    return optimizer, averages, tensors


def _batches(images, binarized, batch_size, start, seed, generator, random_state):
    """Yield float batches from step `start` on; all that is random in an epoch comes from (seed, epoch)."""
    for step in count(start):
        epoch, position = divmod(step, len(images) // batch_size)
        if position == 0 or step == start:
            generator.manual_seed(int(np.random.SeedSequence((seed, epoch)).generate_state(1, np.uint64)[0]))
            order = torch.randperm(len(images), device=images.device)
            if position > 0:  # resumed within an epoch
                generator.set_state(random_state)
        x = images.index_select(0, order[position * batch_size:(position + 1) * batch_size])
        yield x if x.is_floating_point() else binarize(x) if binarized else to_unit(x)


def _to_float32(network, inputs, output):
    """Forward hook: what a network computed in bfloat16 goes on in float32."""
    return output.float() if isinstance(output, Tensor) else tuple(part.float() for part in output)


def _settle(pending, history):
    """Move the means of the latest steps into the history; stop at the first that are not finite."""
    for elbo_mean, log_px_given_z, kl in torch.stack(pending).tolist() if pending else ():
        means = {"log_px_given_z": log_px_given_z, "kl": kl, "elbo": elbo_mean}
        for name, value in means.items():
            if not math.isfinite(value):
                raise FloatingPointError(f"step {len(history[name]) + 1}: {name} is {value}: stopped")
        for name, value in means.items():
            history[name].append(value)
    pending.clear()


def _resume(path, resume, steps, settings, tensors, history):
    """Read a checkpoint, if there is one to resume, into tensors and history; return its random state."""
    if path is None or not Path(path).exists():
        if resume and path is None:
            raise ValueError("checkpoint: wanted a path to resume from, got None")
        return None
    if not resume:
        raise FileExistsError(f"checkpoint: {path} exists; go on from it with resume=True, or remove it")
    found, saved = checkpoints.read(path)
    if not saved:
        raise ValueError(f"checkpoint: {path} was not written by fit")
    saved.setdefault("weight_decay", 0.0)  # files older than this argument
    for name, value in settings.items():
        if saved.get(name) != value:
            raise ValueError(f"resume: {path} was written with {name}={saved.get(name)}, got {name}={value}")
    past = {name: found.pop(f"history.{name}").tolist() for name in history}
    if len(past["elbo"]) > steps:
        raise ValueError(f"steps: {path} has {len(past['elbo'])} steps behind it, got {steps}")
    random_state = found.pop("random")
    checkpoints.fill(tensors, found, path)
    history.update(past)
    return random_state


def _as_tensors(history, generator):
    """What a checkpoint holds beside weights and averages: the past, and the state of what is random."""
    past = {f"history.{name}": torch.tensor(means, dtype=torch.float64) for name, means in history.items()}
    return past | {"random": generator.get_state()}
