"""Did looks at the test set lower its NLLs? Run `python tests/benchmarks/unseen_digits.py`: 25 minutes, two cores.

A recipe whose last stage was added after a look at the test set may owe some of its NLL there to that look, and so less
on other digits. This prints the negative log-likelihood, by 128 draws of the encoder's q, of the 10,000 test digits and
of 8,000 held-out ones whose NLL no trial weighed: trials had the first 2,000. (The ELBO of all held-out digits stands
in every log.) It is for recipes that did not train on held-out digits and whose weights ship. The last column is by how
much more a recipe gains on conv_mnist, the one that nobody changed, on test digits than on held-out ones, with a
standard error over digits. Last result: unseen_digits.txt.
"""

import math

from vae_lib.data import fixed_binarization, load, validation_split
from vae_lib.evaluation import importance_estimates
from vae_lib.latents import stderr_of
from vae_lib.recipes import WEIGHTS, pretrained, vae_and_prior


def log_likelihoods(name, digits):
    vae, prior = vae_and_prior(name, pretrained(name), WEIGHTS)
    return importance_estimates(vae.requires_grad_(False), digits, 128, autocast=True, prior=prior).log_px


def main():
    data = load("MNIST")
    held_out, _ = validation_split(data.train)
    sets = fixed_binarization(data.test), fixed_binarization(held_out)[2000:]
    base = [log_likelihoods("conv_mnist", digits) for digits in sets]
    print(f"nats{len(sets[0]):>21,} test{len(sets[1]):>8,} held-out  more gained on test")
    print(f"conv_mnist{-base[0].mean():20.2f}{-base[1].mean():17.2f}")
    for name in "six_minutes", "two_hours", "two_hours_flow", "two_hours_folded":
        found = [log_likelihoods(name, digits) for digits in sets]
        test, held_out = (log_px - before for log_px, before in zip(found, base))
        stderr = math.hypot(stderr_of(test), stderr_of(held_out))
        print(f"{name:<18}{-found[0].mean():12.2f}{-found[1].mean():17.2f}"
              f"{test.mean() - held_out.mean():15.2f} ± {stderr:.2f}", flush=True)


if __name__ == "__main__":
    main()
