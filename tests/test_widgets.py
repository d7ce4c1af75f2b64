import base64
import gc
import io
import weakref
from pathlib import Path

import ipywidgets
import matplotlib.pyplot as plt
import nbformat
import numpy as np
import pytest
from matplotlib.figure import Figure
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError
from PIL import Image
from redrawing import assert_every_control_redraws
from screen import no_screen  # noqa: F401

from course.browser import chromium
from vae_lib.widgets import Explorer, slider

TESTS = Path(__file__).parent
NOTEBOOKS = TESTS.parent / "notebooks"


MOVE = """
import gc
import sys
sys.path[:0] = [{tests!r}, {root!r}]
from redrawing import assert_every_control_redraws
from vae_lib.widgets import Explorer
explorers = [each for each in gc.get_objects() if type(each) is Explorer]
for each in explorers:
    assert_every_control_redraws(each)
print(len(explorers))
"""


def explorers_that_redraw(notebook):
    """Run a page as far as its last Explorer, in a kernel, move every control of each, and count them."""
    page = nbformat.read(notebook, 4)
    code = [cell for cell in page.cells if cell.cell_type == "code"]
    last = max(i for i, cell in enumerate(code) if "Explorer(" in cell.source)
    page.cells = code[:last + 1] + [nbformat.v4.new_code_cell(MOVE.format(tests=str(TESTS), root=str(TESTS.parent)))]
    NotebookClient(page, timeout=180, kernel_name="python3",
                   resources={"metadata": {"path": str(notebook.parent)}}).execute()
    return int(page.cells[-1].outputs[0].text)


def bell(mean=0.0, width=1.0, points=50):
    fig, ax = plt.subplots(figsize=(3, 2), dpi=60)
    z = np.linspace(-4, 4, points)
    ax.plot(z, np.exp(-((z - mean) / width) ** 2 / 2))
    return fig, f"A bell at {mean:g}, {width:g} wide, drawn with {points} points."


def explorer(draw=bell):
    return Explorer(draw, mean=(-2.0, 2.0, 0.0, "nats"), width=(0.5, 2.0, 1.0, 0.25, "standard deviations"),
                    points=(5, 60, 50, "number"))


def test_every_control_redraws():
    assert_every_control_redraws(explorer())


PAGES = [page.stem for page in sorted(NOTEBOOKS.glob("*.ipynb")) if "Explorer(" in page.read_text("utf-8")]


@pytest.mark.skipif(chromium() is not None, reason="`run.py browser` moves them in JupyterLab, where Chromium is")
@pytest.mark.parametrize("page", PAGES)
def test_every_control_of_a_page_redraws(page):
    assert explorers_that_redraw(NOTEBOOKS / f"{page}.ipynb") > 0


def test_the_check_notices_a_control_that_does_nothing():
    controls = {"mean": (-2.0, 2.0, 0.0, "nats"), "width": (0.0, 2.0, 1.0, "nats")}
    deaf = Explorer(lambda mean, width: bell(mean), **controls)
    with pytest.raises(AssertionError, match="width = .* leaves the picture as it was"):
        assert_every_control_redraws(deaf)
    mute = Explorer(lambda mean, width: (bell(mean, width + 1)[0], f"A bell at {mean}."), **controls)
    with pytest.raises(AssertionError, match="width = .* leaves the description as it was"):
        assert_every_control_redraws(mute)


def test_the_check_runs_the_code_of_a_page(tmp_path):
    code = ["import matplotlib.pyplot as plt\nfrom vae_lib.widgets import Explorer",
            "def draw(high, deaf=0):\n    plt.figure()\n    plt.plot([0, high])\n    return plt.gcf(), f'To {high}.'",
            "Explorer(draw, high=(1, 5, 2, 'm'))", "raise RuntimeError('not reached')"]
    page = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in code])
    nbformat.write(page, tmp_path / "page.ipynb")
    assert explorers_that_redraw(tmp_path / "page.ipynb") == 1
    page.cells[2].source = "Explorer(draw, high=(1, 5, 2, 'm'), deaf=(0, 1, 0, 'm'))"
    nbformat.write(page, tmp_path / "page.ipynb")
    with pytest.raises(CellExecutionError, match="deaf = 1 leaves the picture as it was"):
        explorers_that_redraw(tmp_path / "page.ipynb")


def test_values_reach_draw_as_they_stand_on_the_sliders():
    seen = []

    def draw(**values):
        seen.append(values)
        return bell(**values)

    explored = explorer(draw)
    start = {"mean": 0.0, "width": 1.0, "points": 50}
    assert seen == [start | {"mean": -2.0}, start, start | {"mean": 2.0}, start]
    explored.controls["width"].value = 2.0
    explored.controls["points"].value = 60
    assert seen[4:] == [start | {"width": 2.0}, start | {"width": 2.0, "points": 60}]
    assert type(seen[-1]["points"]) is int


