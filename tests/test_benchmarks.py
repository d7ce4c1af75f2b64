"""The benchmark times trainings that train; the control starts where it should; trials do and compare what they say."""

import copy
import importlib
import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from affine_vae import close, exact_vae, normals

from vae_lib.data import fixed_binarization, load
from vae_lib.exact import LinearGaussian, linear_vae
from vae_lib.gaussian import kl_between_normals
from vae_lib.models import dense_vae
from vae_lib.objectives import elbo, resampled_dreg
from vae_lib.recipes import pretrained, training_log

ROOT = Path(__file__).parent.parent


@pytest.mark.filterwarnings("ignore:This DataLoader will create 4 worker processes")  # as the article has it
def test_the_benchmark_trains_what_it_times(monkeypatch):
    """Its ways on a few images, but for pythae's, whose trainer writes files."""
    monkeypatch.syspath_prepend(ROOT / "tests/benchmarks")  # worker processes import it too
    speed = importlib.import_module("speed")
    monkeypatch.setattr(speed, "BATCH", 64)
    images = load("MNIST", root="sample").train[:256]
    (taken, loss), (bare, _), (stock, of_stock) = (
        way(images) for way in (speed.fit_epoch, speed.bare_epoch, speed.stock_epoch))
    assert 0 < taken < 60 and 0 < bare < 60 and 0 < stock < 60 and 400 < loss < 600
    assert of_stock == pytest.approx(loss, rel=0.03)
    set_precision, asked = torch.set_float32_matmul_precision, []
    monkeypatch.setattr(torch, "set_float32_matmul_precision",
                        lambda precision: asked.append(precision) or set_precision(precision))
    assert speed.fit_epoch(images, "medium")[1] == pytest.approx(loss, rel=0.01)
    assert asked == ["medium", "highest"]  # the others are timed without it
    monkeypatch.setattr(speed, "BATCH", 16)  # the article's network takes its time
    x = speed.to_article(images[:64])
    first = [speed.article_loss(x, *speed.article_vae(seed)(x)).mean().item() for seed in (1, 2)]
    for way in speed.article_fit, speed.article_loop:
        found = [way(images, steps=2, seed=seed) for seed in (1, 2)]
        assert all(taken > 0 and len(losses) == 2 for taken, losses in found)
        assert [losses[0] for _, losses in found] == pytest.approx(first, rel=0.05)
        assert found[0][1] != found[1][1]


def test_the_plain_control_starts_as_the_model_that_it_continues(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "tests/benchmarks")
    model, vae = importlib.import_module("plain_decoder").control(), pretrained("two_hours")
    x = torch.rand(3, 1, 28, 28)
    with torch.no_grad():
        assert all(found.equal(wanted) for found, wanted in zip(model.encoder(x), vae.encoder(x)))
        z = torch.randn(3, vae.latent_dim)
        assert model.decoder(z).equal(vae.decoder(z))


def seeded():
    return torch.Generator().manual_seed(0)


