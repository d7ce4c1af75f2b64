"""What trials on held-out digits share: training on from trained weights, NLLs by two proposals, paired differences."""

import json
import zlib
from itertools import combinations

from vae_lib.data import fixed_binarization, load, validation_split
from vae_lib.evaluation import importance_estimates
from vae_lib.latents import stderr_of
from vae_lib.recipes import pretrained
from vae_lib.recording import REFINING
from vae_lib.refinement import encoder_proposal, refine
from vae_lib.training import fit


def from_two_hours_folded(runs, path):
    """Report the NLLs of two_hours_folded as it stands and after each run: {its name: the arguments of its fit}."""
    held_out, images = validation_split(load("MNIST").train)
    models = {"two_hours_folded": pretrained("two_hours_folded").requires_grad_(False)}
    for name, options in runs.items():
        run = f"{path.stem}-{name.replace(' ', '-').replace(',', '')}"
        models[name] = trained(pretrained("two_hours_folded"), images, run, [options])
    x = fixed_binarization(held_out)
    report({name: log_likelihoods(model, x) for name, model in models.items()}, path)


def trained(model, images, name, stages):
    """The model after these stages, for measuring; a stage goes on from its checkpoint in runs/, of the same start."""
    for i, options in enumerate(stages):
        start = zlib.crc32(b"".join(tensor.numpy(force=True).tobytes() for tensor in model.state_dict().values()))
        fit(model, images, checkpoint=f"runs/{name}-stage{i}-from-{start:08x}.safetensors", resume=True, **options)
    return model.requires_grad_(False)


def log_likelihoods(model, x, prior=None):
    """Estimates of log p(x), in nats, by each proposal: {its name: one for each image}."""
    options = dict(batch_size=500, autocast=True, prior=prior)
    q = refine(model, x[:400], start=encoder_proposal(model, x[:400], 500), **REFINING, **options)
    return {"encoder": importance_estimates(model, x[:2000], 200, **options).log_px,
            "refined": importance_estimates(model, x[:400], 1000, q=q, **options).log_px}


def report(found, path):
    """Write the NLLs of {model: {proposal: log p(x)}}, and by how much a model's is lower than each one before it."""
    results = {name: {q: _mean(-log_px) for q, log_px in of_model.items()} for name, of_model in found.items()}
    for before, after in combinations(found, 2):
        results[f"{after}: lower than {before} by"] = {q: _mean(found[after][q] - found[before][q])
                                                       for q in found[after]}
    path.write_text(json.dumps(results, indent=1) + "\n")
    print(path.read_text())


def _mean(values):
    return {"mean": values.mean().item(), "stderr": stderr_of(values)}
