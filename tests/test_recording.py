"""Recording: runs that leave weights and a log, that resume, and whose likelihood is measured in parts."""

import json
import platform
import runpy
import shutil
import sys
import zlib
from functools import partial

import pytest
import torch
from rights import as_nobody

from vae_lib import recipes, recording
from vae_lib.checkpoints import save_weights
from vae_lib.data import ImageData, fixed_binarization, load
from vae_lib.evaluation import held_out_elbo, importance_estimates, nll
from vae_lib.flow import FlowVAE, RealNVP, folded, resampled_dreg_with_flow
from vae_lib.models import dense_vae
from vae_lib.objectives import dreg, ex_post, sleep_phase
from vae_lib.refinement import encoder_proposal, gaps, refine
from vae_lib.training import fit


@pytest.fixture
def small(tmp_path, monkeypatch):
    """A small recipe of two stages on small data, which writes into tmp_path: the arguments of train and measure."""
    images = torch.randint(0, 256, (300, 1, 4, 4), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    labels = torch.zeros(300, dtype=torch.int64)
    monkeypatch.setattr(recording, "load", lambda name: ImageData(images, labels, images[:50], labels[:50], "small"))
    monkeypatch.setattr(recording, "validation_split", lambda train: (train[:100], train[100:]))
    build = partial(dense_vae, image_shape=(1, 4, 4), hidden=(8,), latent_dim=2)
    stages = (dict(steps=14, batch_size=32, seed=0, progress=False),
              dict(steps=7, batch_size=32, seed=10, objective=partial(dreg, num_samples=3), progress=False))
    monkeypatch.setitem(recipes.RECIPES, "small", recipes.Recipe("a test", build, stages))
    monkeypatch.setattr(recipes, "WEIGHTS", tmp_path)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    return dict(folder=tmp_path, runs=tmp_path / "runs")


def test_a_run_leaves_weights_and_a_log(small, capsys):
    """A second start finds it finished, and leaves the same weights and the same log."""
    recording.train("small", **small)
    log, first = recipes.training_log("small"), recipes.pretrained("small").state_dict()
    assert {len(values) for values in log["history"].values()} == {3} and not log["resumed"]
    assert log["stages"][1] == dict(steps=7, batch_size=32, seed=10, objective="dreg", num_samples=3, progress=False)
    assert log["validation"]["elbo"] < 0 and '"validation"' in capsys.readouterr().out
    recording.measure("small", 5, **small)
    log = recipes.training_log("small")
    recording.train("small", **small)
    second = recipes.pretrained("small").state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert recipes.training_log("small") == log


def test_weights_that_do_not_ship_stay_with_the_runs(small, monkeypatch):
    """They are those that would have shipped, and are measured there."""
    recording.train("small", **small)
    shipped = small["folder"] / "small.safetensors"
    bits = shipped.read_bytes()
    shipped.unlink()
    monkeypatch.setitem(recipes.RECIPES, "small", recipes.recipe("small")._replace(ships=False))
    recording.train("small", **small)
    assert not shipped.exists() and (small["runs"] / "small.safetensors").read_bytes() == bits
    recording.measure("small", 5, **small)
    assert "5" in recipes.training_log("small")["nll"]
    with pytest.raises(FileNotFoundError, match="wanted the weights of small, which `train` leaves in runs/, as"):
        recipes.pretrained("small")


def test_measurements_stay_in_the_log_of_a_run_that_repeats_itself(small, monkeypatch):
    """But not in that of another run, even one that was cut between its weights and its log."""
    recording.train("small", **small)
    recording.measure("small", 5, **small)
    before = recipes.training_log("small")["nll"]
    shutil.rmtree(small["runs"])
    recording.train("small", **small)
    log = recipes.training_log("small")
    assert log["nll"] == before and not log["resumed"]
    shutil.rmtree(small["runs"])
    stages = [options | {"learning_rate": 1e-2} for options in recipes.recipe("small").stages]
    monkeypatch.setitem(recipes.RECIPES, "small", recipes.recipe("small")._replace(stages=stages))
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(recording, "held_out_elbo", cut)
        recording.train("small", **small)
    assert recipes.training_log("small")["nll"] == before
    recording.train("small", **small)
    assert "nll" not in recipes.training_log("small")


def cut(*_, **__):
    raise KeyboardInterrupt


def test_the_history_has_the_means_of_epochs_of_both_stages(small):
    recording.train("small", **small)
    log, images = recipes.training_log("small"), recording.load("MNIST").train[100:]
    torch.manual_seed(0)
    model = recipes.recipe("small").build()
    histories = [fit(model, images, **options) for options in recipes.recipe("small").stages]
    first, second = (torch.tensor(history["elbo"]) for history in histories)
    means = [first[:6].mean(), first[6:12].mean(), second[:6].mean()]
    assert log["history"]["elbo"] == pytest.approx([mean.item() for mean in means], rel=1e-6)


def test_a_flow_trained_with_its_vae_on_all_images(small, monkeypatch):
    """It has seen the images held out from other recipes, so its log has no validation; its flow is its prior."""
    recording.train("small", **small)
    flow = recipes.Recipe("a test", partial(RealNVP, 2, hidden=4, couplings=2), (dict(
        steps=3, batch_size=32, seed=0, objective=ex_post, progress=False),), prior_of="small")
    both = recipes.Recipe("a test", FlowVAE, (dict(
        steps=18, batch_size=32, seed=0, objective=partial(resampled_dreg_with_flow, num_samples=3), progress=False),),
        made_of=("small", "flow"), all_images=True)
    assert flow.learned_prior and both.learned_prior and not recipes.recipe("small").learned_prior
    monkeypatch.setitem(recipes.RECIPES, "flow", flow)
    monkeypatch.setitem(recipes.RECIPES, "both", both)
    for name in ("flow", "both", "both"):
        recording.train(name, **small)
    log, model = recipes.training_log("both"), recipes.pretrained("both")
    assert log["validation"] is None and {len(values) for values in log["history"].values()} == {2}  # of 300 images
    test = fixed_binarization(recording.load("MNIST").test)
    assert log["test"] == held_out_elbo(model, test, prior=model.flow)._asdict()
    recording.measure("both", 5, **small)
    expected = nll(model, test, 5, autocast=True, prior=model.flow)
    assert recipes.training_log("both")["nll"]["5"]["nll"] == expected.nll


def test_another_seed_is_another_run_whose_weights_do_not_ship(small, tmp_path):
    recording.train("small", **small)
    recording.train("small", seed=1, **small)
    one, two = recipes.training_log("small"), recipes.training_log("small", seed=1)
    assert one["test"] != two["test"] and [stage["seed"] for stage in two["stages"]] == [1, 11]
    assert sorted(path.name for path in tmp_path.glob("*.*")) == [
        "small-seed1.json", "small.json", "small.safetensors"]
    runs = recipes.recorded_runs()
    assert list(runs)[-2:] == [("small", 0), ("small", 1)] and runs["small", 1] == two
    recording.measure("small", 20, seed=1, **small)
    assert "nll" in recipes.training_log("small", seed=1) and "nll" not in recipes.training_log("small")


def test_measure_adds_the_likelihood_to_the_log(small, capsys):
    recording.train("small", **small)
    for num_samples in (5, 50):
        recording.measure("small", num_samples, **small)
    found = recipes.training_log("small")["nll"]
    assert found.keys() == {"5", "50"} and found["50"]["num_samples"] == 50
    assert -found["50"]["elbo"] > found["5"]["nll"] > found["50"]["nll"] > 0
    expected = nll(recipes.pretrained("small"), fixed_binarization(recording.load("MNIST").test), 50, autocast=True)
    assert found["50"]["nll"] == expected.nll and '"nll"' in capsys.readouterr().out


def test_a_stage_does_not_go_on_from_other_weights_than_it_began_with(small, monkeypatch):
    """If the first stage is trained anew, by other options, the second one's checkpoint is of no use."""
    recording.train("small", **small)
    before = recipes.pretrained("small").state_dict()
    (small["runs"] / "small-stage0.safetensors").unlink()
    first, second = recipes.recipe("small").stages
    changed = recipes.recipe("small")._replace(stages=(first | {"learning_rate": 1e-2}, second))
    monkeypatch.setitem(recipes.RECIPES, "small", changed)
    recording.train("small", **small)
    assert not torch.equal(before["encoder.to_mu.weight"], recipes.pretrained("small").encoder.to_mu.weight)
    anew = small | {"runs": small["runs"] / "anew"}
    history = recipes.training_log("small")["history"]
    recording.train("small", **anew)
    assert recipes.training_log("small")["history"] == history


def test_a_measurement_goes_to_the_log_of_the_weights_that_were_measured(small, monkeypatch):
    """Not to one that is put in its place before, as by a run that was cut between weights and log, or meanwhile."""
    recording.train("small", **small)
    log = recipes.training_log("small")
    other = log | {"weights": "00000000"}
    recording.write_log(other, small["folder"] / "small.json")
    with pytest.raises(ValueError, match=f"wanted the log of the weights {log['weights']}, got that of 00000000"):
        recording.measure("small", 5, **small)
    recording.write_log(log, small["folder"] / "small.json")

    def meanwhile(*arguments, **options):
        recording.write_log(other, small["folder"] / "small.json")
        return importance_estimates(*arguments, **options)

    monkeypatch.setattr(recording, "importance_estimates", meanwhile)
    with pytest.raises(ValueError, match="wanted the log of the weights"):
        recording.measure("small", 5, **small)
    assert "nll" not in recipes.training_log("small")


def test_measure_with_a_q_refined_for_each_image(small, monkeypatch):
    """It stands beside the encoder's; for a model of two latents 200 draws of either nearly reach log p(x)."""
    recording.train("small", **small)
    monkeypatch.setattr(recording, "PART", 30)
    for refined in False, True:
        recording.measure("small", 200, refined=refined, **small)
    log, model = recipes.training_log("small"), recipes.pretrained("small")
    by_encoder, found = log["nll"]["200"], log["nll_refined"]["200"]
    x = fixed_binarization(recording.load("MNIST").test)
    expected = []
    for i, images in enumerate(x.split(30)):
        common = dict(seed=i, autocast=True, progress=False)
        q = refine(model, images, "full", steps=150, start=encoder_proposal(model, images), **common)
        expected.append(importance_estimates(model, images, 200, q=q, **common).log_px)
    assert found["nll"] == pytest.approx(-torch.cat(expected).mean().item())
    assert found["elbo"] > by_encoder["elbo"] and found["nll"] == pytest.approx(by_encoder["nll"], abs=0.05)
    assert found["effective_sample_size"] > by_encoder["effective_sample_size"]
    assert found["family"] == "full" and found["steps"] == 150
    recording.train("small", **small)
    assert recipes.training_log("small")["nll_refined"] == log["nll_refined"]


def test_measure_joins_parts_and_goes_on_after_a_cut(small, monkeypatch):
    """Cut in its third part, it weighs that part alone when started again; the average is over all images."""
    recording.train("small", **small)
    monkeypatch.setattr(recording, "PART", 20)
    calls, parts = [], fixed_binarization(recording.load("MNIST").test).split(20)

    def cut(model, x, *arguments, seed, **options):
        calls.append(seed)
        if calls == [0, 1, 2]:
            raise KeyboardInterrupt
        return importance_estimates(model, x, *arguments, seed=seed, progress=False, **options)

    monkeypatch.setattr(recording, "importance_estimates", cut)
    with pytest.raises(KeyboardInterrupt):
        recording.measure("small", 5, **small)
    recording.measure("small", 5, **small)
    found, model = recipes.training_log("small")["nll"]["5"], recipes.pretrained("small")
    log_px = torch.cat([importance_estimates(model, x, 5, seed=i, autocast=True).log_px for i, x in enumerate(parts)])
    assert calls == [0, 1, 2, 2] and len(log_px) == 50
    assert found["nll"] == pytest.approx(-log_px.mean().item())
    assert found["stderr"] == pytest.approx(log_px.std().item() / 50**0.5)


def test_on_a_gpu_more_is_decoded_at_once_and_the_log_names_it(small, monkeypatch):
    """Parts that came from a CPU are not taken for the GPU's."""
    recording.train("small", **small)
    decoded = []

    def counted(model, x, num_samples, batch_size, **options):
        decoded.append(batch_size)
        return importance_estimates(model, x, num_samples, batch_size, **options)

    monkeypatch.setattr(recording, "importance_estimates", counted)
    recording.measure("small", 5, **small)
    on_cpu = recipes.training_log("small")["nll"]["5"]
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "NVIDIA X")
    monkeypatch.setattr(torch.nn.Module, "to", lambda self, *where, **options: self)
    recording.measure("small", 5, **small)
    on_gpu = recipes.training_log("small")["nll"]["5"]
    assert decoded == [500, 10_000]
    assert on_cpu["machine"].startswith(f"{platform.machine()}, {torch.get_num_threads()} threads, torch ")
    assert on_gpu["machine"] == f"NVIDIA X, torch {torch.__version__}"


