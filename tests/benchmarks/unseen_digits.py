"""Did looks at the test set lower its NLLs? `python tests/benchmarks/unseen_digits.py`; a quarter of an hour, two cores.

A recipe whose last stage was added after a look at the test set may owe some of its NLL there to that look. It can't on
digits at which nobody looked. This prints the negative log-likelihood, by 128 draws of the encoder's q, of the 10,000
test digits and of 8,000 held-out ones that no trial weighed (trials had the first 2,000), for each recipe that never
trained on these. The last column is by how much more a recipe gains on conv_mnist, the recipe that nobody changed, on
test digits than on held-out ones, with a standard error over digits. Last result: unseen_digits.txt.
"""

import math

from vae_lib.data import fixed_binarization, load, validation_split
from vae_lib.evaluation import importance_estimates
from vae_lib.recipes import WEIGHTS, pretrained, vae_and_prior

NAMES = "conv_mnist", "six_minutes", "two_hours", "two_hours_flow", "two_hours_folded"


def log_likelihoods(name, digits):
    vae, prior = vae_and_prior(name, pretrained(name), WEIGHTS)
    return importance_estimates(vae.requires_grad_(False), digits, 128, autocast=True, prior=prior).log_px


def main():
    data = load("MNIST")
    held_out, _ = validation_split(data.train)
    test, unseen = fixed_binarization(data.test), fixed_binarization(held_out)[2000:]
    print(f"{'nats':<18}{len(test):>7,} test{len(unseen):>8,} held-out  more gained on test")
    for name in NAMES:
        found = [log_likelihoods(name, digits) for digits in (test, unseen)]
        base = found if name == NAMES[0] else base
        gains = [log_px - before for log_px, before in zip(found, base)]
        stderr = math.sqrt(sum(gain.var().item() / len(gain) for gain in gains))
        print(f"{name:<18}{-found[0].mean():12.2f}{-found[1].mean():17.2f}"
              f"{gains[0].mean() - gains[1].mean():15.2f} ± {stderr:.2f}", flush=True)


if __name__ == "__main__":
    main()
