"""The figures in figures/ are those of the pages, say what they show and whose they are, and can be drawn anew."""

import importlib
import json
import re
from pathlib import Path
from xml.etree import ElementTree

import matplotlib.pyplot as plt
import numpy as np
import pytest
from PIL import Image, ImageChops

from vae_lib.data import load
from vae_lib.plotting import use_style
from vae_lib.recipes import WEIGHTS

FOLDER = Path(__file__).parent.parent / "figures"
with pytest.MonkeyPatch.context() as context:
    context.syspath_prepend(FOLDER)
    draw, pack, diagrams = map(importlib.import_module, ("draw", "pack", "diagrams"))

ALL, OF_PAGES = (*pack.DRAWN, *pack.FIGURES), pack.FIGURES
SVG = "{http://www.w3.org/2000/svg}"
BY_FILE = {"ids": lambda figure: figure.file}


@pytest.fixture
def elsewhere(monkeypatch, tmp_path):
    """Draws into a folder of its own, in the course's style, without a screen."""
    monkeypatch.setattr(draw, "FOLDER", tmp_path)
    with plt.rc_context():
        plt.switch_backend("agg")
        use_style()
        yield tmp_path
        plt.close("all")


def grey(path):
    return Image.open(path).convert("L")


@pytest.mark.parametrize("figure", ALL, **BY_FILE)
def test_svg_says_what_it_shows_and_asks_for_no_other_file(figure):
    path = FOLDER / f"{figure.file}.svg"
    text = path.read_text(encoding="utf-8")
    root = ElementTree.fromstring(text)
    assert root.findtext(f"{SVG}title") == figure.caption and root.findtext(f"{SVG}desc") == figure.alt
    assert root.get("role") == "img" and pack.licence(figure) in " ".join(root.find(f"{SVG}metadata").itertext())
    links = [value for part in root.iter() for name, value in part.attrib.items() if name.endswith("href")]
    links += re.findall(r"url\(([^)]*)\)", text)
    assert all(link.startswith(("#", "data:image/png;base64,")) for link in links)
    assert "<!DOCTYPE" not in text and "@import" not in text and root.find(f".//{SVG}script") is None
    assert root.find(f".//{SVG}text") is None, "letters are paths, which need no font"
    assert path.stat().st_size <= 400_000


@pytest.mark.parametrize("figure", ALL, **BY_FILE)
def test_png_says_what_it_shows_and_fills_a_slide(figure):
    with Image.open(FOLDER / f"{figure.file}.png") as image:
        said = image.info
        assert image.format == "PNG" and image.width >= 1300
    assert (said["Title"], said["Description"]) == (figure.caption, figure.alt)
    assert said["Copyright"] == pack.licence(figure)


@pytest.mark.parametrize("figure", ALL, **BY_FILE)
def test_caption_alt_text_and_licence_are_there(figure):
    assert figure.caption.endswith(".") and 10 < len(figure.caption) <= 90
    assert figure.alt.endswith(".") and len(figure.alt) > 40 and "\n" not in figure.alt
    assert "CC BY 4.0" in pack.licence(figure)
    assert ("MNIST, by Y. LeCun, C. Cortes and C. Burges: CC BY-SA 3.0" in pack.licence(figure)) == figure.digits


def test_files_are_those_of_the_list():
    listed = {f"{figure.file}.{kind}" for figure in ALL for kind in ("svg", "png")}
    others = {"README.md", "draw.py", "diagrams.py", "pack.py", "fashion_mnist.py", "fashion_mnist_20.png",
              "fashion_mnist_20.LICENSE"}
    assert {path.name for path in FOLDER.iterdir() if path.is_file()} == listed | others
    assert len(listed) == 2 * len(ALL)
    assert sum(path.stat().st_size for path in FOLDER.iterdir()) <= 8_000_000


def test_readme_is_what_the_generator_would_write():
    assert (FOLDER / "README.md").read_text(encoding="utf-8") == pack.readme()


