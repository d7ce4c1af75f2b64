"""Sixteen samples or sixty-four: the trial on held-out digits by which folded_64 was chosen.

    python tests/benchmarks/more_samples.py

Two short runs go on from two_hours_folded, on the last 50,000 training images: one on the bound of 16 samples, one on
that of 64, for about as long by the clock. The negative log-likelihoods of held-out digits, 2,000 by draws of the
encoder's q and 400 by draws of a refined q, go to more_samples.json, beside those of two_hours_folded as it stands; the
paired differences of the runs from it and from each other, too. Takes some 40 minutes of CPU time; a run that was cut
goes on from its checkpoint in runs/.
"""

from pathlib import Path

from trials import from_two_hours_folded

from vae_lib.recipes import L64, LONGER

RUNS = {"16 samples": LONGER | dict(steps=2100, seed=70), "64 samples": L64 | dict(steps=750, seed=70)}

if __name__ == "__main__":
    from_two_hours_folded(RUNS, Path(__file__).with_suffix(".json"))