def replace_weights(name, model, folder):
    """Put other weights in the place of a recipe's, with a log that is theirs."""
    save_weights(model, folder / f"{name}.safetensors")
    checksum = f"{zlib.crc32((folder / f'{name}.safetensors').read_bytes()):08x}"
    checksum += recording._of([recipes.recipe(name).prior_of], folder)
    recording.write_log(recipes.training_log(name) | {"weights": checksum}, folder / f"{name}.json")


def test_measure_does_not_take_other_weights_parts(small):
    recording.train("small", **small)
    recording.measure("small", 5, **small)
    one = recipes.training_log("small")["nll"]["5"]["nll"]
    model = recipes.pretrained("small")
    with torch.no_grad():
        model.decoder.to_output.bias += 1
    replace_weights("small", model, small["folder"])
    recording.measure("small", 5, **small)
    assert recipes.training_log("small")["nll"]["5"]["nll"] != one


def test_a_recipe_for_a_prior_trains_it_alone_and_measures_the_vae_with_it(small, tmp_path, monkeypatch):
    """Its log says what the VAE reaches with that prior; with other weights of the VAE it is refused."""
    monkeypatch.setitem(recipes.RECIPES, "small_prior", recipes.Recipe(
        "a test", partial(RealNVP, 2, hidden=8, couplings=2),
        (dict(steps=60, batch_size=32, learning_rate=1e-2, seed=0, objective=ex_post, progress=False),), "small"))
    recording.train("small", **small)
    path = tmp_path / "small.safetensors"
    before = path.read_bytes()
    recording.train("small_prior", **small)
    log = recipes.training_log("small_prior")
    vae, prior = map(recipes.pretrained, ("small", "small_prior"))
    assert isinstance(prior, RealNVP) and path.read_bytes() == before
    data = recording.load("MNIST")
    for part, images in (("test", data.test), ("validation", data.train[:100])):
        bits = fixed_binarization(images)
        assert log[part] == held_out_elbo(vae, bits, prior=prior)._asdict() != held_out_elbo(vae, bits)._asdict()
    assert log["prior_of"] == "small" and log["stages"] == [
        dict(steps=60, batch_size=32, learning_rate=1e-2, seed=0, objective="ex_post", progress=False)]

    def measured():
        recording.measure("small_prior", 50, **small)
        return recipes.training_log("small_prior")["nll"]["50"]["nll"]

    first = measured()
    assert first == nll(vae, fixed_binarization(data.test), 50, autocast=True, prior=prior).nll
    with torch.no_grad():
        prior.couplings[0].net[-1].bias += 1
    replace_weights("small_prior", prior, tmp_path)
    second = measured()
    with torch.no_grad():
        vae.encoder.to_mu.bias += 1
    save_weights(vae, path)
    with pytest.raises(ValueError, match="wanted the log of the weights .*, got that of"):
        measured()
    replace_weights("small_prior", prior, tmp_path)
    assert len({first, second, measured()}) == 3
    recording.train("small_prior", **small)  # from the start, for what is another VAE now
    moved = recipes.training_log("small_prior")
    assert not moved["resumed"] and moved["history"] != log["history"]


