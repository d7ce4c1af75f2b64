"""The control of two_hours_folded: a few more weights, in plain layers, in place of the flow, trained alike.

    python tests/benchmarks/plain_decoder.py 4000

two_hours gets eight residual layers before its decoder, and eight behind the means of its encoder, where the folded
model has the eight couplings of a flow that was fitted before. They start as the identity. Then comes the training of
the folded model: the sleep phase for a quarter of the steps, the bound of 16 samples for all of them (the recipe has
2,000 and 8,000). The likelihoods of 500 validation digits, from 200 samples each, go to plain_decoder.json, beside
those of two_hours and of two_hours_folded. Checkpoints are kept in runs/, and the same command resumes.
"""

import argparse
import json
from pathlib import Path

import torch
from torch import nn
from trials import trained

from vae_lib.data import fixed_binarization, load, validation_split
from vae_lib.evaluation import importance_estimates
from vae_lib.latents import stderr_of
from vae_lib.models import VAE
from vae_lib.recipes import L16, SLEEP, pretrained

BLOCKS, HIDDEN = 8, 64  # as the flow's couplings
RESULTS = Path(__file__).with_suffix(".json")


class PlainBlock(nn.Module):
    """z plus a network of three layers, as wide as those of a coupling; its last layer starts at zero."""

    def __init__(self, latent_dim):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(latent_dim, HIDDEN), nn.SiLU(), nn.Linear(HIDDEN, HIDDEN), nn.SiLU(),
                                 nn.Linear(HIDDEN, latent_dim))
        nn.init.zeros_(self.net[-1].weight)
        nn.init.zeros_(self.net[-1].bias)

    def forward(self, z):
        return z + self.net(z)


class LongerEncoder(nn.Module):
    """An encoder whose means go through plain blocks; autocast does not reach them, nor the flow of a folded one."""

    def __init__(self, encoder):
        super().__init__()
        self.encoder, self.image_shape, self.latent_dim = encoder, encoder.image_shape, encoder.latent_dim
        self.blocks = nn.Sequential(*(PlainBlock(encoder.latent_dim) for _ in range(BLOCKS)))

    def forward(self, x):
        mu, log_var = self.encoder(x)
        with torch.autocast(x.device.type, enabled=False):
            return self.blocks(mu.to(x.dtype)), log_var


class LongerDecoder(nn.Module):
    """A decoder behind plain blocks."""

    def __init__(self, decoder):
        super().__init__()
        self.decoder, self.image_shape, self.latent_dim = decoder, decoder.image_shape, decoder.latent_dim
        self.blocks = nn.Sequential(*(PlainBlock(decoder.latent_dim) for _ in range(BLOCKS)))

    def forward(self, z):
        with torch.autocast(z.device.type, enabled=False):
            z = self.blocks(z.to(next(self.blocks.parameters()).dtype))
        return self.decoder(z)


def control():
    """The model before it is trained: its p(x) is that of two_hours."""
    torch.manual_seed(0)
    vae = pretrained("two_hours")
    return VAE(LongerEncoder(vae.encoder), LongerDecoder(vae.decoder), vae.likelihood)


def measure(model, steps):
    """Write -log p(x) of each model, in nats, and the paired differences from the control, with standard errors."""
    x = fixed_binarization(validation_split(load("MNIST").train)[0][:500])
    models = {"control": model} | {name: pretrained(name) for name in ("two_hours", "two_hours_folded")}
    nats = {name: -importance_estimates(model, x, 200, autocast=True).log_px for name, model in models.items()}
    results = {"steps": steps, "parameters": sum(weights.numel() for weights in model.parameters())}
    for name, values in nats.items():
        gain = values - nats["control"]
        results[name] = {"nll": values.mean().item(), "control is lower by": gain.mean().item(),
                         "stderr": stderr_of(gain)}
    RESULTS.write_text(json.dumps(results, indent=1) + "\n")
    print(RESULTS.read_text())


def main(steps):
    _, images = validation_split(load("MNIST").train)
    stages = SLEEP | dict(steps=steps // 4), L16 | dict(steps=steps, learning_rate=1.5e-3, weight_decay=0.1, seed=20)
    measure(trained(control(), images, f"plain-{steps}", stages), steps)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("steps", type=int, help="on the bound of 16 samples")
    main(parser.parse_args().steps)
