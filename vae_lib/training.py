"""Training a VAE on images in memory, with checkpoints that resume exactly (pages 08 to 12).

The loop in `fit` is algorithm 1 of Kingma & Welling 2014; the functions below it are its schedules and its batches.
"""

import math
from contextlib import ExitStack, contextmanager
from itertools import count as count_from
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from tqdm.auto import tqdm

from vae_lib import guards
from vae_lib.checkpoints import fingerprint, name_of, read_checkpoint, write_checkpoint
from vae_lib.data import binarize, to_unit
from vae_lib.files import refuse_unwritable
from vae_lib.likelihoods import Bernoulli
from vae_lib.muon import FilterMuon
from vae_lib.objectives import Bound, elbo


@guards.takes(
    model=guards.trainable, images=guards.training_images, steps=guards.integer, batch_size=guards.integer,
    learning_rate=guards.positive, seed=guards.count, warm_up=guards.count, weight_decay=guards.not_negative,
    clip=guards.optional(guards.positive), ema=guards.optional(guards.fraction),
    checkpoint_every=guards.optional(guards.integer), objective=guards.function,
    device=guards.optional(guards.device))
def fit(model, images, *, steps, batch_size=128, learning_rate=1e-3, binarized=True, seed=0, objective=elbo,
        output_bias=False, warm_up=0, decay=False, weight_decay=0.0, clip=None, ema=None, muon=False, autocast=False,
        device=None, checkpoint=None, resume=False, checkpoint_every=None, progress=True):
    """Maximise the mean of objective(model, x).elbo over images x by Adam, or Muon, in place; return the history.

    images       uint8 (N, C, H, W): drawn anew as binary pixels for each batch or, with binarized=False,
                 scaled to [0, 1]; float (N, C, H, W): used as they stand
    steps        optimiser steps; N // batch_size of them, an epoch, go through the images in a new order
    seed         seeds everything random, with the number of the epoch; the caller's random state is left alone
    objective    (model, x) -> Bound
    output_bias  whether the decoder's last bias starts at the logit of the mean image (for a convolution, at the
                 logit of the mean pixel), so that a Bernoulli predicts that mean before z is of any use
    warm_up      steps over which the KL's weight rises from 0 to 1
    decay        whether the learning rate falls to zero, along half a cosine
    weight_decay before a step, weights with a gradient shrink by 1 - learning rate * weight_decay, as in AdamW
    clip         largest norm of the gradient
    ema          decay rate of an exponential moving average of weights and batch-norm statistics, which the model
                 has at the end in place of the last ones: those after step t have a weight in proportion to
                 ema ** -t, and those before the first step have none
    muon         whether Muon takes weights with four dimensions, as filters of 2-d convolutions have, at the same
                 learning rate; Adam takes the rest
    autocast     whether networks compute in bfloat16; weights, likelihood and KL stay float32
    device       where to train, by default CUDA if there is any; the model then returns to where it was
    checkpoint   file to write every `checkpoint_every` steps (default: an epoch) and at the end; the objective must
                 then have a name, which a lambda has not: `checkpoints.name_of`
    resume       whether to go on from the checkpoint if it exists: to the same bits as without interruption,
                 on a CPU with as many threads; `steps` may have grown, unless there is `decay`

    Returns {"elbo": [...], "log_px_given_z": [...], "kl": [...]}, means over the batch of each step, in nats. The
    model is left in eval mode. Raises TypeError or ValueError for arguments that do not fit and for a checkpoint that
    is damaged or of another run; FileExistsError rather than overwrite a checkpoint unasked; OSError, before the first
    step, for a folder in which none can be written; FloatingPointError, naming step and term, for a bound that is not
    finite, and for weights that are not at the end: the last checkpoint stays. Kingma & Welling 2014, algorithm 1;
    Kingma & Ba 2015; Loshchilov & Hutter 2019; with muon, Jordan et al. 2024.
    """
    if images.is_floating_point():
        guards.pixels_for(getattr(model, "likelihood", None), "images", images)
    batch_size = guards.integer("batch_size", batch_size, at_most=len(images))
    if autocast and not (hasattr(model, "encoder") and hasattr(model, "decoder")):
        raise ValueError(f"autocast: wanted a model with an encoder and a decoder, got {type(model).__name__}")
    device = device or torch.device("cuda" if torch.cuda.is_available() else "cpu")
    save_every = checkpoint_every or len(images) // batch_size
    settings = checkpoint and {
        "images": fingerprint(images), "batch_size": batch_size, "learning_rate": learning_rate,
        "binarized": binarized, "seed": seed, "objective": name_of(objective), "output_bias": output_bias,
        "warm_up": warm_up, "decay": decay and f"over {steps} steps", "weight_decay": weight_decay, "clip": clip,
        "ema": ema, "muon": muon, "autocast": autocast, "device": device.type}
    with ExitStack() as stack:
        generator = stack.enter_context(_borrowed(model, device, autocast))
        stack.enter_context(_batch_norm_explained(batch_size))
        trained = [(name, weights) for name, weights in model.named_parameters() if weights.requires_grad]
        optimizers = optimizers_of(trained, muon, lr=learning_rate, weight_decay=weight_decay)
        average = {} if ema is None else {name: value.clone() for name, value in model.state_dict().items()
                                          if value.is_floating_point()}
        history, random_state = {name: [] for name in Bound._fields}, None
        if _goes_on(checkpoint, resume):
            history, random_state = read_checkpoint(checkpoint, steps, settings, model, optimizers, average)
        start = len(history["elbo"])
        if output_bias and start == 0:
            start_output_bias(model, images)
        record = Record(history)
        bar = stack.enter_context(tqdm(total=steps, initial=start, disable=not progress, mininterval=0.3))
        batches = batches_from(start, images.to(device), batch_size, binarized, seed, generator, random_state)

        for step, x in zip(range(start, steps), batches):
            with torch.autocast(device.type, torch.bfloat16, enabled=autocast):
                bound = guards.bound_of(len(x), objective(model, x))
            record.add(bound)
            model.zero_grad()
            loss_of(bound, kl_weight_at(step, warm_up)).backward()
            if clip is not None:
                torch.nn.utils.clip_grad_norm_([weights for _, weights in trained], clip)
            for optimizer in optimizers.values():
                if decay:
                    optimizer.param_groups[0]["lr"] = learning_rate * cosine_at(step, steps)
                optimizer.step()
            update_average(average, model, step, ema)

            last = step + 1 == steps
            if bar.update() or last:  # true a few times a second
                bar.set_postfix_str(record.latest())
            if checkpoint is not None and (last or (step + 1) % save_every == 0):
                record.settle()
                write_checkpoint(checkpoint, settings, model, optimizers, average, history, generator.get_state())
        record.settle()
        if ema is not None:
            model.load_state_dict(model.state_dict() | average)
        guards.finite_or_stop(dict(trained), f"step {steps} has diverged")
    return history


