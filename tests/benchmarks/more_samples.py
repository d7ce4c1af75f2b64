"""Sixteen samples or sixty-four: the trial on held-out digits by which folded_64 was chosen.

    python tests/benchmarks/more_samples.py

Two short runs go on from two_hours_folded, on the last 50,000 training images: one on the bound of 16 samples, one on
that of 64, for about as long by the clock. The negative log-likelihoods of held-out digits, 2,000 by draws of the
encoder's q and 400 by draws of a refined q, go to more_samples.json, beside those of two_hours_folded as it stands; the
paired differences of the runs from it and from each other, too. Takes some 40 minutes of CPU time; a run that was cut
goes on from its checkpoint in runs/.
"""

import json
from itertools import combinations
from pathlib import Path

from vae_lib.data import fixed_binarization, load, validation_split
from vae_lib.evaluation import importance_estimates
from vae_lib.recipes import L64, LONGER, pretrained
from vae_lib.recording import REFINING
from vae_lib.refinement import encoder_proposal, refine
from vae_lib.training import fit

RUNS = {"16 samples": LONGER | dict(steps=2100, seed=70), "64 samples": L64 | dict(steps=750, seed=70)}


def log_likelihoods(model, x, prior=None):
    """Estimates of log p(x), in nats, by each proposal: {its name: one for each image}."""
    options = dict(batch_size=500, autocast=True, prior=prior)
    q = refine(model, x[:400], start=encoder_proposal(model, x[:400], 500), **REFINING, **options)
    return {"encoder": importance_estimates(model, x[:2000], 200, **options).log_px,
            "refined": importance_estimates(model, x[:400], 1000, q=q, **options).log_px}


def mean(values):
    return {"mean": values.mean().item(), "stderr": values.std().item() / len(values) ** 0.5}


def report(found, path):
    """Write the NLLs of {model: {proposal: log p(x)}}, and by how much a model's is lower than each one before it."""
    results = {name: {q: mean(-log_px) for q, log_px in of_model.items()} for name, of_model in found.items()}
    for before, after in combinations(found, 2):
        results[f"{after}: lower than {before} by"] = {q: mean(found[after][q] - found[before][q])
                                                       for q in found[after]}
    path.write_text(json.dumps(results, indent=1) + "\n")
    print(path.read_text())


def main():
    held_out, images = validation_split(load("MNIST").train)
    models = {"as it stands": pretrained("two_hours_folded")}
    for name, options in RUNS.items():
        models[name] = pretrained("two_hours_folded")
        fit(models[name], images, checkpoint=f"runs/more_samples-{name[:2]}.safetensors", resume=True, **options)
    x = fixed_binarization(held_out)
    found = {name: log_likelihoods(model.requires_grad_(False), x) for name, model in models.items()}
    report(found, Path(__file__).with_suffix(".json"))


if __name__ == "__main__":
    main()