@pytest.fixture
def with_folded(small, monkeypatch):
    """A recipe that folds a small flow into the small VAE; both are trained."""
    stages = (dict(steps=6, batch_size=32, seed=0, objective=ex_post, progress=False),)
    monkeypatch.setitem(recipes.RECIPES, "small_flow", recipes.Recipe(
        "a test", partial(RealNVP, 2, hidden=8, couplings=2), stages, "small"))
    stages = (dict(steps=6, batch_size=32, seed=0, objective=sleep_phase, progress=False),)
    monkeypatch.setitem(recipes.RECIPES, "small_folded", recipes.Recipe(
        "a test", folded, stages, made_of=("small", "small_flow")))
    recording.train("small", **small)
    recording.train("small_flow", **small)
    return small


def test_a_recipe_made_of_others_starts_from_their_weights(with_folded):
    recording.train("small_folded", **with_folded)
    log, model = recipes.training_log("small_folded"), recipes.pretrained("small_folded")
    assert log["made_of"] == ["small", "small_flow"]
    start = folded(recipes.pretrained("small"), recipes.pretrained("small_flow"))
    kept, moved = (list(zip(getattr(start, half).parameters(), getattr(model, half).parameters(), strict=True))
                   for half in ("decoder", "encoder"))
    assert all(torch.equal(one, other) for one, other in kept)  # a sleep phase trains the encoder alone
    assert not any(torch.equal(one, other) for one, other in moved)
    recording.measure("small_folded", 5, **with_folded)
    found = recipes.training_log("small_folded")["nll"]["5"]["nll"]
    assert found == nll(model, fixed_binarization(recording.load("MNIST").test), 5, autocast=True).nll