@pytest.mark.parametrize("figure", OF_PAGES, **BY_FILE)
def test_png_is_the_picture_that_the_page_stores_and_no_other(figure):
    """A picture that lies a hundredth of its width to the side is another: so is any changed plot."""
    picture, _ = pack.stored(figure)
    path = FOLDER / f"{figure.file}.png"
    assert draw.likeness(path, picture) >= draw.ALIKE
    assert draw.likeness(path, ImageChops.offset(picture, max(5, picture.width // 100), 0)) < draw.ALIKE


def test_a_curve_that_changed_makes_another_picture(elsewhere):
    def two_lines(slope):
        fig, ax = plt.subplots()
        ax.plot([0, 1], [0, 1])
        ax.plot([0, 1], [0, slope])
        ax.set(xlabel="step", ylabel="nats", ylim=(-0.05, 1.05))
        return fig

    two_lines(0.5).savefig(elsewhere / "page.png")
    two_lines(0.5).savefig(elsewhere / "same.png", dpi=240)
    two_lines(0.6).savefig(elsewhere / "changed.png", dpi=240)
    page = grey(elsewhere / "page.png")
    assert draw.likeness(elsewhere / "same.png", page) > draw.ALIKE > draw.likeness(elsewhere / "changed.png", page)


@pytest.mark.parametrize("figure", pack.DRAWN[1:], **BY_FILE)
def test_diagrams_are_what_they_would_be_now(figure, elsewhere):
    draw.save(figure, getattr(diagrams, figure.file)())
    assert (elsewhere / f"{figure.file}.svg").read_bytes() == (FOLDER / f"{figure.file}.svg").read_bytes()
    assert np.array_equal(grey(elsewhere / f"{figure.file}.png"), grey(FOLDER / f"{figure.file}.png"))


def test_a_page_is_run_up_to_its_figure_and_gives_the_stored_one(elsewhere):
    figure = next(figure for figure in OF_PAGES if figure.file == "02_jensen")
    draw.save_of_page(figure.page, [figure])
    assert [path.name for path in sorted(elsewhere.iterdir())] == ["02_jensen.png", "02_jensen.svg"]
    again, there = (grey(folder / "02_jensen.png") for folder in (elsewhere, FOLDER))
    assert draw.likeness(elsewhere / "02_jensen.png", there) > 0.999 and again.size == there.size


@pytest.mark.parametrize("slope, alt", [(0.5, "Another text."), (0.1, None)])
def test_what_differs_from_the_page_is_refused(slope, alt, elsewhere):
    figure = next(figure for figure in OF_PAGES if figure.file == "02_jensen")
    fig, ax = plt.subplots()
    ax.plot([0, 1], [0, slope])
    with pytest.raises(ValueError, match="02_jensen: wanted what 02_elbo shows in cell .* Refresh the page"):
        draw.save_like_page(figure, fig, alt or figure.alt)


def test_network_has_the_shapes_that_page_09_prints():
    table = next(cell for cell in pack.cells("09_conv_vae_mnist") if "def stage_shapes" in cell.source)
    lines = table.outputs[0].text.splitlines()
    shapes = [tuple(map(int, re.findall(r"\d+", line.split("=")[1]))) for line in lines]
    encoder, heads, decoder = diagrams.network_shapes()
    assert heads[0] == heads[1] and [*encoder, heads[0], *decoder] == shapes
    alt = next(figure.alt for figure in pack.DRAWN if figure.file == "conv_network")
    assert all("×".join(map(str, shape)) in alt for shape in [*encoder, *decoder])


def test_overview_shows_the_model_of_lowest_nll():
    logs = {path.stem: json.loads(path.read_text()).get("nll", {}) for path in WEIGHTS.glob("*.json")}
    measured = {name: nll["5000"]["nll"] for name, nll in logs.items() if "5000" in nll}
    assert len(measured) > 3 and measured[diagrams.best_model()] == min(measured.values())


def test_overview_is_what_it_would_be_now(elsewhere):
    if len(load().test) < 10_000:
        pytest.skip("its digits are those of the full MNIST")
    draw.save(pack.DRAWN[0], diagrams.overview())
    assert draw.likeness(elsewhere / "overview.png", grey(FOLDER / "overview.png")) > 0.999


def test_unknown_names_are_refused_before_anything_is_drawn(elsewhere):
    with pytest.raises(ValueError, match=r"name: wanted those of figures/README.md.*got \['00_nothing'\]"):
        draw.main("00_nothing")
    assert not list(elsewhere.iterdir())