def optimizers_of(trained, muon, **options):
    """The optimizers, by name, of pairs of name and weights: AdamW or, for filters if `muon`, Muon."""
    if not muon:
        return {"optimizer": torch.optim.AdamW(trained, fused=True, **options)}
    filters, rest = [[pair for pair in trained if (pair[1].dim() == 4) is wanted] for wanted in (True, False)]
    if not filters:
        raise ValueError("muon: wanted a model with filters of 2-d convolutions to train, got one without")
    adam = {"optimizer": torch.optim.AdamW(rest, fused=True, **options)} if rest else {}
    return adam | {"muon": FilterMuon(filters, **options)}


def loss_of(bound, kl_weight):
    """Minus the mean of the bound, to which the part of the KL is added back that does not count yet: a number."""
    return -(bound.elbo if kl_weight == 1 else bound.elbo + (1 - kl_weight) * bound.kl).mean()


def kl_weight_at(step, warm_up):
    """The weight of the KL in a step, counted from 0: it rises from 0 to 1 over the first `warm_up` steps."""
    return min(1.0, step / warm_up) if warm_up else 1.0


def cosine_at(step, steps):
    """The share of the learning rate in a step, counted from 0: it falls from 1 to 0, along half a cosine."""
    return 0.5 * (1 + math.cos(math.pi * step / steps))


@torch.no_grad()
def update_average(average, model, step, ema):
    """Move averages, by name, towards the model's weights after a step, counted from 0.

    The share (1 - ema) / (1 - ema ** (step + 1)) is 1 in the first step, so nothing of the start remains.
    """
    current = model.state_dict() if average else {}
    for name, value in average.items():
        value.lerp_(current[name], (1 - ema) / (1 - ema ** (step + 1)))