def change(name, folder):
    """Other weights in the file of a recipe."""
    model = recipes.trained(name, folder)
    with torch.no_grad():
        for weights in model.parameters():
            weights += 0.1
    save_weights(model, folder / f"{name}.safetensors")


@pytest.mark.parametrize("changed", ["small", "small_flow"])
def test_it_starts_anew_when_these_have_changed(with_folded, tmp_path, changed):
    recording.train("small_folded", **with_folded)
    before = recipes.training_log("small_folded")
    recording.train("small_folded", **with_folded)
    assert recipes.training_log("small_folded") == before
    change(changed, tmp_path)
    recording.train("small_folded", **with_folded)
    after = recipes.training_log("small_folded")
    assert not after["resumed"] and after["history"] != before["history"]


@pytest.mark.parametrize("name", ["small_flow", "small_folded"])
def test_it_takes_the_weights_from_its_own_folder(with_folded, tmp_path, name):
    """Not those of the same name which ship with the library; a prior is trained for the VAE there."""
    recording.train(name, **with_folded)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    with pytest.raises(FileNotFoundError, match="small.safetensors: wanted the weights of small, which `train` leaves"):
        recording.train(name, folder=elsewhere, runs=elsewhere / "runs")
    for file in ("small.safetensors", "small_flow.safetensors"):
        shutil.copy(tmp_path / file, elsewhere)
    change("small", elsewhere)
    recording.train(name, folder=elsewhere, runs=elsewhere / "runs")
    one, other = (json.loads((folder / f"{name}.json").read_text()) for folder in (tmp_path, elsewhere))
    assert one["history"] != other["history"] and one["test"] != other["test"]


