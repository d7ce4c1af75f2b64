"""Sixteen samples or sixty-four: the trial on held-out digits by which folded_64 was chosen.

    python tests/benchmarks/more_samples.py

Two short runs go on from two_hours_folded, on the last 50,000 training images: one on the bound of 16 samples, one on
that of 64, for about as long by the clock. The negative log-likelihoods of held-out digits, 2,000 by draws of the
encoder's q and 400 by draws of a refined q, go to more_samples.json, beside those of two_hours_folded as it stands; the
paired differences of the runs from it and from each other, too. Takes some 40 minutes of CPU time; a run that was cut
goes on from its checkpoint in runs/.
"""

from pathlib import Path

from trials import log_likelihoods, report, trained

from vae_lib.data import fixed_binarization, load, validation_split
from vae_lib.recipes import L64, LONGER, pretrained

RUNS = {"16 samples": LONGER | dict(steps=2100, seed=70), "64 samples": L64 | dict(steps=750, seed=70)}


def main():
    held_out, images = validation_split(load("MNIST").train)
    models = {"as it stands": pretrained("two_hours_folded").requires_grad_(False)}
    for name, options in RUNS.items():
        models[name] = trained(pretrained("two_hours_folded"), images, f"more_samples-{name[:2]}", [options])
    x = fixed_binarization(held_out)
    found = {name: log_likelihoods(model, x) for name, model in models.items()}
    report(found, Path(__file__).with_suffix(".json"))


if __name__ == "__main__":
    main()
