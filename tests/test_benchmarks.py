"""The benchmark times trainings that train; the control starts where it should; trials do and compare what they say."""

import copy
import importlib
import json
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from affine_vae import close, exact_vae, normals
from torch.distributions import Normal, kl_divergence

from vae_lib.data import fixed_binarization, load
from vae_lib.exact import LinearGaussian, linear_vae
from vae_lib.gaussian import kl_between_normals
from vae_lib.models import dense_vae
from vae_lib.objectives import elbo, resampled_dreg
from vae_lib.recipes import pretrained, training_log
from vae_lib.training import fit

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
    trials.from_two_hours_folded({"short": options, "Adam, longer": options | dict(steps=8)}, Path("found.json"))
    found = json.loads(Path("found.json").read_text())
    for name, steps in ("two_hours_folded", 0), ("short", 4), ("Adam, longer", 8):
        model = copy.deepcopy(start)
        if steps:
            fit(model, images[32:], **options | dict(steps=steps))
        wanted = -elbo(model, fixed_binarization(images[:32]), seeded()).elbo.mean().item()
        assert found[name]["elbo"]["mean"] == pytest.approx(wanted)


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
        else:
            first = script.TOGETHER["steps"] if name.startswith("trained") else 0
            assert row["steps"] == first + sum(stage["steps"] for stage in script.AFTER_FOLDING)
    for benchmark, against in ("next_stage", 7), ("more_samples", 2), ("folded_pair", 2):
        names = [row["compared"][0] for row in rows if row["results"] == f"{benchmark}.json"
                 and row["against"] == "two_hours_folded as it stands" and row["compared"][1] == "two_hours_folded"]
        assert len(set(names)) == len(names) == against


LINE = LinearGaussian(normals(4, 1, seed=1), normals(4, seed=2), variance=0.3)


def terms(next_stage, model, x):
    """The terms of next_stage.py, written out for the whole model: {name of the objective: its term, (batch,)}."""
    def moved():
        back, across = torch.randint(2, (2,))
        return x.roll((1, -1)[back], (2, 3)[across])

    return {"bound_of_own_images": lambda: resampled_dreg(model, next_stage.drawn(model, x), 3).elbo,
            "kl_of_own_images": lambda: elbo(model, next_stage.drawn(model, x)).elbo,
            "shifts": lambda: -0.1 * kl_between_normals(*model.encoder(moved()), *model.encoder(x))}


@pytest.mark.parametrize("name", ["bound_of_own_images", "kl_of_own_images", "shifts"])
def test_a_term_moves_the_encoder_by_its_own_gradient_and_the_decoder_not_at_all(trials, name):
    torch.manual_seed(0)
    next_stage, model, x = importlib.import_module("next_stage"), dense_vae((1, 4, 4), (8,), 2), torch.rand(8, 1, 4, 4)
    weight = {"weight": 0.1} if name == "shifts" else {}
    objective = partial(getattr(next_stage, name), model, x, num_samples=3, **weight)

    def gradients(*values):
        torch.manual_seed(1)
        value = sum(value().sum() for value in values)
        return dict(zip(dict(model.named_parameters()), torch.autograd.grad(value, list(model.parameters()))))

    def plain():
        return resampled_dreg(model, x, 3).elbo

    of_objective, of_plain = gradients(lambda: objective().elbo), gradients(plain)
    of_both = gradients(plain, terms(next_stage, model, x)[name])
    for parameter, found in of_objective.items():
        if parameter.startswith("decoder"):
            assert found.equal(of_plain[parameter])
        else:
            torch.testing.assert_close(found, of_both[parameter])
            assert "weight" not in parameter or not found.allclose(of_plain[parameter], rtol=0.01)


def test_own_images_are_others_at_each_call_and_the_same_again_from_a_seed(trials):
    next_stage, model, x = importlib.import_module("next_stage"), dense_vae((1, 4, 4), (8,), 2), torch.zeros(8, 1, 4, 4)
    found = []
    for _ in range(2):
        torch.manual_seed(0)
        found += [next_stage.drawn(model, x) for _ in range(2)]
    assert found[0].equal(found[2]) and found[1].equal(found[3]) and not found[0].equal(found[1])


def added(objective, model, x):
    """What an objective adds to the bound of 16 samples, with the same draws, on average."""
    values = []
    for of in objective, resampled_dreg:
        torch.manual_seed(0)
        values.append(of(model, x, num_samples=16).elbo.mean())
    return values[0] - values[1]


def test_terms_of_own_images_are_bounds_on_their_log_px(trials):
    next_stage, x = importlib.import_module("next_stage"), normals(40_000, 1, 1, 4, seed=3)
    covariance = LINE.weight @ LINE.weight.mT + LINE.variance * torch.eye(4)
    log_px = -torch.distributions.MultivariateNormal(LINE.bias, covariance).entropy()  # on average, of its own images
    for log_var in linear_vae(LINE).encoder.to_log_var.bias.detach() + torch.tensor([[0.0], [0.7]]):
        model = linear_vae(LINE, log_var)
        kl = LINE.kl_to_posterior(x[:1, 0, 0], *model.encoder(x[:1])).item()
        close(added(next_stage.kl_of_own_images, model, x), log_px - kl, 0.04)
        close(added(next_stage.bound_of_own_images, model, x), log_px, 0.04)
    assert kl > 0.1


def test_shifts_move_a_batch_each_of_four_ways(trials):
    next_stage, x = importlib.import_module("next_stage"), torch.rand(5, 1, 4, 4)
    torch.manual_seed(1)
    model = dense_vae((1, 4, 4), (8,), 2).requires_grad_(False)

    def kl(moved):
        of_moved, of_x = (Normal(mu, (0.5 * log_var).exp()) for mu, log_var in map(model.encoder, (moved, x)))
        return kl_divergence(of_moved, of_x).sum(1).mean()

    wanted = torch.stack([-3 * kl(x.roll(side, axis)) for side in (1, -1) for axis in (2, 3)])
    ways = set()
    for seed in range(20):
        torch.manual_seed(seed)
        with_term = next_stage.shifts(model, x, num_samples=4, weight=3).elbo.mean()
        torch.manual_seed(seed)
        far = (wanted - (with_term - resampled_dreg(model, x, 4).elbo.mean())).abs()
        assert far.min() < 1e-5 < 0.1 * wanted.std()
        ways.add(far.argmin().item())
    assert ways == {0, 1, 2, 3}
