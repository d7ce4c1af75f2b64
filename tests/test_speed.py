"""The benchmark times trainings that train, and the control begins where it should."""

import importlib
from pathlib import Path

import pytest
import torch

from vae_lib.data import load
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