def test_a_finished_run_that_is_started_again_tells_what_its_recipe_is_about_now(small, monkeypatch):
    recording.train("small", **small)
    recording.measure("small", 5, **small)
    before = recipes.training_log("small")
    monkeypatch.setitem(recipes.RECIPES, "small", recipes.recipe("small")._replace(about="another test"))
    recording.train("small", **small)
    assert recipes.training_log("small") == before | {"about": "another test"}


def test_what_was_tried_stays_in_the_log_of_a_recipe_that_is_trained_again(small, monkeypatch):
    recording.train("small", **small)
    log = recipes.training_log("small")
    noted = {"trials": [{"what": "twice the width", "lower_by": -0.3}], "tried": ["twice the width: 0.3 nats worse"]}
    recording.write_log(log | noted, small["folder"] / "small.json")
    stages = [options | {"learning_rate": 1e-2} for options in recipes.recipe("small").stages]
    monkeypatch.setitem(recipes.RECIPES, "small", recipes.recipe("small")._replace(stages=stages))
    shutil.rmtree(small["runs"])
    recording.train("small", **small)
    again = recipes.training_log("small")
    assert noted.items() <= again.items() and again["history"] != log["history"]


def test_gaps_join_parts_and_stay_in_the_log(small, monkeypatch):
    recording.train("small", **small)
    monkeypatch.setattr(recording, "GAPS_PART", 2)
    monkeypatch.setattr(recording, "gaps", partial(gaps, steps=2))
    recording.measure_gaps("small", 3, 6, **small)
    found = recipes.training_log("small")["gaps"]["3"]
    x = fixed_binarization(recording.load("MNIST").test)[:3]
    parts = [gaps(recipes.pretrained("small"), images, 6, seed=i, autocast=True, steps=2, progress=False)
             for i, images in enumerate(x.split(2))]
    log_px = torch.cat([part.log_px for part in parts])
    assert found["log_px"] == pytest.approx(log_px.mean().item()) and found["num_samples"] == 6
    assert found["log_px"] - found["encoder"] == pytest.approx(
        found["parts"]["amortization"][0] + found["parts"]["family"][0])
    assert found["effective_size"] == pytest.approx(torch.cat([part.effective_size for part in parts]).mean().item())
    monkeypatch.setattr(recording, "gaps", None)
    recording.measure_gaps("small", 3, 6, **small)
    assert recipes.training_log("small")["gaps"]["3"] == found
    recording.train("small", **small)
    assert recipes.training_log("small")["gaps"]["3"] == found
    for wrong in 0, 1, 10**6:
        with pytest.raises(ValueError, match="^num_images: wanted an integer, 2 to "):
            recording.measure_gaps("small", wrong, 6, **small)