def start_output_bias(model, images):
    """Let the decoder's last bias say how often a pixel is white: for each pixel, or one number for a convolution."""
    bias = getattr(getattr(getattr(model, "decoder", None), "to_output", None), "bias", None)
    if bias is None or not isinstance(getattr(model, "likelihood", None), Bernoulli):
        raise ValueError("output_bias: wanted a Bernoulli likelihood, and a decoder whose layer to_output has a bias")
    mean = (images if images.is_floating_point() else to_unit(images)).mean(0).clamp(1e-3, 1 - 1e-3)
    with torch.no_grad():
        bias.copy_(mean.logit().flatten() if bias.numel() == mean.numel() else mean.mean().logit())


def batches_from(start, images, batch_size, binarized, seed, generator, random_state=None):
    """Yield float batches from step `start` on; all that is random in an epoch comes from (seed, epoch)."""
    for step in count_from(start):
        epoch, position = divmod(step, len(images) // batch_size)
        if position == 0 or step == start:
            generator.manual_seed(int(np.random.SeedSequence((seed, epoch)).generate_state(1, np.uint64)[0]))
            order = torch.randperm(len(images), device=images.device)
            if position > 0:  # resumed within an epoch
                generator.set_state(random_state)
        x = images.index_select(0, order[position * batch_size:(position + 1) * batch_size])
        yield x if x.is_floating_point() else binarize(x) if binarized else to_unit(x)


class Record:
    """The history of a run, and the means of its last steps, which a GPU hands over now and then, as it has to wait."""

    def __init__(self, history):
        self.history, self.pending = history, []

    def add(self, bound):
        """Note the means of a step, and stop at once on a CPU, soon on a GPU, if they are not finite."""
        self.pending.append(torch.stack(bound).detach().mean(1))
        if self.pending[0].device.type == "cpu" or len(self.pending) == 100:
            self.settle()

    def settle(self):
        """Move the noted means into the history; FloatingPointError for the first that are not finite."""
        for elbo_mean, log_px_given_z, kl in torch.stack(self.pending).tolist() if self.pending else ():
            means = {"log_px_given_z": log_px_given_z, "kl": kl, "elbo": elbo_mean}
            for name, value in means.items():
                if not math.isfinite(value):
                    raise FloatingPointError(f"step {len(self.history[name]) + 1}: {name} is {value}: stopped")
            for name, value in means.items():
                self.history[name].append(value)
        self.pending.clear()

    def latest(self):
        """The means over the last 100 steps, in words."""
        self.settle()
        means = [sum(values[-100:]) / len(values[-100:]) for values in self.history.values()]
        return "bound {:.2f}, log p(x|z) {:.2f}, KL {:.2f} nats".format(*means)


@contextmanager
def _borrowed(model, device, autocast):
    """Have the model in train mode on a device, and the random generator there; both go back afterwards."""
    home = next(model.parameters()).device
    generator = torch.default_generator
    if device.type == "cuda":
        torch.cuda.init()  # else there are no generators yet
        generator = torch.cuda.default_generators[torch.cuda.current_device() if device.index is None else device.index]
    random_state, hooks = generator.get_state(), []
    try:
        model.to(device, memory_format=torch.channels_last).train()  # convolutions are faster so
        hooks = [network.register_forward_hook(_to_float32)
                 for network in ((model.encoder, model.decoder) if autocast else ())]
        yield generator
    finally:
        for hook in hooks:
            hook.remove()
        generator.set_state(random_state)
        model.to(home, memory_format=torch.contiguous_format).eval()


@contextmanager
def _batch_norm_explained(batch_size):
    """Say of which argument torch complains when batch norm gets one number a channel: batch_size."""
    try:
        yield
    except ValueError as error:
        if batch_size == 1 and "more than 1 value per channel" in str(error):
            raise ValueError("batch_size: wanted 2 or more, as this model's batch norm averages over the batch alone, "
                             "got 1") from error
        raise


def _to_float32(network, inputs, output):
    """Forward hook: the output of a network that computes in bfloat16, in float32."""
    return output.float() if isinstance(output, Tensor) else tuple(part.float() for part in output)


def _goes_on(path, resume):
    """Whether there is a checkpoint to go on from; OSError for one that must not, or cannot, be written."""
    if resume and path is None:
        raise ValueError("checkpoint: wanted a path to resume from, got None")
    exists = path is not None and Path(path).exists()
    if exists and not resume:
        raise FileExistsError(f"checkpoint: {path} exists; go on from it with resume=True, or remove it")
    if path is not None:
        refuse_unwritable(path)
    return exists
