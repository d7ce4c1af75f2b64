import base64
import io

import matplotlib.pyplot as plt
import nbformat
import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from nbclient import NotebookClient
from PIL import Image
from screen import no_screen  # noqa: F401

from vae_lib import plotting


def small_figure(size=(4, 3)):
    fig, ax = plt.subplots(figsize=size, dpi=50)
    ax.plot([0, 1], [1, 0])
    return fig


def test_picture_is_a_png_of_the_figures_size_and_closes_the_figure():
    picture = plotting.picture(small_figure(), "A falling line.")
    image = Image.open(io.BytesIO(picture.png))
    image.load()
    assert image.format == "PNG" and image.size == (200, 150)
    assert "Software" not in image.info  # the same bytes from every version of matplotlib that draws the same
    assert plt.get_fignums() == []
    assert picture.png == plotting.picture(small_figure(), "again").png


def test_picture_takes_figures_that_pyplot_does_not_know():
    fig = Figure(figsize=(2, 1), dpi=100)
    assert Image.open(io.BytesIO(plotting.picture(fig, "nothing").png)).size == (200, 100)


def test_mime_bundle_carries_picture_text_and_alternative_text():
    picture = plotting.picture(small_figure(), "A falling line.")
    data, metadata = picture._repr_mimebundle_()
    assert data == {"image/png": base64.b64encode(picture.png).decode(), "text/plain": "A falling line."}
    assert metadata == {"image/png": {"alt": "A falling line."}}
    assert repr(picture) == "A falling line."


@pytest.mark.parametrize("alt", ["", "  \n", None, 3, b"bytes"])
def test_alternative_text_must_be_text(alt):
    with pytest.raises(ValueError, match="alt: wanted a sentence"):
        plotting.picture(small_figure(), alt)
    with pytest.raises(ValueError, match="alt: wanted a sentence"):
        plotting.show(small_figure(), alt)
    assert plt.get_fignums() == []


@pytest.mark.parametrize("fig", [None, "figure", np.zeros((2, 2))])
def test_only_figures_are_drawn(fig):
    with pytest.raises(TypeError, match=f"fig: wanted a matplotlib Figure, got {type(fig).__name__}"):
        plotting.show(fig, "alt")


def test_a_figure_that_cannot_be_drawn_is_closed_and_raises():
    fig = small_figure()
    fig.axes[0].set_title("$\\no such command$")
    with pytest.raises(ValueError, match="Unknown symbol"):
        plotting.picture(fig, "alt")
    assert plt.get_fignums() == []


def test_show_is_one_output_wherever_it_stands_in_a_cell():
    source = ("import matplotlib.pyplot as plt\nfrom vae_lib.plotting import show, use_style\nuse_style()\n"
              "for k in (1, 2):\n    fig, ax = plt.subplots()\n    show(fig, f'Empty axes {k}.')\n"
              "print('between')\nfig, ax = plt.subplots()\nshow(fig, 'Empty axes 3.')")
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source)])
    NotebookClient(notebook, timeout=120, kernel_name="python3").execute()
    outputs = notebook.cells[0].outputs
    shown = [output for output in outputs if output.output_type == "display_data"]
    assert len(outputs) == 4 and len(shown) == 3
    assert [output.data["text/plain"] for output in shown] == [f"Empty axes {k}." for k in (1, 2, 3)]
    for output in shown:
        assert set(output.data) == {"image/png", "text/plain"}
        assert output.metadata == {"image/png": {"alt": output.data["text/plain"]}}
        assert Image.open(io.BytesIO(base64.b64decode(output.data["image/png"]))).size == (768, 432)


def test_use_style_sets_the_style_and_importing_does_not():
    assert plt.rcParams["figure.dpi"] != plotting.STYLE["figure.dpi"]
    plotting.use_style()
    assert plt.rcParams["figure.dpi"] == plotting.STYLE["figure.dpi"]
    cycle = plt.rcParams["axes.prop_cycle"].by_key()["color"]
    assert cycle[:2] == [plotting.COLOURS["blue"], plotting.COLOURS["vermillion"]]
    assert len(set(cycle)) == 7 and plotting.COLOURS["yellow"] not in cycle  # yellow lines vanish on white


def pixels(fig):
    return np.asarray(fig.axes[0].images[0].get_array())


