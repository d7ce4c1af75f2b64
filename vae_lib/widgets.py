"""The explorer: sliders that redraw one picture, and a small multiple of it where no kernel runs."""

import gc
import io
import math
from contextlib import contextmanager

import ipywidgets
import matplotlib.pyplot as plt
import traitlets
from PIL import Image, ImageDraw, ImageFont

from vae_lib.guards import function
from vae_lib.plotting import Picture, picture

WIDTH, HEADING = 1000, 28  # of the small multiple and of the line over each of its pictures, in pixels


def slider(name, control):
    """Make the slider of one control, (low, high, start[, step], unit).

    Only integers: an IntSlider in steps of 1; else a FloatSlider in fifty steps, unless step says otherwise. unit
    says in what the slider counts, "nats" or "digit", and stands behind its name.
    Raises TypeError for anything else, ValueError unless low <= start <= high, low < high, step > 0, start
    is a whole number of steps from low (the browser would move it to the next one) and unit is not blank."""
    wanted = f"{name}: wanted (low, high, start[, step], unit)"
    if not (isinstance(control, tuple) and control and isinstance(control[-1], str)):
        raise TypeError(f"{wanted} with words for the unit, got {control!r}")
    *numbers, unit = control
    if not all(type(number) in (int, float) for number in numbers):
        raise TypeError(f"{wanted}, got {control!r}")
    if len(numbers) not in (3, 4) or not all(map(math.isfinite, numbers)) or not unit.strip():
        raise ValueError(f"{wanted}, got {control!r}")
    low, high, start = numbers[:3]
    whole = all(type(number) is int for number in numbers)
    step = numbers[3] if len(numbers) == 4 else 1 if whole else (high - low) / 50
    if not (low <= start <= high and low < high and step > 0):
        raise ValueError(f"{wanted} with low <= start <= high, low < high and step > 0, got {control!r}")
    if not math.isclose((start - low) / step, round((start - low) / step), abs_tol=1e-9):
        raise ValueError(f"{wanted} with start a whole number of steps of {step} from low, got {control!r}")
    label = f"{name.replace('_', ' ')} ({unit})"
    kind = ipywidgets.IntSlider if whole else ipywidgets.FloatSlider
    return kind(value=start, min=low, max=high, step=step, description=label,
                tooltip=f"{label}: {low} to {high}, an arrow key moves it by {step:.4g}",
                style={"description_width": "24em"}, layout={"width": "48em", "max_width": "100%"})


class DescribedImage(ipywidgets.Image):
    """An Image whose tooltip becomes the title, that is the accessible name, of the browser's <img>.

    ipywidgets sets the title only of widgets that have a description, if an empty one."""

    description = traitlets.Unicode("").tag(sync=True)


class Explorer:
    """Sliders that redraw one picture. draw(**values) returns a figure and a text that says what it shows.

    controls: (low, high, start[, step], unit) for each argument of draw. The text should name what the values
    change; it is the picture's accessible name. As a cell's output an explorer is its sliders and the picture. Where
    no kernel runs (GitHub, HTML, slides) a small multiple stands still: the picture at the values `stills` of
    the control `over`, without which the first control goes over its lowest, middle and highest value.

    An exception in draw is raised, and its message stands above the picture. Raises TypeError or ValueError for
    bad arguments, as slider and plotting.picture do."""

    def __init__(self, draw, over=None, stills=None, **controls):
        function("draw", draw, "a function that returns a figure and a text")
        if not controls:
            raise ValueError("controls: wanted at least one slider, got none")
        self.draw = draw
        self.controls = {name: slider(name, control) for name, control in controls.items()}
        over = next(iter(controls)) if over is None else over
        if over not in self.controls:
            raise ValueError(f"over: wanted one of {', '.join(self.controls)}, got {over!r}")
        self.still = self.small_multiple(over, stills or middle_and_ends(self.controls[over]))
        self.image = DescribedImage(layout={"max_width": "100%", "align_self": "flex-start"})
        self.message = ipywidgets.Label(layout={"height": "auto"})
        self.redraw()
        self.box = ipywidgets.VBox([*self.controls.values(), self.message, self.image])
        for control in self.controls.values():
            control.observe(self.redraw, names="value")

    def at(self, **changes):
        """The picture at the sliders' values, or at others; every figure that draw opened is closed."""
        with young_garbage_only():
            return self.drawn({name: control.value for name, control in self.controls.items()} | changes)

    def drawn(self, values):
        opened_before = set(plt.get_fignums())
        try:
            drawn = self.draw(**values)
            if not (isinstance(drawn, tuple) and len(drawn) == 2):
                raise TypeError(f"draw: wanted it to return a figure and a text, got {type(drawn).__name__}")
            return picture(*drawn)
        finally:
            for number in set(plt.get_fignums()) - opened_before:
                plt.close(number)

    def redraw(self, change=None):
        """Draw the picture of the sliders' values, and describe it."""
        try:
            self.picture = self.at()
            self.image.value, self.image.tooltip, self.message.value = self.picture.png, self.picture.alt, ""
        except Exception as error:
            self.message.value = f"Not redrawn: {type(error).__name__}: {error}"
            raise

    def small_multiple(self, over, values):
        """One Picture of the pictures at several values of a control, under each other or side by side."""
        names = [f"{over.replace('_', ' ')} = {value:.4g}" for value in values]
        pictures = [self.at(**{over: value}) for value in values]
        tiles = [Image.open(io.BytesIO(each.png)) for each in pictures]
        width, height = (max(sizes) for sizes in zip(*(tile.size for tile in tiles)))
        columns = max(1, min(len(tiles), WIDTH // width))
        canvas = Image.new("RGB", (columns * width, -(-len(tiles) // columns) * (height + HEADING)), "white")
        pen, font = ImageDraw.Draw(canvas), ImageFont.load_default(size=HEADING // 2)
        for i, (name, tile) in enumerate(zip(names, tiles)):
            left, top = i % columns * width, i // columns * (height + HEADING)
            pen.text((left + 8, top + 8), name, fill="black", font=font)
            canvas.paste(tile, (left, top + HEADING))
        png = io.BytesIO()
        canvas.save(png, format="png", optimize=True)
        return Picture(png.getvalue(), "\n".join(f"{name}: {each.alt}" for name, each in zip(names, pictures)))

    def __repr__(self):
        return self.still.alt

    def _repr_mimebundle_(self, include=None, exclude=None):
        data, metadata = self.still._repr_mimebundle_()
        return self.box._repr_mimebundle_() | data, metadata


@contextmanager
def young_garbage_only():
    """Collect at the end, and at once, the garbage that is young: what was made and dropped inside.

    A figure is full of cycles. If the collector runs while it is drawn, the figure counts as long-lived, and only a
    walk over every object of the kernel, of tenths of a second, frees it: one redraw in ten would take that long.
    What an earlier collection has left is not walked over here. The figure of a draw that raises stays with the
    traceback."""
    running = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if running:
            gc.enable()
            gc.collect(0)


def middle_and_ends(control):
    """Lowest, middle and highest value of a slider, the middle on one of its steps."""
    steps = round((control.max - control.min) / control.step)
    return control.min, control.min + steps // 2 * control.step, control.max
