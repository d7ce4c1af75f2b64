"""What a model shows without its loss: its heads, its noise, the range of its decoder's output.

An examination returns {exhibit: (shown, evidence)}: True, False, or None where it cannot be told, and a sentence with
the number that was measured. It raises NotReadable where the model does not let itself be measured.
"""

from contextlib import suppress

import torch

from vae_lib.checkup.answers import NotReadable
from vae_lib.checkup.keeping import other_weights


def near(value, wanted, tolerance=0.01):
    """Whether two numbers agree within a hundredth."""
    return value is not None and abs(value - wanted) <= tolerance * abs(wanted)


def heads(probe):
    """ReLU, and batch norm, behind the two heads: what they return for images, noise, and noise in other batches.

    Heads that have died, or idle latents, return one number for all images: so other weights are tried too.
    """
    noise = torch.rand(3, 32, *probe.x.shape[1:], dtype=probe.x.dtype, device=probe.x.device)
    low, high = probe.x.min(), probe.x.max()
    batches = [low + (high - low) * noise[0], low + (high - low) * noise[1] ** 8, (high - low) * (20 * noise[2] - 10)]

    def answers():
        """For each head its values in eval mode, and its mean and standard deviation over three batches in training."""
        in_eval = [probe.encoded(batch, training=False) for batch in (probe.x, high + low - probe.x, *batches)]
        in_training = [probe.encoded(batch, training=True) for batch in batches]
        for values, trained in zip(zip(*in_eval), zip(*in_training)):
            rows = [value.flatten(1).double() for value in trained]
            moments = torch.stack([row.mean(0) for row in rows]), torch.stack([row.std(0) for row in rows])
            yield torch.cat([value.flatten(1) for value in values]), moments

    own = other = list(answers())
    with suppress(NotReadable), other_weights(probe.model):
        other = list(answers())
    cut, normed = [], []
    for name, (values, moments), (other_values, other_moments) in zip(("mu", probe.spread), own, other):
        if values.isnan().any():
            raise NotReadable(f"the encoder returns NaN for {name}")
        zeros, other_zeros = ((of == 0).double().mean().item() for of in (values, other_values))
        if ((name == "mu" or "log" in name) and values.min() == 0 and other_values.min() == 0
                and zeros > 0.01 and 0.01 < other_zeros < 1):
            cut.append(f"{name} is never negative in {values.numel()} values, and exactly 0 in {zeros:.0%} of them; "
                       f"with other weights in {other_zeros:.0%}")
        for (means, stds), which in ((moments, ""), (other_moments, ", with other weights")):
            same = ((means - means[0]).abs() < 0.02 * stds) & ((stds - stds[0]).abs() < 0.02 * stds)
            alive = stds.min(0).values > 1e-4
            if alive.any() and same[:, alive].all():
                mean, std = means[0, alive][0], stds[0, alive][0]
                normed.append(f"{name} has the mean {mean:.3g} and the standard deviation {std:.3g} over three batches "
                              f"of quite different images{which}")
                break
    return {"relu_on_heads": (bool(cut), "; ".join(cut) or "no head is cut off at 0"),
            "batch_norm_on_heads": (bool(normed), "; ".join(normed) or "mean and spread over a batch vary with it")}


DRAWN_INSIDE = "the encoder draws z itself, so what it draws is not seen"


def returns_mu(probe, function, name):
    """A number that is made from mu itself in eval mode."""
    drawn = probe.ask(function, mu=0.5, training=False)[1]
    if not drawn or any(z.isnan().any() for z in drawn):
        raise NotReadable(DRAWN_INSIDE if drawn else "the decoder is not called")
    silent = all(bool((z == 0.5).all()) for z in drawn)
    return {"eval_returns_mu": (silent, f"in eval mode {name} decodes "
                                + ("mu itself, without noise" if silent else "z that is drawn around mu"))}


def squashed(probe, form):
    """A sigmoid on a sigmoid: the range of the decoder's own output, for latents from near and far."""
    if form == "cross entropy of two sigmoids":
        return {"sigmoid_twice": (True, "the loss is the cross entropy of sigmoid(sigmoid(output))")}
    z = torch.randn(64, *probe.latent_shape, dtype=torch.float64).to(next(probe.model.parameters(), probe.x))
    output = torch.cat([probe.decoded(scale * z) for scale in (1, 10, 100, 1000)])
    with suppress(NotReadable), other_weights(probe.model):
        others = probe.decoded(z)  # a trained decoder may keep to a part of its range
        output = torch.cat([output, others[others.isfinite().all(1)]])
    if not output.isfinite().all():
        raise NotReadable("the decoder returns NaN or infinity")
    low, high = output.min().item(), output.max().item()
    reads_logits = form in ("cross entropy of logits", "squared error of a sigmoid")
    inside = low >= 0 and high <= 1 and high - low > 0.5 if reads_logits else \
        low >= 0.5 and high <= 0.7311 and high - low > 0.05
    if form is None and not inside:
        raise NotReadable("no loss and no likelihood says whether the output is a logit or a probability")
    read = {None: "", "squared error": "; it is read as a mean"}.get(form, f"; it enters a {form}")
    return {"sigmoid_twice": (inside, f"the decoder's output lies between {low:.3g} and {high:.3g} for latents near "
                              f"and far and for other weights{read}")}


def affine(probe):
    """Whether the decoder is affine in z: in eval mode, at four points."""
    a, b = torch.randn(2, 1, *probe.latent_shape).to(next(probe.model.parameters(), probe.x))
    both, first, second, none = probe.decoded(torch.cat([a + b, a, b, torch.zeros_like(a)])).double()
    scale = (first - none).abs().max() + (second - none).abs().max()
    return bool(scale > 1e-6 and (both - first - second + none).abs().max() < 1e-4 * scale)