@pytest.fixture
def trials(monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(ROOT / "tests/benchmarks")
    monkeypatch.chdir(tmp_path)
    return importlib.import_module("trials")


def test_a_trial_goes_on_from_checkpoints_of_its_own_start_only(trials):
    images = torch.randint(256, (64, 1, 4, 4), dtype=torch.uint8)
    stages = [dict(steps=steps, batch_size=16, progress=False) for steps in (2, 3)]

    def after(start, name="trial"):
        torch.manual_seed(start)
        return trials.trained(dense_vae((1, 4, 4), (8,), 2), images, name, stages)

    def files():
        return {path.name: path.stat().st_mtime_ns for path in Path("runs").iterdir()}

    first, kept = after(1), files()
    assert len(kept) == 2 and not any(weights.requires_grad for weights in first.parameters())
    again = after(1)
    assert files() == kept
    assert all(found.equal(wanted) for found, wanted in zip(again.state_dict().values(), first.state_dict().values()))
    second, anew = after(2), after(2, "another")
    assert len(files()) == 6
    for found, wanted, other in zip(*(model.parameters() for model in (second, anew, first))):
        assert found.equal(wanted) and not found.equal(other)


def test_a_trial_estimates_log_px_by_both_proposals(trials):
    model, exact = exact_vae(shift=0.3, widen=0.6)
    x = 0.5 * normals(410, 1, 2, 3, seed=9)
    found = trials.log_likelihoods(model, x)
    assert {name: len(log_px) for name, log_px in found.items()} == {"encoder": 410, "refined": 400}
    for log_px in found.values():
        close(log_px, exact.log_px(x.flatten(1))[:len(log_px)], 0.3)
        close(log_px.mean(), exact.log_px(x.flatten(1))[:len(log_px)].mean(), 0.02)


def test_each_run_starts_from_the_model_as_it_stands(trials, monkeypatch):
    torch.manual_seed(0)
    start, images = dense_vae((1, 4, 4), (8,), 2), torch.randint(256, (96, 1, 4, 4), dtype=torch.uint8)
    monkeypatch.setattr(trials, "load", lambda name: SimpleNamespace(train=images))
    monkeypatch.setattr(trials, "validation_split", lambda images: (images[:32], images[32:]))
    monkeypatch.setattr(trials, "pretrained", lambda name: copy.deepcopy(start))
    monkeypatch.setattr(trials, "log_likelihoods", lambda model, x: {"elbo": elbo(model, x, seeded()).elbo})
    options = dict(steps=4, batch_size=16, learning_rate=0.01, progress=False)
    trials.from_two_hours_folded({"first": options, "again": options, "Adam, longer": options | dict(steps=8)},
                                 Path("found.json"))
    found = json.loads(Path("found.json").read_text())
    assert found["again: lower than first by"]["elbo"] == {"mean": 0, "stderr": 0}
    assert found["first: lower than two_hours_folded by"]["elbo"]["mean"] != 0
    assert found["Adam, longer: lower than first by"]["elbo"]["mean"] > 0
    by_hand = -elbo(start, fixed_binarization(images[:32]), seeded()).elbo
    assert found["two_hours_folded"]["elbo"]["mean"] == pytest.approx(by_hand.mean().item())


def test_a_trial_reports_means_and_paired_differences(trials, tmp_path):
    before, after = torch.tensor([-3.0, -5.0, -7.0]), torch.tensor([-2.0, -5.0, -5.0])
    trials.report({"start": {"q": before}, "end": {"q": after}}, tmp_path / "found.json")
    found = json.loads((tmp_path / "found.json").read_text())
    assert found["start"]["q"] == pytest.approx({"mean": 5, "stderr": 2 / 3 ** 0.5})
    assert found["end: lower than start by"]["q"] == pytest.approx({"mean": 1, "stderr": 1 / 3 ** 0.5})


def test_the_trials_of_a_log_are_what_the_benchmarks_found(trials):
    rows = training_log("folded_64")["trials"]
    for row in rows:
        script, (name, other) = importlib.import_module(row["results"].removesuffix(".json")), row["compared"]
        found = json.loads((ROOT / "tests/benchmarks" / row["results"]).read_text())[f"{name}: lower than {other} by"]
        assert row["nll_difference"] == {q: {"mean": -by["mean"], "stderr": by["stderr"]} for q, by in found.items()}
        if hasattr(script, "RUNS"):
            assert row["steps"] == script.RUNS[name]["steps"]
    runs = importlib.import_module("next_stage").RUNS
    assert {row["compared"][0] for row in rows if row["results"] == "next_stage.json"} == set(runs)


LINE = LinearGaussian(normals(4, 1, seed=1), normals(4, seed=2), variance=0.3)
OBJECTIVES = "bound_of_own_images", "kl_of_own_images", "shifts"


@pytest.mark.parametrize("name", OBJECTIVES)
def test_a_term_for_the_encoder_leaves_the_decoders_gradient_alone(trials, name):
    model, x = dense_vae((1, 4, 4), (8,), 2), torch.rand(8, 1, 4, 4)
    objective = getattr(importlib.import_module("next_stage"), name)

    def gradients(of):
        torch.manual_seed(0)
        return torch.autograd.grad(of(model, x, num_samples=3).elbo.sum(), list(model.parameters()))

    same = {parameter: found.equal(plain) for (parameter, _), found, plain
            in zip(model.named_parameters(), gradients(objective), gradients(resampled_dreg))}
    assert all(same[parameter] for parameter in same if parameter.startswith("decoder"))
    assert not any(same[parameter] for parameter in same if parameter.startswith("encoder") and "weight" in parameter)


def added(objective, model, x, seed=0):
    """What an objective adds to the bound of 16 samples, with the same draws."""
    values = []
    for of in objective, resampled_dreg:
        torch.manual_seed(seed)
        values.append(of(model, x, num_samples=16).elbo)
    return values[0] - values[1]


def test_terms_of_own_images_are_bounds_on_their_log_px(trials):
    next_stage, x = importlib.import_module("next_stage"), normals(40_000, 1, 1, 4, seed=3)
    covariance = LINE.weight @ LINE.weight.mT + LINE.variance * torch.eye(4)
    log_px = -torch.distributions.MultivariateNormal(LINE.bias, covariance).entropy()  # on average, of its own images
    for log_var in linear_vae(LINE).encoder.to_log_var.bias.detach() + torch.tensor([[0.0], [0.7]]):
        model = linear_vae(LINE, log_var)
        kl = LINE.kl_to_posterior(x[:1, 0, 0], *model.encoder(x[:1])).item()
        close(added(next_stage.kl_of_own_images, model, x).mean(), log_px - kl, 0.04)
    close(added(next_stage.bound_of_own_images, linear_vae(LINE), x).mean(), log_px, 0.04)


def test_shifts_weigh_the_kl_between_q_of_an_image_and_q_of_the_moved_one(trials):
    next_stage, x = importlib.import_module("next_stage"), torch.rand(5, 1, 4, 4)
    torch.manual_seed(1)
    model = dense_vae((1, 4, 4), (8,), 2).requires_grad_(False)

    def kl(moved):
        (mu_1, log_var_1), (mu_2, log_var_2) = model.encoder(moved), model.encoder(x)
        return kl_between_normals(mu_1, log_var_1, mu_2, log_var_2)

    wanted = torch.stack([-0.1 * kl(x.roll(side, axis)) for side in (1, -1) for axis in (2, 3)])
    nearest = set()
    for seed in range(20):
        far = (wanted - added(next_stage.shifts, model, x, seed)).abs().amax(1)
        assert far.min() < 1e-4 < 10 * wanted.abs().max()
        nearest.add(far.argmin().item())
    assert nearest == {0, 1, 2, 3}