def test_the_description_follows_the_sliders():
    explored = explorer()
    assert explored.image.tooltip == "A bell at 0, 1 wide, drawn with 50 points."  # the browser's accessible name
    explored.controls["mean"].value = 2.0
    assert explored.image.tooltip == explored.picture.alt == "A bell at 2, 1 wide, drawn with 50 points."


def test_mime_bundle_is_widget_and_small_multiple_in_one():
    explored = explorer()
    data, metadata = explored._repr_mimebundle_()
    assert set(data) == {"application/vnd.jupyter.widget-view+json", "image/png", "text/plain"}
    assert data["application/vnd.jupyter.widget-view+json"]["model_id"] == explored.box.model_id
    lines = [f"mean = {mean}: A bell at {mean}, 1 wide, drawn with 50 points." for mean in (-2, 0, 2)]
    assert data["text/plain"] == repr(explored) == "\n".join(lines)
    assert metadata == {"image/png": {"alt": "\n".join(lines)}}
    still = Image.open(io.BytesIO(base64.b64decode(data["image/png"])))
    assert still.size == (3 * 180, 120 + 28)
    middle = Image.open(io.BytesIO(explored.picture.png)).convert("RGB")
    assert still.crop((180, 28, 360, 148)).tobytes() == middle.tobytes()


def test_the_small_multiple_goes_over_the_control_and_the_values_that_are_named():
    explored = Explorer(lambda points: bell(points=points), stills=(5, 20), points=(5, 60, 50, "number"))
    assert [line.partition(":")[0] for line in repr(explored).splitlines()] == ["points = 5", "points = 20"]
    wide = lambda mean, width: (plt.figure(figsize=(6, 1), dpi=100), f"{mean} {width}")
    explored = Explorer(wide, over="width", mean=(0, 4, 1, "m"), width=(0, 3, 1, "m"))
    assert repr(explored) == "width = 0: 1 0\nwidth = 1: 1 1\nwidth = 3: 1 3"
    png = base64.b64decode(explored._repr_mimebundle_()[0]["image/png"])
    assert Image.open(io.BytesIO(png)).size == (600, 3 * (100 + 28)), "wide pictures stand under each other"


def test_sliders_are_labelled_and_follow_the_mouse():
    explored = Explorer(lambda how_many, mean: bell(mean, points=how_many), how_many=(2, 8, 4, "points"),
                        mean=(-2.0, 2.0, 0.0, "nats"))
    whole, real = explored.controls["how_many"], explored.controls["mean"]
    assert whole.description == "how many (points)"
    assert whole.tooltip == "how many (points): 2 to 8, an arrow key moves it by 1"
    assert type(whole) is ipywidgets.IntSlider and type(real) is ipywidgets.FloatSlider
    assert real.step == pytest.approx(4 / 50) and whole.step == 1
    assert whole.continuous_update and real.continuous_update and whole.readout and real.readout
    assert explored.box.children == (whole, real, explored.message, explored.image)


def test_an_exception_in_draw_is_raised_and_shown_until_a_picture_is_drawn():
    def draw(mean):
        drawn = bell(mean)
        plt.figure()  # a second figure, never returned
        if mean > 1:
            raise ArithmeticError("mean too large")
        return drawn

    explored = Explorer(draw, stills=(0.0, 1.0), mean=(-2.0, 2.0, 0.0, "nats"))
    before = bytes(explored.image.value)
    assert explored.message.value == "" and plt.get_fignums() == []
    with pytest.raises(ArithmeticError, match="mean too large"):
        explored.controls["mean"].value = 2.0
    assert explored.message.value == "Not redrawn: ArithmeticError: mean too large"
    assert bytes(explored.image.value) == before and plt.get_fignums() == []
    explored.controls["mean"].value = -1.0
    assert explored.message.value == "" and bytes(explored.image.value) != before and plt.get_fignums() == []


def generations_collected(call):
    """Those that the garbage collector walks over meanwhile, 0 for the young one."""
    gc.collect()
    found = []
    watch = lambda phase, info: found.append(info["generation"]) if phase == "start" else None
    gc.callbacks.append(watch)
    try:
        call()
    finally:
        gc.callbacks.remove(watch)
    return found


@pytest.mark.parametrize("running", [True, False])
def test_a_redraw_leaves_no_figure_for_the_garbage_collector_and_that_as_it_was(running):
    figures = []

    def draw(mean):
        fig, alt = bell(mean)
        figures.append(weakref.ref(fig))
        if mean > 1:
            raise ArithmeticError("mean too large")
        return fig, alt

    (gc.enable if running else gc.disable)()
    try:
        explored = Explorer(draw, stills=(0.0, 1.0), mean=(-2.0, 2.0, 0.0, "nats"))
        assert len(figures) == 3 and gc.isenabled() is running
        assert [figure() is None for figure in figures] == [running] * 3
        assert generations_collected(explored.at) == [0] * running
        with pytest.raises(ArithmeticError):
            explored.controls["mean"].value = 2.0
        assert gc.isenabled() is running
    finally:
        gc.enable()


