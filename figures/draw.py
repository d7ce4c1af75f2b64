"""Draw the figures of the course, as SVG and PNG, and list them in README.md: `python figures/draw.py [name ...]`.

A page's figure comes from the page's own cells, which are run here up to the last one that is wanted. What no page
shows is drawn by `diagrams`. `python3 run.py refresh` comes first: a figure that differs from its page is refused.
"""

import io
import re
import sys
import time
from contextlib import chdir, redirect_stderr, redirect_stdout
from html import escape
from itertools import groupby
from pathlib import Path
from unittest.mock import patch

import diagrams
import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.legend import Legend
from pack import DRAWN, FIGURES, PAGES, cells, licence, readme, stored
from PIL import Image, ImageFilter

from vae_lib import plotting, widgets

FOLDER = Path(__file__).resolve().parent
LARGE = 400_000  # bytes of an SVG, above which its points and curves are stored as pixels
ALIKE = 0.93  # the lowest correlation of a figure with its page's picture


def likeness(path, picture):
    """The correlation of a PNG with a grey picture, both of its size and blurred: text and edges fall otherwise."""
    drawn = Image.open(path).convert("L").resize(picture.size)
    return np.corrcoef(*(np.ravel(each.filter(ImageFilter.GaussianBlur(2))) for each in (drawn, picture)))[0, 1]


def save(figure, fig):
    """Store a matplotlib figure as SVG and PNG, the same bytes each time, with caption, alt text and licence."""
    said = {"Title": figure.caption, "Description": figure.alt}
    settle(fig)
    with plt.rc_context({"svg.fonttype": "path", "svg.hashsalt": "vae", "figure.constrained_layout.use": False}):
        fig.savefig(FOLDER / f"{figure.file}.png", dpi=2 * fig.dpi, pil_kwargs={"optimize": True},
                    metadata=said | {"Copyright": licence(figure), "Software": None})
        svg = svg_of(fig, said | {"Rights": licence(figure)})
        if len(svg) > LARGE:
            for artist in [artist for ax in fig.axes for artist in (*ax.collections, *ax.lines, *ax.texts)]:
                artist.set_rasterized(True)
            svg = svg_of(fig, said | {"Rights": licence(figure)})
    (FOLDER / f"{figure.file}.svg").write_text(svg, encoding="utf-8")


def settle(fig):
    """Let everything stay where the page shows it: for more pixels a new layout would move curves and legends."""
    fig.draw_without_rendering()
    fig.set_layout_engine("none")
    for legend in fig.findobj(Legend):
        box, anchor = legend.get_window_extent(), legend.get_bbox_to_anchor()
        if anchor.width and anchor.height:
            legend.set_loc(((box.x0 - anchor.x0) / anchor.width, (box.y0 - anchor.y0) / anchor.height))


def svg_of(fig, said):
    """A figure as SVG, with a title and a description that a screen reader finds, and no date and no DTD."""
    buffer = io.StringIO()
    fig.savefig(buffer, format="svg", dpi=2 * fig.dpi, metadata=said | {"Date": None, "Creator": None})
    svg = re.sub(r"<!DOCTYPE[^>]*>\n", "", buffer.getvalue()).replace("<svg ", '<svg role="img" ', 1)
    return svg.replace("</title>", f"</title>\n <desc>{escape(said['Description'], quote=False)}</desc>", 1)


def save_of_page(page, figures):
    """Run a page's cells, as a kernel does, up to the last that shows one of the figures, and save these."""
    shown, wanted, make = [], {figure.cell: figure for figure in figures}, widgets.Explorer

    def show(fig, alt):
        plt.close(fig)
        shown.append((fig, alt))

    def explorer(draw, *args, **controls):
        made = make(draw, *args, **controls)
        shown.append(made)
        return made

    namespace = {"__name__": "__main__"}
    try:
        with chdir(PAGES), plt.rc_context(), redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()), \
                patch.object(plotting, "show", show), patch.object(widgets, "Explorer", explorer):
            for cell in cells(page):
                if cell.cell_type == "code" and wanted:
                    exec(compile(cell.source, f"{page}, cell {cell.id}", "exec"), namespace)
                    if figure := wanted.pop(cell.id, None):
                        save_like_page(figure, *(at_still(shown[0], figure) if figure.still else shown[0]))
                    shown.clear()
    finally:
        torch.set_default_dtype(torch.float32)  # some pages set another


def at_still(explorer, figure):
    """What an explorer draws at a value of one slider, such as "layers = 2", and else where the sliders start."""
    over, value = figure.still.split(" = ")
    at = {name: control.value for name, control in explorer.controls.items()}
    return explorer.draw(**at | {over: type(at[over])(float(value))})


def save_like_page(figure, fig, alt):
    picture, stored_alt = stored(figure)
    save(figure, fig)
    alike = likeness(FOLDER / f"{figure.file}.png", picture)
    if alt != stored_alt or alike < ALIKE:
        raise ValueError(f"{figure.file}: wanted what {figure.page} shows in cell {figure.cell}, got a correlation of "
                         f"{alike:.3f} and the alt text {alt!r}. Refresh the page, with the full MNIST")


def main(*names):
    """Draw the figures of these names, or all, and write README.md."""
    unknown = set(names) - {figure.file for figure in (*DRAWN, *FIGURES)}
    if unknown:
        raise ValueError(f"name: wanted those of figures/README.md, such as {FIGURES[0].file}, got {sorted(unknown)}")
    started = time.perf_counter()
    torch.set_num_threads(1)  # as pages are stored
    plt.switch_backend("agg")
    plotting.use_style()
    for figure in DRAWN:
        if not names or figure.file in names:
            save(figure, getattr(diagrams, figure.file)())
            print(f"figures/{figure.file}")
    for page, figures in groupby(FIGURES, key=lambda figure: figure.page):
        if chosen := [figure for figure in figures if not names or figure.file in names]:
            save_of_page(page, chosen)
            print(*(f"figures/{figure.file}" for figure in chosen), sep="\n", flush=True)
    (FOLDER / "README.md").write_text(readme(), encoding="utf-8")
    print(f"{time.perf_counter() - started:.0f} seconds")


if __name__ == "__main__":
    main(*sys.argv[1:])