@pytest.mark.parametrize("colour", [(1.0,), (1.0, 0.5, 0.0)], ids=["grey", "red, green and blue"])
def test_image_grid_places_images_row_by_row(colour):
    images = torch.linspace(0, 1, 6).view(6, 1, 1, 1) * torch.tensor(colour).view(-1, 1, 1).expand(-1, 28, 14)
    canvas = pixels(plotting.image_grid(images, 3))
    assert canvas.shape == (2 * 28 + 1, 3 * 14 + 2, 3)
    for i in range(6):
        row, column = divmod(i, 3)
        cut = canvas[row * 29:row * 29 + 28, column * 15:column * 15 + 14]
        assert np.allclose(cut, i / 5 * np.array(colour), atol=1e-6)
    assert np.allclose(canvas[28], 0xB0 / 255) and np.allclose(canvas[:, [14, 29]], 0xB0 / 255)


def test_image_grid_draws_black_zero_white_one_and_a_white_gap():
    images = torch.stack([torch.zeros(1, 28, 28), torch.full((1, 28, 28), 0.5)])
    fig = plotting.image_grid(images, 2)
    drawn = np.asarray(Image.open(io.BytesIO(plotting.picture(fig, "Two squares.").png)).convert("L"))
    middle = drawn[drawn.shape[0] // 2]
    assert middle[middle.size // 4] == 0 and middle[3 * middle.size // 4] in (127, 128)
    assert middle.max() == 255


def test_image_grid_labels_stand_at_their_rows_and_columns():
    fig = plotting.image_grid(np.zeros((6, 1, 28, 28)), 3, row_labels=["data", "means"],
                              column_labels=["a", "b", "c"], title="Reconstructions")
    ax = fig.axes[0]
    assert [label.get_text() for label in ax.get_yticklabels()] == ["data", "means"]
    assert [label.get_text() for label in ax.get_xticklabels()] == ["a", "b", "c"]
    assert list(ax.get_yticks()) == [14, 44] and list(ax.get_xticks()) == [14, 44, 74]
    assert ax.get_title() == "Reconstructions"


def test_image_grid_draws_on_axes_that_it_is_given():
    fig, (left, right) = plt.subplots(1, 2)
    assert plotting.image_grid(torch.rand(4, 1, 8, 8), 2, ax=right) is fig
    assert len(right.images) == 1 and len(left.images) == 0


def test_image_grid_takes_what_a_decoder_returns():
    output = torch.rand(4, 1, 8, 8, requires_grad=True)
    assert pixels(plotting.image_grid(output, 2)).shape == (17, 17, 3)
    assert pixels(plotting.image_grid(output.detach().bfloat16(), 4)).shape == (8, 35, 3)


@pytest.mark.parametrize("images, columns, options, error, message", [
    (torch.zeros(4, 1, 8, 8, dtype=torch.uint8), 2, {}, TypeError, "got torch.uint8 of shape"),
    (torch.zeros(4, 8, 8), 2, {}, ValueError, r"shape \(N, 1, H, W\) or \(N, 3, H, W\), got \(4, 8, 8\)"),
    (torch.zeros(4, 2, 8, 8), 2, {}, ValueError, r"\(N, 3, H, W\), got \(4, 2, 8, 8\)"),
    (torch.zeros(0, 1, 8, 8), 2, {}, ValueError, r"\(N, 3, H, W\), got \(0, 1, 8, 8\)"),
    (torch.zeros(4, 1, 8, 8), 3, {}, ValueError, "columns: wanted a divisor of the 4 images, got 3"),
    (torch.zeros(4, 1, 8, 8), 0, {}, ValueError, "columns: wanted a divisor"),
    (torch.full((4, 1, 8, 8), -0.1), 2, {}, ValueError, r"wanted values in \[0, 1\], got -0.1 to -0.1"),
    (torch.full((4, 1, 8, 8), 1.01), 2, {}, ValueError, r"wanted values in \[0, 1\], got 1.01"),
    (torch.full((4, 1, 8, 8), float("nan")), 2, {}, ValueError, r"wanted values in \[0, 1\], got nan"),
    (torch.zeros(4, 1, 8, 8), 2, {"row_labels": ["a"]}, ValueError, "row_labels: wanted 2, got 1"),
    (torch.zeros(4, 1, 8, 8), 2, {"column_labels": list("abc")}, ValueError, "column_labels: wanted 2, got"),
])
def test_image_grid_refuses(images, columns, options, error, message):
    with pytest.raises(error, match=message):
        plotting.image_grid(images, columns, **options)
    assert plt.get_fignums() == []


@pytest.mark.parametrize("log_px", [-2.5, [-2.5, -2.5, -2.0]])
def test_gap_bars_stack_to_log_px(log_px):
    elbo = np.array([-3.2, -2.9, -2.0 if np.ndim(log_px) else -2.5])
    fig, ax = plt.subplots()
    plotting.gap_bars(ax, elbo, log_px, ["prior", "one step", "posterior"])
    bounds, gaps = ax.containers[:2]
    for i, log_p in enumerate(np.broadcast_to(log_px, 3)):
        lower, upper = bounds[i], gaps[i]
        assert lower.get_y() == ax.get_ylim()[0] < elbo.min()
        assert np.isclose(lower.get_y() + lower.get_height(), elbo[i], atol=1e-12)
        assert np.isclose(upper.get_y(), elbo[i], atol=1e-12)
        assert np.isclose(upper.get_y() + upper.get_height(), log_p, atol=1e-12)
    assert [text.get_text() for text in ax.texts] == ["gap 0.70", "gap 0.40", "gap 0.00"]
    assert ax.get_ylabel() == "nats"
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["log p(x)", "ELBO", "gap: KL(q || posterior)"]


def test_gap_bars_without_any_gap():
    fig, ax = plt.subplots()
    plotting.gap_bars(ax, [-1.0 + 1e-15], [-1.0], ["tight"])  # rounding may cross by less than a millionth
    assert ax.texts[0].get_text() == "gap 0.00"
    assert ax.get_ylim()[0] < -1 < ax.get_ylim()[1]


@pytest.mark.parametrize("elbo, log_px, labels, message", [
    ([-3.0, -2.0], -1.0, ["one"], "as many of each"),
    ([-3.0, -2.0], [-1.0, -1.0, -1.0], ["one", "two"], "as many of each"),
    (-3.0, -1.0, ["one"], "as many of each"),
    ([], -1.0, [], "as many of each"),
    ([float("nan")], -1.0, ["one"], "finite numbers at most log_px"),
    ([-1.0], float("inf"), ["one"], "finite numbers at most log_px"),
    ([-1.0, -0.5], -0.9, ["one", "two"], "finite numbers at most log_px"),
])
def test_gap_bars_refuse(elbo, log_px, labels, message):
    fig, ax = plt.subplots()
    with pytest.raises(ValueError, match=message):
        plotting.gap_bars(ax, elbo, log_px, labels)
    assert not ax.patches


def history(steps):
    rise = 1.0 * np.arange(steps)
    return {"elbo": list(rise - 100), "log_px_given_z": list(rise - 90), "kl": [10.0] * steps}


@pytest.mark.parametrize("steps, window, said", [(10, None, ""), (10, 1, ""), (10, 10, ", mean of 10 steps"),
                                                 (200, None, ", mean of 4 steps")])
def test_plot_history_draws_means_and_says_so(steps, window, said):
    fig = plotting.plot_history(history(steps), window)
    left, right = fig.axes
    lines = {line.get_label(): line.get_xydata() for line in (*left.lines, *right.lines)}
    assert set(lines) == {"ELBO" + said, "log p(x|z)" + said, "KL" + said}
    width = window or max(1, steps // 50)
    drawn = lines["ELBO" + said]
    assert list(drawn[:, 0]) == list(range(width, steps + 1))
    # the mean of `width` numbers, each one more than that before it, is (width - 1) / 2 less than the last
    assert np.allclose(drawn[:, 1], drawn[:, 0] - 1 - (width - 1) / 2 - 100)
    assert np.allclose(lines["KL" + said][:, 1], 10)
    for ax in fig.axes:
        assert ax.get_xlabel() == "step" and ax.get_ylabel() == "nats per image"


@pytest.mark.parametrize("broken", [
    {}, {"elbo": [1.0], "kl": [1.0]}, {"elbo": [], "log_px_given_z": [], "kl": []},
    {"elbo": [1.0, 2.0], "log_px_given_z": [1.0, 2.0], "kl": [1.0]}, {"log_px_given_z": [1.0], "kl": [1.0]},
])
def test_plot_history_refuses(broken):
    with pytest.raises(ValueError, match="history: wanted one number per step for each of elbo, log_px"):
        plotting.plot_history(broken)
    assert plt.get_fignums() == []


@pytest.mark.parametrize("window", [0, -3, 11])
def test_plot_history_refuses_windows_that_do_not_fit(window):
    with pytest.raises(ValueError, match=f"window: wanted 1 to 10 steps, got {window}"):
        plotting.plot_history(history(10), window)
