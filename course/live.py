"""The live page: a VAE with two latents that one draws for, in one HTML file that needs nothing else.

`python -m course.live` writes build/site/live.html, from the weights of the recipe `two_latents` and the sources
course/web/live.*. The page weighs a drawing at POINTS x POINTS points of the latent plane. There
log p(x|z) = (W^T x) . h(z) + b . x - S(z) for a decoder whose last layer is W h + b, with S the sum of softplus over
the pixels' logits. The page computes h itself; S, which costs 784 exponentials a point, it gets from here.
"""

import base64
import json
import sys
from pathlib import Path

import numpy as np
import torch
from torch.nn.functional import softplus

from vae_lib.data import sample
from vae_lib.recipes import pretrained

SOURCES = Path(__file__).parent / "web"
FILE = Path("build/site/live.html")
POINTS, HALF_WIDTH = 401, 6.0  # the grid's points for each latent, and where it ends
NODES = 8, 16  # of Gauss and Hermite's rule, for each latent: while a hand draws, and when it rests
BINS, FROM, WIDTH = 50, -300, 6  # the histogram of log p(x): bars, where the first begins, nats a bar


def text_of(tensor, kind="<f2"):
    """A tensor's numbers in base64, as float16 unless told otherwise: the shipped weights are float16."""
    return base64.b64encode(tensor.numpy().astype(kind).tobytes()).decode()


def linear(layer):
    return [text_of(layer.weight.detach().T), text_of(layer.bias.detach())]


def axis():
    return torch.linspace(-HALF_WIDTH, HALF_WIDTH, POINTS, dtype=torch.float64)


@torch.no_grad()
def tables(model):
    """h(z), (POINTS**2, width), and S(z), (POINTS**2,), at the points of the grid; model in float64."""
    hidden, sums = [], []
    for z in torch.cartesian_prod(axis(), axis()).split(10_000):
        hidden.append(model.decoder.stages(z))
        sums.append(softplus(model.decoder.to_output(hidden[-1])).sum(1))
    return torch.cat(hidden), torch.cat(sums)


def hermite(count):
    """Nodes and weights of Gauss and Hermite's rule for N(0, 1)."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(count)
    return {"nodes": nodes.tolist(), "weights": (weights / weights.sum()).tolist()}


@torch.no_grad()
def log_px(model, hidden, sums, x):
    """log p(x) of binary images (N, 784) by the sum over the grid, in nats: for the histogram, so in float32."""
    z = torch.cartesian_prod(axis(), axis())
    log_prior = -(z**2).sum(1) / 2 - np.log(2 * np.pi)
    layer, area = model.decoder.to_output, 2 * torch.log(axis()[1] - axis()[0])
    hidden, rest = hidden.float(), (sums - log_prior).float()[:, None]
    each = [(hidden @ (layer.weight.T @ part.T).float() - rest).logsumexp(0) + part @ layer.bias
            for part in x.split(50)]
    return torch.cat(each) + area


def build(path=FILE):
    """Write the page."""
    model = pretrained("two_latents").double()
    hidden, sums = tables(model)
    digits = (sample().test > 127).flatten(1).double()
    found = log_px(model, hidden, sums, digits)
    counts, _ = np.histogram(found.clamp(FROM, FROM + BINS * WIDTH - 1e-6), BINS, (FROM, FROM + BINS * WIDTH))
    data = {
        "encoder": [linear(stage[0]) for stage in model.encoder.stages], "to_mu": linear(model.encoder.to_mu),
        "to_log_var": linear(model.encoder.to_log_var), "decoder": [linear(stage[0]) for stage in model.decoder.stages],
        "to_output": linear(model.decoder.to_output), "points": POINTS, "half_width": HALF_WIDTH,
        "sums": text_of(sums, "<f4"), "hermite": [hermite(count) for count in NODES],
        "histogram": {"from": FROM, "width": WIDTH, "counts": counts.tolist()},
        "ranks": sorted(round(value, 1) for value in found.tolist())}
    page = (SOURCES / "live.html").read_text(encoding="utf-8")
    parts = {"/* live.css */": (SOURCES / "live.css").read_text(encoding="utf-8"),
             "/* live.js */": (SOURCES / "live.js").read_text(encoding="utf-8"), "{model}": json.dumps(data)}
    for mark, text in parts.items():
        page = page.replace(mark, text)
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(page, encoding="utf-8")
    return path


def main(*arguments):
    path = build(*arguments)
    print(f"{path}: {path.stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    main(*sys.argv[1:])
