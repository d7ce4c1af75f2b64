"""A VAE and its flow trained together, then folded: the trial on held-out digits, on 64 samples.

    python tests/benchmarks/folded_pair.py

two_hours and its flow are trained together for a tenth of the steps of flow_together, on the last 50,000 training
images, and then folded. The control is folded as they stand. Both then get 400 steps of the sleep phase, and 750 on the
bound of 64 samples, about a tenth of those of folded_64. The negative log-likelihoods of held-out digits, 2,000 by
draws of the encoder's q and 400 by draws of a refined q, go to folded_pair.json, beside those of two_hours_folded as it
stands, and of the pair before and after it was trained together, with the flow for its prior; the paired differences,
too. Took 110 minutes of CPU time on a slow machine; a run that was cut goes on from its checkpoints in runs/.
"""

from functools import partial
from pathlib import Path

from trials import log_likelihoods, report, trained

from vae_lib.data import fixed_binarization, load, validation_split
from vae_lib.flow import FlowVAE, folded, resampled_dreg_with_flow
from vae_lib.recipes import L64, LONGER, SLEEP, pretrained

TOGETHER = LONGER | dict(steps=900, seed=70, objective=partial(resampled_dreg_with_flow, num_samples=16))
AFTER_FOLDING = SLEEP | dict(steps=400), L64 | dict(steps=750, seed=70)


def main():
    held_out, images = validation_split(load("MNIST").train)
    before = FlowVAE(pretrained("two_hours"), pretrained("two_hours_flow")).requires_grad_(False)
    together = trained(FlowVAE(before, before.flow).requires_grad_(True), images, "folded_pair-together",
                       [TOGETHER])
    pairs = {"with its flow": before, "trained together": together}
    x = fixed_binarization(held_out)
    found = {"two_hours_folded": log_likelihoods(pretrained("two_hours_folded").requires_grad_(False), x)}
    found |= {name: log_likelihoods(pair, x, prior=pair.flow) for name, pair in pairs.items()}
    for name, pair in pairs.items():
        model = folded(pair).requires_grad_(True)
        model = trained(model, images, f"folded_pair-{name.split()[-1]}-folded", AFTER_FOLDING)
        found[f"{name}, then folded"] = log_likelihoods(model, x)
    report(found, Path(__file__).with_suffix(".json"))


if __name__ == "__main__":
    main()
