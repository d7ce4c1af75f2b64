"""Figures: one look, one way to show them with alternative text, and plots that several pages draw."""

import base64
import io

import matplotlib.pyplot as plt
import numpy as np
import torch
from IPython.display import display
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

# Okabe and Ito, "Color universal design" (2008): told apart by colour-blind readers too.
COLOURS = {"blue": "#0072B2", "vermillion": "#D55E00", "green": "#009E73", "orange": "#E69F00",
           "purple": "#CC79A7", "sky": "#56B4E9", "yellow": "#F0E442", "black": "#000000"}

STYLE = {
    "figure.figsize": (6.4, 3.6), "figure.dpi": 120, "figure.constrained_layout.use": True,
    "savefig.dpi": "figure", "savefig.facecolor": "white", "font.size": 9.0,
    "axes.prop_cycle": plt.cycler(color=[colour for name, colour in COLOURS.items() if name != "yellow"]),
    "axes.spines.top": False, "axes.spines.right": False, "axes.axisbelow": True,
    "axes.grid": True, "grid.color": "#DDDDDD", "lines.linewidth": 1.8, "legend.frameon": False}


def use_style():
    """Give every later figure the look of the course (for a few figures: `with plt.rc_context(STYLE):`)."""
    plt.rcParams.update(STYLE)


class Picture:
    """PNG bytes and the text that says what they show, which are one output of a cell."""

    def __init__(self, png, alt):
        if not isinstance(alt, str) or not alt.strip():
            raise ValueError(f"alt: wanted a sentence that says what the picture shows, got {alt!r}")
        self.png, self.alt = png, alt

    def __repr__(self):
        return self.alt

    def _repr_mimebundle_(self, include=None, exclude=None):
        data = {"image/png": base64.b64encode(self.png).decode("ascii"), "text/plain": self.alt}
        return data, {"image/png": {"alt": self.alt}}


def picture(fig, alt):
    """Draw a matplotlib figure into a Picture and close the figure.

    Raises TypeError when fig is no figure, ValueError when alt is no text or blank."""
    if not isinstance(fig, Figure):
        raise TypeError(f"fig: wanted a matplotlib Figure, got {type(fig).__name__}")
    buffer = io.BytesIO()
    try:
        FigureCanvasAgg(fig).print_png(buffer, metadata={"Software": None})  # savefig would draw twice
    finally:
        plt.close(fig)
    return Picture(buffer.getvalue(), alt)


def show(fig, alt):
    """Show a matplotlib figure once, anywhere in a cell, with its alternative text, and close it.

    Raises TypeError when fig is no figure, ValueError when alt is no text or blank."""
    display(picture(fig, alt))