def test_figures_of_others_stay_open():
    mine = plt.figure()
    explorer().controls["mean"].value = 1.0
    assert plt.get_fignums() == [mine.number]


@pytest.mark.parametrize("draw, options, error, message", [
    (Figure(), {"mean": (0.0, 1.0, 0.0, "m")}, TypeError, "draw: wanted a function .*, got Figure"),
    (bell, {}, ValueError, "controls: wanted at least one slider"),
    (bell, {"over": "width", "mean": (0.0, 1.0, 0.0, "m")}, ValueError, "over: wanted one of mean, got 'width'"),
    (lambda mean: (plt.figure(), ""), {"mean": (0.0, 1.0, 0.0, "m")}, ValueError, "alt: wanted a sentence"),
    (lambda mean: plt.figure(), {"mean": (0.0, 1.0, 0.0, "m")}, TypeError, "draw: wanted .* a text, got Figure"),
    (lambda mean: (None, "A bell."), {"mean": (0.0, 1.0, 0.0, "m")}, TypeError, "wanted .* Figure, got NoneType"),
    (bell, {"median": (0.0, 1.0, 0.0, "m")}, TypeError, "unexpected keyword argument 'median'"),
])
def test_explorer_refuses(draw, options, error, message):
    with pytest.raises(error, match=message):
        Explorer(draw, **options)
    assert plt.get_fignums() == []


@pytest.mark.parametrize("control, error, message", [
    (3, TypeError, r"z: wanted \(low, high, start\[, step\], unit\) with words for the unit, got 3"),
    ((), TypeError, "words for the unit"),
    ((0.0, 1.0, 0.0), TypeError, "words for the unit"),
    ([0.0, 1.0, 0.0, "m"], TypeError, "z: wanted"),
    (("0", "1", "0", "m"), TypeError, "z: wanted"),
    ((False, True, False, "m"), TypeError, "z: wanted"),
    (ipywidgets.Checkbox(), TypeError, "z: wanted"),
    (("m",), ValueError, "z: wanted"),
    ((0.0, 1.0, 0.0, " "), ValueError, "z: wanted"),
    ((0.0, 1.0, "m"), ValueError, "z: wanted"),
    ((0.0, 1.0, 0.0, 0.1, 0.1, "m"), ValueError, "z: wanted"),
    ((0.0, float("inf"), 0.0, "m"), ValueError, "z: wanted"),
    ((0.0, float("nan"), 0.0, "m"), ValueError, "z: wanted"),
    ((1.0, 1.0, 1.0, "m"), ValueError, "low < high"),
    ((2.0, 1.0, 1.5, "m"), ValueError, "low <= start <= high"),
    ((0.0, 1.0, 1.5, "m"), ValueError, "low <= start <= high"),
    ((0.0, 1.0, 0.5, 0.0, "m"), ValueError, "step > 0"),
    ((0, 10, 5, -1, "m"), ValueError, "step > 0"),
    ((0.0, 1.0, 0.55, 0.1, "m"), ValueError, "start a whole number of steps of 0.1 from low"),
    ((0, 10, 5, 2, "m"), ValueError, "start a whole number of steps of 2 from low"),
])
def test_slider_refuses(control, error, message):
    with pytest.raises(error, match=message):
        slider("z", control)


@pytest.mark.parametrize("numbers", [(0, 9, 9, 3), (0.1, 0.7, 0.4, 0.1), (-3, 3, 1.1, 0.1), (-4., 4., 0.)])
def test_slider_takes_starts_that_only_rounding_moves_off_a_step(numbers):
    assert slider("z", (*numbers, "nats")).value == numbers[2]


def test_in_a_kernel_it_is_one_output_and_a_message_from_the_browser_redraws_it():
    source = ("import matplotlib.pyplot as plt\nfrom vae_lib.widgets import Explorer\n"
              "def draw(height):\n    fig, ax = plt.subplots()\n    ax.plot([0, height])\n"
              "    return fig, f'A line to {height}.'\n"
              "explorer = Explorer(draw, stills=(1, 5), height=(1, 5, 2, 'm'))\nexplorer")
    move = ("before, height = bytes(explorer.image.value), explorer.controls['height']\n"
            "update = {'method': 'update', 'state': {'value': 5}, 'buffer_paths': []}\n"
            "height.comm.handle_msg({'content': {'data': update}, 'buffers': []})\n"
            "print(height.value, before != bytes(explorer.image.value), plt.get_fignums())")
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in (source, move)])
    NotebookClient(notebook, timeout=120, kernel_name="python3").execute()
    (output,) = notebook.cells[0].outputs
    text = "height = 1: A line to 1.\nheight = 5: A line to 5."
    assert output.output_type == "execute_result" and output.data["text/plain"] == text
    assert set(output.data) == {"application/vnd.jupyter.widget-view+json", "image/png", "text/plain"}
    assert output.metadata == {"image/png": {"alt": text}}
    assert [each.text for each in notebook.cells[1].outputs] == ["5 True []\n"]
