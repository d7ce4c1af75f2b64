"""How far are estimates of log p(x) off? `python tests/benchmarks/sandwich.py [recipe ...]`; an hour, one core.

A model's own images come with an exact draw of their posterior, so log p(x) lies between two bounds, each on average
(exercise 11.1). For 64 images of each recipe, whose model is a VAE with the prior N(0, I), this prints the mean of both
and their distance with its standard error: from 1,000 importance samples of the encoder's q, of a q refined as for the
logs of the recipes, by networks in bfloat16, and of one refined in more steps, in float32; from 5,000 of the mixture
that goes on from that, as many as in the gaps of the logs; and from annealed importance sampling. Last, the samples of
each refined q below and the annealed bound above. All bounds are by networks in float32. Last result: sandwich.txt.
"""
import sys

import torch

from vae_lib.annealing import Sandwich, ais, importance_sandwich, own_images
from vae_lib.latents import stderr_of
from vae_lib.recipes import pretrained
from vae_lib.recording import REFINING
from vae_lib.refinement import encoder_proposal, refine

IMAGES = 64


def row(name, bounds):
    distance = bounds.upper - bounds.lower
    return (f"  {name:<38}{bounds.lower.mean():9.3f}{bounds.upper.mean():9.3f}"
            f"{distance.mean():9.3f} ± {stderr_of(distance):.3f}")


def main(names):
    torch.set_num_threads(1)
    print(f"{IMAGES} images of each model's own, nats{'':>16}below    above   distance")
    for name in names:
        model = pretrained(name).requires_grad_(False).to(memory_format=torch.channels_last)
        x, z = own_images(model, IMAGES)
        q = refine(model, x, "full", progress=False)
        print(name)
        print(row("encoder's q, 1,000 samples", importance_sandwich(model, x, z, 1000, progress=False)))
        recorded_q = refine(model, x, start=encoder_proposal(model, x), autocast=True, progress=False, **REFINING)
        recorded = importance_sandwich(model, x, z, 1000, q=recorded_q, progress=False)
        print(row("q refined as in logs, 1,000 samples", recorded))
        refined = importance_sandwich(model, x, z, 1000, q=q, progress=False)
        print(row("refined q, 1,000 samples", refined))
        mixture_q = refine(model, x, "mixture", start=q, progress=False)
        mixture = importance_sandwich(model, x, z, 5000, q=mixture_q, progress=False)
        print(row("refined mixture, 5,000 samples", mixture))
        for temperatures in 25, 100:
            annealed = ais(model, x, z, q, temperatures, chains=4, progress=False)
            print(row(f"refined q, {temperatures} temperatures, 4 chains", annealed), flush=True)
        print(row("as in logs below, annealed above", Sandwich(recorded.lower, annealed.upper)))
        print(row("refined q below, annealed above", Sandwich(refined.lower, annealed.upper)))
        print(row("mixture below, annealed above", Sandwich(mixture.lower, annealed.upper)))


if __name__ == "__main__":
    main(sys.argv[1:] or ["conv_mnist", "six_minutes", "two_hours_folded", "folded_64"])