def image_grid(images, columns, *, ax=None, row_labels=None, column_labels=None, title=None):
    """Draw images row by row on a grid, black at 0, white at 1 and grey between images, and return the figure.

    images: floats in [0, 1], grey of shape (N, 1, H, W) or red, green and blue of shape (N, 3, H, W), N a multiple
    of columns; labels: one for each row or column. Raises TypeError for anything but floats, ValueError for other
    shapes, for values outside [0, 1] (nothing is clipped) and for a wrong number of labels."""
    images = torch.as_tensor(images).detach().cpu()
    shape = tuple(images.shape)
    if not images.is_floating_point():
        raise TypeError(f"images: wanted floats in [0, 1], got {images.dtype} of shape {shape}")
    if images.ndim != 4 or images.shape[1] not in (1, 3) or images.numel() == 0:
        raise ValueError(f"images: wanted shape (N, 1, H, W) or (N, 3, H, W), got {shape}")
    if columns < 1 or len(images) % columns:
        raise ValueError(f"columns: wanted a divisor of the {len(images)} images, got {columns}")
    if not ((images >= 0) & (images <= 1)).all():
        raise ValueError(f"images: wanted values in [0, 1], got {images.min():.3g} to {images.max():.3g}")
    rows, (height, width) = len(images) // columns, shape[2:]
    for name, labels, wanted in (("row_labels", row_labels, rows), ("column_labels", column_labels, columns)):
        if labels is not None and len(labels) != wanted:
            raise ValueError(f"{name}: wanted {wanted}, got {len(labels)}")

    gap = max(1, width // 14)
    canvas = np.full((rows * (height + gap) - gap, columns * (width + gap) - gap, 3), 0xB0 / 255)
    for i, image in enumerate(images.float().permute(0, 2, 3, 1).numpy()):
        top, left = i // columns * (height + gap), i % columns * (width + gap)
        canvas[top:top + height, left:left + width] = image
    if ax is None:
        inches = min(0.6, 7 / columns)
        label_width = 0.15 + 0.1 * max(map(len, row_labels)) if row_labels else 0
        size = (inches * columns + 0.1 + label_width,
                inches * rows * height / width + 0.1 + 0.25 * bool(title) + 0.25 * bool(column_labels))
        ax = plt.figure(figsize=size, layout="constrained").add_subplot()
    ax.imshow(canvas, interpolation="nearest")
    ax.set_xticks((width + gap) * np.arange(columns) + width / 2 if column_labels else [], column_labels)
    ax.set_yticks((height + gap) * np.arange(rows) + height / 2 if row_labels else [], row_labels)
    ax.tick_params(length=0, top=False, bottom=False, labeltop=True, labelbottom=False)
    ax.grid(False)
    ax.spines[:].set_visible(False)
    ax.set_anchor("W")  # else the layout cuts off row labels
    ax.set_title(title)
    return ax.figure


def gap_bars(ax, elbo, log_px, labels):
    """Draw log p(x) = ELBO + gap, in nats, as one stacked bar for each label.

    elbo: one number per bar; log_px: one per bar, or one for all. A log density has no natural zero, so the
    bars start below the lowest ELBO. Raises ValueError for unequal lengths, for numbers that are not finite
    and for an ELBO more than 1e-6 nats above log p(x)."""
    elbo = np.asarray(elbo, dtype=float)
    if elbo.shape != (len(labels),) or len(labels) == 0 or np.shape(log_px) not in ((), elbo.shape):
        raise ValueError("elbo, log_px, labels: wanted as many of each (or one log_px), "
                         f"got shapes {elbo.shape}, {np.shape(log_px)} and {len(labels)} labels")
    log_px = np.broadcast_to(np.asarray(log_px, dtype=float), elbo.shape)
    gap = log_px - elbo
    if not np.isfinite(gap).all() or (gap < -1e-6).any():
        raise ValueError(f"elbo: wanted finite numbers at most log_px, got {elbo} for {log_px}")
    gap = np.maximum(gap, 0)  # a gap of zero may have been rounded to less; its label would stand below the line
    floor = elbo.min() - 0.6 * max(log_px.max() - elbo.min(), 0.1)
    where = np.arange(len(labels))
    ax.bar(where, elbo - floor, bottom=floor, width=0.6, color=COLOURS["sky"], label="ELBO")
    bars = ax.bar(where, gap, bottom=elbo, width=0.6, color=COLOURS["orange"], hatch="//", edgecolor="white",
                  label="gap: KL(q || posterior)")
    ax.bar_label(bars, [f"gap {nats:.2f}" for nats in gap], label_type="edge", padding=3)
    ax.hlines(log_px, where - 0.36, where + 0.36, color=COLOURS["black"], label="log p(x)")
    ax.set_xticks(where, labels)
    ax.set_ylim(floor, log_px.max() + 0.45 * (log_px.max() - floor))
    ax.set_ylabel("nats")
    ax.grid(False, axis="x")
    ax.legend(loc="upper center", ncols=3, fontsize="small", columnspacing=1.2)


def plot_history(history, window=None):
    """Draw the history that training.fit returns, in nats per image, and return the figure.

    history: {"elbo": [...], "log_px_given_z": [...], "kl": [...]}, one number per step; what is drawn are
    means of `window` steps (a fiftieth of all, unless told otherwise), as the labels say. Raises ValueError
    when one of the three is missing, empty or longer than another, and when window is not in 1..steps."""
    names = {"elbo": "ELBO", "log_px_given_z": "log p(x|z)", "kl": "KL"}
    lengths = {name: len(history[name]) for name in names if name in history}
    steps = lengths.get("elbo", 0)
    if steps == 0 or lengths != dict.fromkeys(names, steps):
        raise ValueError(f"history: wanted one number per step for each of {', '.join(names)}, got {lengths}")
    window = max(1, steps // 50) if window is None else window
    if not 1 <= window <= steps:
        raise ValueError(f"window: wanted 1 to {steps} steps, got {window}")
    said = "" if window == 1 else f", mean of {window} steps"
    fig, (left, right) = plt.subplots(1, 2, figsize=(7.2, 3.2), layout="constrained")
    curves = ("log_px_given_z", left, "sky"), ("elbo", left, "blue"), ("kl", right, "vermillion")
    for name, ax, colour in curves:
        means = np.convolve(history[name], np.full(window, 1 / window), mode="valid")
        ax.plot(np.arange(window, steps + 1), means, color=COLOURS[colour], label=names[name] + said)
    for ax in (left, right):
        ax.set(xlabel="step", ylabel="nats per image")
        ax.legend(fontsize="small")
    return fig
