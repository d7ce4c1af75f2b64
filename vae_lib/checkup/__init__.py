"""What is wrong with a VAE, found without its training code: `checkup` (page 13; appendix B for the symptoms).

The model runs with chosen answers in place of its encoder's and decoder's (`probes`, `answers`), so that what it draws
is measured and its loss is read as a formula (`readings`). Each fault is then a statement about numbers (`of_model`,
`of_loss`, `by_image`), which `report` prints with the texts in `exhibits`.
"""

from contextlib import suppress
from functools import partial

import torch
from torch import nn
from torch.nn.parameter import is_lazy

from vae_lib.checkup.answers import NotReadable, number_of
from vae_lib.checkup.by_image import batches, decisive, validated, weighted
from vae_lib.checkup.exhibits import NEEDS
from vae_lib.checkup.keeping import preserved
from vae_lib.checkup.of_loss import agree, constants, kl_of, read, shapes, translation, variance_of, weights
from vae_lib.checkup.of_model import affine, heads, returns_mu, squashed
from vae_lib.checkup.of_noise import by_its_noise, draws, noise
from vae_lib.checkup.probes import FROM_LOG_VAR, Probe, located
from vae_lib.checkup.report import Results
from vae_lib.checkup.seams import find_seams
from vae_lib.guards import integer, one_of, optional, positive, takes, tensor

AT_LEAST = 8


def images_for(name, value):
    """The images; TypeError or ValueError unless there are 8 different ones, floats."""
    if isinstance(value, torch.Tensor) and value.is_meta:
        raise ValueError(f"{name}: wanted numbers, got a tensor on the device meta, which holds none")
    rows = isinstance(value, torch.Tensor) and value.dim() == 2
    tensor(name, value, "N", *(("D",) if rows else ("C", "H", "W")), at_least=AT_LEAST)
    different = len(value[:500].unique(dim=0))
    if different < AT_LEAST:
        raise ValueError(f"{name}: wanted at least {AT_LEAST} different ones, got {different}")
    return value


def function(name, value):
    """The function, or None; TypeError for anything else."""
    if value is not None and not callable(value):
        raise TypeError(f"{name}: wanted a function of the model and images, or None, got {value!r}")
    return value


def module(name, value):
    """The model, as it was before torch.compile; TypeError or ValueError unless it is a Module with weights."""
    if not isinstance(value, nn.Module):
        raise TypeError(f"{name}: wanted a torch.nn.Module that encodes and decodes, got {type(value).__name__}")
    for part, parameter in value.named_parameters():
        if is_lazy(parameter):
            raise ValueError(f"{name}: wanted weights with numbers, got the lazy {part}: run the model once before")
        if parameter.is_inference() and not torch.is_inference_mode_enabled():
            raise ValueError(f"{name}: wanted weights that can be set back, got {part}, made in torch.inference_mode")
        if parameter.is_meta:
            raise ValueError(f"{name}: wanted weights with numbers, got {part} on the device meta, which holds none")
    return getattr(value, "_orig_mod", value)


@takes(model=module, images=images_for, loss=function, validation=function, bound=function,
       spread=optional(one_of(*FROM_LOG_VAR)), beta=optional(positive), seed=partial(integer, at_least=0))
def checkup(model, images, loss=None, validation=None, bound=None, *, encode=None, decode=None, spread=None,
            beta=None, seed=0):
    """Examine a VAE for the exhibits of page 13, without its training code: a Report.

    model       any torch.nn.Module in which one part returns mu and the spread of q(z|x), and another turns z into an
                image. They are found by watching one run; `encode` and `decode` name them where that does not succeed,
                as in encode="net.inference"; of two parts that return mu and the spread encode="fc_mu, fc_var", of
                several that z passes through the first and the last, decode="fc3, fc4"
    images      (N, C, H, W) or (N, D), floats as training sees them, 8 different ones or more, on the model's device
    loss        loss(model, x): the number that training minimises for a batch x
    validation  validation(model, batches): the number reported for a list of batches
    bound       bound(model, x, num_samples): an importance-weighted bound, or an NLL, averaged or one per image
    spread      what the encoder returns beside mu: "log_var", "log_std", "std" or "variance". Unless it is given, a
                name in the answer says it; else it is "log_var", or, if always positive, what the noise says
    beta        the weight that the KL is meant to have; unless given, `model.beta` if that is a number

    Only what is given is examined; the report says what was not. Numbers are in nats. Draws come from `seed`; random
    streams, weights, buffers and modes are afterwards as before. A loss must compute, not train: a step of training is
    refused with ValueError, as are models in which encoder and decoder are not found: plain autoencoders among them.

    Values are examined, not gradients: `sample` in place of `rsample`, or a `detach`, is not seen. Of noise its mean
    and standard deviation are measured, not its form. Of a squared error whose variance nothing states, 2 s2 beta is
    one number: a missing 1/2 in the KL only doubles s2.

    For Pyro's example: loss=lambda vae, x: Trace_ELBO().loss(vae.model, vae.guide, x). For pythae's models:
    loss=lambda vae, x: vae({"data": x}).loss.
    """
    if beta is None:
        with suppress(NotReadable):
            beta = number_of(getattr(model, "beta", None))
    x = first_distinct(images)
    drives = [drive for drive in (loss, lambda model, x: model(x), bound and (lambda model, x: bound(model, x, 2)),
                                  validation and (lambda model, x: validation(model, [x]))) if drive]
    with preserved(model):
        model.eval()
        torch.manual_seed(seed)
        before = [weights.detach().clone() for weights in model.parameters()]
        with torch.no_grad():
            seams = find_seams(model, x, drives, encode, decode, partial(located, model, x))
        if any(not torch.equal(one.nan_to_num(), other.nan_to_num()) for one, other in zip(before, model.parameters())):
            raise ValueError("loss: wanted a function that computes the loss, got one that changes the weights")
        known = spread or seams.posterior.spread
        probe = in_double(Probe(model, x, seams, known or "log_var", stated=known is not None))
        if not probe.stated:
            probe = by_its_noise(probe, loss and partial(kl_of, loss))
        return examined(probe, loss, validation, bound, beta)


