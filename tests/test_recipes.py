"""The shipped weights are those of the recorded recipes, and are as good as their logs say."""

from functools import partial

import pytest
import torch

from vae_lib import recipes
from vae_lib.data import ImageData, fixed_binarization, load
from vae_lib.evaluation import held_out_elbo
from vae_lib.models import dense_vae

each_recipe = pytest.mark.parametrize("name", recipes.RECIPES)


@each_recipe
def test_the_log_is_that_of_the_recipe(name):
    log, recipe = recipes.training_log(name), recipes.recipe(name)
    assert log["options"] == recipe.options and log["about"] == recipe.about
    assert log["parameters"] == sum(weights.numel() for weights in recipe.build().parameters())
    epochs = recipe.options["steps"] // (50_000 // recipe.options["batch_size"])
    assert {len(values) for values in log["history"].values()} == {epochs}
    assert log["history"]["elbo"][-1] > log["history"]["elbo"][0]


@each_recipe
def test_the_weights_reach_what_the_log_says(name):
    """On 1,000 digits that were held out for validation: the mean over others, give or take its standard error."""
    model, log = recipes.pretrained(name), recipes.training_log(name)
    found = held_out_elbo(model, fixed_binarization(load("MNIST", root="sample").test))
    assert abs(found.elbo - log["validation"]["elbo"]) < 4 * found.stderr < 5
    assert abs(log["test"]["elbo"] - log["validation"]["elbo"]) < 2


def test_the_weights_are_small_enough_to_ship():
    assert sum(path.stat().st_size for path in recipes.WEIGHTS.iterdir()) <= 10_000_000


@pytest.mark.parametrize("function", [recipes.pretrained, recipes.training_log, recipes.train])
def test_an_unknown_recipe_is_refused(function):
    with pytest.raises(ValueError, match="recipe: wanted one of conv_mnist.*, got 'magic'"):
        function("magic")


def test_loading_weights_leaves_the_random_stream_alone():
    before = torch.random.get_rng_state()
    recipes.pretrained("conv_mnist")
    assert torch.equal(torch.random.get_rng_state(), before)


def test_a_run_leaves_weights_and_a_log(tmp_path, monkeypatch, capsys):
    """A small recipe on small data; a second start finds it finished, and leaves the same weights."""
    images = torch.randint(0, 256, (300, 1, 4, 4), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    labels = torch.zeros(300, dtype=torch.int64)
    monkeypatch.setattr(recipes, "load", lambda name: ImageData(images, labels, images[:50], labels[:50], "small"))
    monkeypatch.setattr(recipes, "validation_split", lambda train: (train[:100], train[100:]))
    build = partial(dense_vae, image_shape=(1, 4, 4), hidden=(8,), latent_dim=2)
    options = {"steps": 14, "batch_size": 32, "seed": 3, "progress": False}
    monkeypatch.setitem(recipes.RECIPES, "small", recipes.Recipe("a test", build, options))
    monkeypatch.setattr(recipes, "WEIGHTS", tmp_path)
    recipes.train("small", folder=tmp_path, runs=tmp_path / "runs")
    log, first = recipes.training_log("small"), recipes.pretrained("small").state_dict()
    assert {len(values) for values in log["history"].values()} == {2} and log["options"] == options
    assert log["validation"]["elbo"] < 0 and '"validation"' in capsys.readouterr().out
    recipes.train("small", folder=tmp_path, runs=tmp_path / "runs")
    second = recipes.pretrained("small").state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)