def test_measure_wants_the_log_of_the_run(small):
    recording.train("small", **small)
    (small["folder"] / "small.json").unlink()
    with pytest.raises(FileNotFoundError, match="small.json: wanted the log of the run"):
        recording.measure("small", 5, **small)


@pytest.mark.parametrize("task", [recording.measure, partial(recording.measure_gaps, num_images=5)])
def test_measure_wants_the_weights_of_the_run(small, task):
    recording.train("small", **small)
    with pytest.raises(FileNotFoundError, match="small-seed7.safetensors: wanted the weights of the run, which"):
        task("small", seed=7, **small)


@pytest.mark.parametrize("closed", ["weights", "runs"])
@pytest.mark.parametrize("task", [recording.train, partial(recording.measure, num_samples=5)], ids=["train", "measure"])
def test_a_folder_that_may_not_be_written_is_found_out_before_the_work(small, tmp_path, monkeypatch, task, closed):
    folders = dict(folder=tmp_path / "weights", runs=tmp_path / "runs")
    recording.train("small", **folders)
    kept = {path: path.read_bytes() for path in tmp_path.rglob("*.*")}
    for folder in folders.values():
        folder.chmod(0o777)
    for work in "fit", "importance_estimates":
        monkeypatch.setattr(recording, work, None)  # not called
    with as_nobody(tmp_path, tmp_path / closed, 0o555):
        with pytest.raises(PermissionError, match=f"Permission denied: '{closed}/small"):
            task("small", folder="weights", runs="runs")
    assert {path: path.read_bytes() for path in tmp_path.rglob("*.*")} == kept


def test_a_log_that_is_damaged_is_found_out_before_the_work(small, monkeypatch):
    recording.train("small", **small)
    log = small["folder"] / "small.json"
    log.write_text(log.read_text()[:99])
    monkeypatch.setattr(recording, "fit", None)  # not called
    with pytest.raises(ValueError, match="small.json is truncated or no JSON"):
        recording.train("small", **small)


def test_the_sample_is_not_measured_for_the_test_set(small, monkeypatch):
    recording.train("small", **small)
    monkeypatch.setattr(recording, "load", lambda name: load("MNIST", root="sample"))
    with pytest.raises(ValueError, match="data: wanted the full test set of MNIST, got the sample"):
        recording.measure("small", 5, **small)


def test_the_command_line(monkeypatch):
    calls = []
    for task in "train", "measure", "measure_gaps":
        monkeypatch.setattr(recording, task, lambda *given, task=task, **named: calls.append((task, *given, named)))
    recording.main(["train", "conv_mnist"])
    recording.main(["measure", "conv_mnist", "5000", "--seed", "2"])
    recording.main(["measure", "conv_mnist", "--refined"])
    recording.main(["measure", "conv_mnist", "4000", "--gaps", "200"])
    recording.main(["measure", "conv_mnist", "--gaps", "200"])
    assert calls == [("train", "conv_mnist", 0, {}),
                     ("measure", "conv_mnist", dict(num_samples=5000, seed=2, refined=False)),
                     ("measure", "conv_mnist", dict(seed=0, refined=True)),
                     ("measure_gaps", "conv_mnist", 200, dict(num_samples=4000, seed=0)),
                     ("measure_gaps", "conv_mnist", 200, dict(seed=0))]
    for wrong in (["train", "magic"], ["train", "conv_mnist", "500"], [],
                  ["measure", "conv_mnist", "--gaps", "200", "--refined"]):
        with pytest.raises(SystemExit):
            recording.main(wrong)


def test_the_module_runs_as_a_program(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["recording", "--help"])
    with pytest.raises(SystemExit):
        runpy.run_path(recording.__file__, run_name="__main__")
    assert "usage: run.py" in capsys.readouterr().out
