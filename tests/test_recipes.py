"""The shipped weights are those of the recorded recipes, and are as good as their logs say."""

import math
from itertools import pairwise

import pytest
import torch

from vae_lib import recipes, recording
from vae_lib.data import fixed_binarization, load
from vae_lib.evaluation import held_out_elbo, importance_estimates

each_shipped = pytest.mark.parametrize("name", [name for name, recipe in recipes.RECIPES.items() if recipe.ships])


@pytest.fixture(scope="module")
def digits():
    """1,000 that were held out for validation."""
    return fixed_binarization(load("MNIST", root="sample").test)


@pytest.mark.parametrize("name, seed", dict.fromkeys([*((name, 0) for name in recipes.RECIPES),
                                                      *recipes.recorded_runs()]))
def test_the_log_is_that_of_the_recipe(name, seed):
    log, recipe = recipes.training_log(name, seed), recipes.recipe(name)
    assert log["stages"] == [recording._as_json(options | {"seed": options["seed"] + seed})
                             for options in recipe.stages]
    assert log["about"] == recipe.about and log.get("prior_of") == recipe.prior_of
    assert log.get("made_of", []) == list(recipe.made_of)
    network = recipes.untrained(name, recipes.WEIGHTS)
    assert log["parameters"] == sum(weights.numel() for weights in network.parameters())
    images = 60_000 if recipe.all_images else 50_000
    epochs = [options["steps"] // (images // options["batch_size"]) for options in recipe.stages]
    assert {len(values) for values in log["history"].values()} == {sum(epochs)}
    # later stages have other objectives
    assert log["history"]["elbo"][epochs[0] - 1] > log["history"]["elbo"][0]
    for num_samples, found in log.get("nll", {}).items():
        assert found["num_samples"] == int(num_samples) and found["machine"]
        assert -found["elbo"] == pytest.approx(-log["test"]["elbo"], abs=0.3) and -found["elbo"] > found["nll"]
    by_samples = sorted(log.get("nll", {}).values(), key=lambda found: found["num_samples"])
    assert all(few["nll"] > many["nll"] for few, many in pairwise(by_samples))
    for num_samples, found in log.get("nll_refined", {}).items():
        assert found["num_samples"] == int(num_samples) and found["family"] == "full" and found["steps"] >= 100
        assert found["elbo"] > log["test"]["elbo"] + 1
        assert found["stderr"] == pytest.approx(by_samples[0]["stderr"], 0.05)
        assert all(found["nll"] < other["nll"] < found["nll"] + 2 for other in by_samples)
    if seed == 0 and recipe.ships:
        checksum = recording._checksum(recipes.WEIGHTS / f"{name}.safetensors")
        assert log["weights"] == checksum + recording._of([recipe.prior_of], recipes.WEIGHTS)


@each_shipped
def test_the_weights_reach_what_the_log_says(name, digits):
    """The mean over 1,000 digits is that over 10,000 in the log, give or take its standard error.

    Recipes with `all_images` have seen these digits. Their logs have no validation.
    """
    vae, prior = recipes.vae_and_prior(name, recipes.pretrained(name), recipes.WEIGHTS)
    log = recipes.training_log(name)
    found = held_out_elbo(vae, digits, prior=prior)
    assert (log["validation"] is None) == recipes.recipe(name).all_images
    expected = log["validation"] or log["test"]
    assert abs(found.elbo - expected["elbo"]) < 4 * found.stderr < 0.06 * abs(found.elbo)
    if recipes.recipe(name).prior_of:
        gained, plain = (held_out_elbo(vae, digits[:200], prior=density).elbo for density in (prior, None))
        assert gained > plain + 0.5
    assert abs(log["test"]["elbo"] - expected["elbo"]) < 2


@each_shipped
def test_the_likelihood_lies_above_the_elbo_by_what_the_log_says(name, digits):
    """With 64 samples, on 150 held-out digits, give or take the error of their mean, up to 2.5 nats.

    More samples make the gap wider: in the logs by 0.2 to 0.3 nats for each factor of e.
    """
    measured = recipes.training_log(name).get("nll", {}).values()
    if not measured:
        pytest.skip("not measured yet")
    logged = min(measured, key=lambda found: found["num_samples"])
    vae, prior = recipes.vae_and_prior(name, recipes.pretrained(name), recipes.WEIGHTS)
    weighed = importance_estimates(vae, digits[:150], 64, seed=0, autocast=True, prior=prior, progress=False)
    gap = weighed.log_px - (weighed.log_px_given_z - weighed.kl)
    wider = -logged["elbo"] - logged["nll"] - gap.mean()
    error = 4 * gap.std() / len(gap) ** 0.5
    factors = math.log(logged["num_samples"] / 64)
    assert 0.15 * factors - error < wider < 0.35 * factors + error
    assert error < 2.5


def test_the_weights_are_small_enough_to_ship():
    assert sum(path.stat().st_size for path in recipes.WEIGHTS.iterdir()) <= 12_000_000


@pytest.mark.parametrize("function", [recipes.pretrained, recipes.training_log, recording.train,
                                      lambda name: recording.measure(name, 5)])
def test_an_unknown_recipe_is_refused(function):
    with pytest.raises(ValueError, match="recipe: wanted one of conv_mnist.*, got 'magic'"):
        function("magic")


def test_loading_weights_leaves_the_random_stream_alone():
    before = torch.random.get_rng_state()
    recipes.pretrained("conv_mnist")
    assert torch.equal(torch.random.get_rng_state(), before)


def test_a_second_bout_of_the_bound_is_the_first_with_a_seed_of_its_own():
    plain, both = (list(map(recording._as_json, recipes.staged(1, 2e-3, 3, 1e-3, *more))) for more in ((), (5,)))
    assert both[:2] == plain and both[2:] == [plain[1] | dict(steps=5, seed=10)]
