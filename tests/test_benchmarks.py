"""The benchmark times trainings that train; the control begins where it should; trials compare what they should."""

import importlib
import json
from pathlib import Path

import pytest
import torch
from affine_vae import close, exact_vae, normals

from vae_lib.data import load
from vae_lib.models import dense_vae
from vae_lib.recipes import pretrained

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


def test_a_trial_reports_means_and_paired_differences(trials, tmp_path):
    before, after = torch.tensor([-3.0, -5.0, -7.0]), torch.tensor([-2.0, -5.0, -5.0])
    trials.report({"start": {"q": before}, "end": {"q": after}}, tmp_path / "found.json")
    found = json.loads((tmp_path / "found.json").read_text())
    assert found["start"]["q"] == pytest.approx({"mean": 5, "stderr": 2 / 3 ** 0.5})
    assert found["end: lower than start by"]["q"] == pytest.approx({"mean": 1, "stderr": 1 / 3 ** 0.5})
