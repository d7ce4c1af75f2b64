"""What folding a flow costs the encoder's q, and a refined one: two_hours_flow beside itself, folded and not trained.

    python tests/benchmarks/folding.py

The flow as prior of two_hours, and the same flow in the decoder before any training, have the same p(x): equation
(12.7). So the negative log-likelihoods of held-out digits, 2,000 by draws of the encoder's q and 400 by draws of a
refined q, differ by what a Gaussian over u misses more than one over z. They go to folding.json, with the paired
differences. Takes some 10 minutes of CPU time.
"""

from pathlib import Path

from trials import log_likelihoods, report

from vae_lib.data import fixed_binarization, load, validation_split
from vae_lib.flow import folded
from vae_lib.recipes import pretrained


def main():
    vae, flow = (pretrained(name).requires_grad_(False) for name in ("two_hours", "two_hours_flow"))
    x = fixed_binarization(validation_split(load("MNIST").train)[0])
    report({"flow as prior": log_likelihoods(vae, x, prior=flow), "folded": log_likelihoods(folded(vae, flow), x)},
           Path(__file__).with_suffix(".json"))


if __name__ == "__main__":
    main()
