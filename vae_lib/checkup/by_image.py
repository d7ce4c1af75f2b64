"""Answers that differ from image to image and from sample to sample, and whose of them decide a number.

Examinations of a validation and of a bound return what those of `of_model` do.
"""

import torch

from vae_lib.checkup.answers import NotReadable, number_of
from vae_lib.checkup.of_model import DRAWN_INSIDE, near
from vae_lib.checkup.readings import draws_of_an_image, read_error, read_kl

SPACING = 20.0  # between the codes that say whose z it is; noise of standard deviation 1 does not bridge it


def by_image(probe, outputs):
    """Answers for `ask` that give image i, in its sample k, the output outputs(i, k): mu as codes, and a function of z.

    outputs takes two integer tensors of one shape and returns (*shape, *output_shape).
    """
    images = len(probe.x)
    codes = SPACING * (torch.arange(images, dtype=probe.dtype, device=probe.x.device) - (images - 1) / 2)
    counts = torch.zeros(images, dtype=torch.long)
    dims = len(probe.latent_shape)

    def output(z):
        leading = z.shape[:z.dim() - dims]
        rows = z.reshape(leading.numel(), -1)[:, 0]
        if rows.isnan().any():
            raise NotReadable(DRAWN_INSIDE)
        found = (rows / SPACING + (images - 1) / 2).cpu()
        places = found.round().long()
        if not ((0 <= places) & (places < images) & ((found - places).abs() < 0.4)).all():
            raise NotReadable("z is not mu plus noise")
        samples = torch.zeros_like(places)
        for row, image in enumerate(places.tolist()):
            samples[row], counts[image] = counts[image], counts[image] + 1
        made = outputs(places, samples).to(z)
        return made.reshape(*leading, *probe.output_shape)

    mu = codes.view(-1, *[1] * dims).expand(images, *probe.latent_shape)
    return {"mu": mu, "log_var": -8.0, "output": output}


def extremes(probe, error):
    """Outputs that fit each image, and that do not fit it, by about 400 nats: two tensors (images, numbers)."""
    x, pixels = probe.x.flatten(1), probe.x[0].numel()
    if error.form == "cross entropy of probabilities":
        return x.clamp(1e-5, 1 - 1e-5), (1 - x).clamp(1e-5, 1 - 1e-5)
    if error.form == "squared error":
        return x, x + (400 / pixels / abs(error.weight)) ** 0.5
    size = max(4.0, 800 / pixels)
    return size * (2 * x - 1), -size * (2 * x - 1)


def share_of_bad(probe, function, error, is_bad, needed=50.0):
    """How far a number goes from all outputs fitting (0) to none (1), if those do not for which is_bad(i, k)."""
    good, bad = extremes(probe, error)

    def value(which):
        def outputs(image, sample):
            chosen = which(image, sample).to(good.device)
            return torch.where(chosen[:, None], bad[image.to(good.device)], good[image.to(good.device)])
        return value_of(probe.ask(function, training=False, **by_image(probe, outputs))[0])

    best, worst = (value(lambda image, sample, all_bad=all_bad: torch.full_like(image, all_bad, dtype=torch.bool))
                   for all_bad in (False, True))
    nats = abs(worst - best) / (abs(error.weight) if error.form.startswith("cross") else 1)
    if nats < needed:
        raise NotReadable(f"the images are too small: to fit or not makes {nats:.3g} nats only")
    return (value(is_bad) - best) / (worst - best)


def value_of(value):
    """A bound as a number: a tensor with one number for each image is averaged."""
    return number_of(value.double().mean() if isinstance(value, torch.Tensor) else value)


def weighted(probe, bound, asked=4):
    """Importance weights summed over images, or taken from the loss: which of several samples decides a bound."""
    few = probe.like(x=probe.x[:4])
    error = read_error(few, lambda model, x: value_of(bound(model, x, 1)))
    function = lambda model, x: bound(model, x, asked)
    samples = draws_of_an_image(few, function, error.at)
    if samples == 1:
        raise NotReadable(f"the bound takes one sample for each image where {asked} are asked for")
    together = share_of_bad(few, function, error, lambda image, sample: sample % samples != 0)
    apart = share_of_bad(few, function, error, lambda image, sample: (sample - image) % samples != 0)
    equal = [value_of(few.ask(lambda model, x, k=k: bound(model, x, k), output=error.at)[0]) for k in (1, 16)]
    said = (f"with one of {samples} samples good, the same for all images, the bound goes {together:.0%} of the way to "
            f"the worst sample; with another one for each image, {apart:.0%}")
    grows = abs(equal[1] - equal[0]) / abs(error.weight)
    remarks = []
    if 0.3 < together <= 1 - 0.5 / samples:
        remarks.append(f"the bound averages logarithms, as the ELBO does: it goes {together:.0%} of that way")
    if grows > 0.1:
        remarks.append(f"16 equal weights change the bound by {grows:.3g} nats: log 16 = 2.77 is not subtracted")
    return {"softmax_of_the_loss": (together > 1 - 0.5 / samples, said),
            "log_weights_over_images": (together < 0.3 < apart, said), "remarks": remarks}


def decisive(probe, loss, reading):
    """Whether the worst of several samples decides the loss that training minimises."""
    few = probe.like(x=probe.x[:4])
    samples = draws_of_an_image(few, loss, reading.error.at)
    if samples == 1:
        raise NotReadable("the loss takes one sample for each image")
    share = share_of_bad(few, loss, reading.error, lambda image, sample: sample % samples != 0)
    return {"softmax_of_the_loss": (share > 1 - 0.5 / samples, f"with one of {samples} samples good, the loss goes "
                                    f"{share:.0%} of the way to the worst sample")}


def validated(probe, validation, reading, s2, beta_meant):
    """Validation at another beta than 1; `reading` is that of the loss, or None."""
    split = lambda model, x: validation(model, list(x.split(4)))
    error = read_error(probe, split)
    ratio = 2 * read_kl(probe, split, error.at).mu2 / error.weight
    of_loss = reading and reading.ratio
    beta = ratio if error.form.startswith("cross entropy") else ratio / (2 * s2) if s2 else \
        ratio / of_loss * (beta_meant or 1.0) if of_loss else None
    if beta is None:
        raise NotReadable("a squared error without its constant: neither loss nor likelihood says the variance")
    as_meant = of_loss and near(ratio, of_loss) and near(beta_meant, beta)
    return {"validation_at_another_beta": (not near(beta, 1) and not as_meant,
                                           f"the reported number weighs the KL by {beta:.4g}")}


def batches(probe, validation):
    """Batches that weigh alike in a validation, whatever their size."""
    first = len(probe.x) - 2
    uneven = lambda model, x: validation(model, [x[:first], x[first:]])
    share = share_of_bad(probe, uneven, read_error(probe, uneven), lambda image, sample: image >= first)
    wanted = 2 / len(probe.x)
    return {"last_batch_weighs_as_much": (
        not near(share, wanted, 0.1), f"two images of {len(probe.x)}, in a batch of their own, have {share:.1%} of the "
        f"weight; {wanted:.1%} is their share")}