def first_distinct(images):
    """The first 8 images that differ from one another."""
    chosen = []
    for image in images:
        if not any(torch.equal(image, other) for other in chosen):
            chosen.append(image)
        if len(chosen) == AT_LEAST:
            return torch.stack(chosen)


def in_double(probe):
    """The probe with answers in float64, where the functions of the model take such."""
    double = probe.like(x=probe.x.double(), dtype=torch.float64)
    try:
        double.ask(probe.seams.drive)
    except NotReadable:
        return probe
    return double


def examined(probe, loss, validation, bound, beta):
    """The Report of a probe's model."""
    results, drive = Results(), probe.seams.drive
    examine, of_loss = results.examine, [name for name in NEEDS["loss"] if name != "shapes_broadcast"]
    for name, function, exhibits in (("loss", loss, NEEDS["loss"]), ("validation", validation, NEEDS["validation"]),
                                     ("bound", bound, NEEDS["bound"])):
        if function is None:
            results.errors.update(dict.fromkeys(exhibits, f"no {name} given"))
    reading = examine(of_loss, read, probe, loss) if loss else None
    s2, complete = variance_of(probe, reading) if reading else (None, None)
    if reading:
        examine(of_loss, weights, probe, reading, s2, beta)
        examine((), constants, probe, reading)
    if loss:
        examine(("shapes_broadcast",), shapes, probe, loss)
    mixed = results.shows("shapes_broadcast")
    if mixed:
        results.found["loss_summed_over_batch"] = None, "images and outputs are paired wrongly"
    drawn = examine(("noise_std", "std_as_variance", "eval_returns_mu"), noise, probe, drive, 2 if mixed else 16)
    if drawn:
        examine((), draws, drawn, examine((), agree, probe, loss, reading, drawn), probe.stated, loss is not None)
    if drawn and not drawn.stds[1]:
        results.errors["eval_returns_mu"] = "z is mu itself in training too"
    for name, function in (("it", drawn and drawn.stds[1] and drive),
                           ("validation", validation and (lambda model, x: validation(model, [x]))),
                           ("bound", bound and (lambda model, x: bound(model, x, 4)))):
        if function and not results.shows("eval_returns_mu"):
            examine((), returns_mu, probe, function, name)
    likelihood = type(getattr(probe.model, "likelihood", None)).__name__
    bernoulli = "cross entropy of logits" if likelihood == "Bernoulli" else None
    examine(("sigmoid_twice",), squashed, probe, reading.error.form if reading else bernoulli)
    if bound:
        examine(NEEDS["bound"], weighted, probe, bound)
    if reading and not results.shows("softmax_of_the_loss"):
        examine((), decisive, probe, loss, reading)
    if validation:
        examine(("validation_at_another_beta",), validated, probe, validation, reading, s2, beta)
        examine(("last_batch_weighs_as_much",), batches, probe, validation)
    meaning = translation(probe, reading, s2, complete, beta) if reading else None
    results.remarks += remarks(probe, reading, meaning, complete, likelihood, results.shows("loss_summed_over_batch"))
    examine(("relu_on_heads", "batch_norm_on_heads"), heads, probe)  # last: it moves the statistics of batch norm
    return results.report(meaning, drawn and drawn.sample)


def remarks(probe, reading, meaning, complete, likelihood, summed):
    """What is no fault of a list and worth knowing: beta, the variance that a loss implies, its sign, its pixels."""
    said, of_batch = [], f", for a batch of {len(probe.x)}" * summed
    if meaning and meaning.variance is None:
        said.append(f"the loss is a cross entropy plus beta = {meaning.beta:.4g} times the KL{of_batch}")
    elif meaning:
        dropped = f", without its constant of {meaning.constant:.2f} nats an image" if complete is False else ""
        said.append(f"the loss is that of a Gaussian of variance s2 = {meaning.variance:.4g} at beta = "
                    f"{meaning.beta:.4g}{dropped}{of_batch}")
    if reading and reading.error.weight < 0:
        said.append("the loss falls as the error grows: it is a bound to maximise, and training must not minimise it")
    if any(weights.isnan().any() for weights in probe.model.parameters()):
        said.append("some weights are NaN: its networks compute nothing")
    if reading and reading.kl is None:
        said.append(f"the KL was not read: {reading.why}")
    if reading and reading.kl and reading.kl.samples > 1:
        said.append(f"the loss takes {reading.kl.samples} draws of z for each image")
    bernoulli = reading.bernoulli if reading else likelihood == "Bernoulli"
    if bernoulli and (probe.x.min() < 0 or probe.x.max() > 1):
        said.append(f"pixels from {probe.x.min():.4g} to {probe.x.max():.4g} enter a cross entropy, which wants 0 to 1 "
                    "(page 06)")
    elif bernoulli and ((probe.x > 0) & (probe.x < 1)).any():
        said.append("pixels are grey under a cross entropy, which is no log density of theirs (page 06)")
    try:
        if affine(probe):
            said.append("the decoder is affine: with a Gaussian likelihood this is probabilistic PCA (page 07)")
    except NotReadable as reason:
        said.append(f"the decoder alone could not be run: {reason}")
    return said
