"""The explorer: sliders that redraw one picture, and a still picture where no kernel runs."""

import math

import ipywidgets
import matplotlib.pyplot as plt
import traitlets

from vae_lib.plotting import picture


def slider(name, control):
    """Make the slider of one control, (low, high, start[, step]).

    Only integers: an IntSlider in steps of 1; else a FloatSlider in fifty steps, unless step says otherwise.
    Raises TypeError for anything else, ValueError unless low <= start <= high, low < high, step > 0 and start
    is a whole number of steps from low (the browser would move it to the next one)."""
    label = name.replace("_", " ")
    wanted = f"{name}: wanted (low, high, start[, step])"
    if not isinstance(control, tuple) or not all(type(number) in (int, float) for number in control):
        raise TypeError(f"{wanted}, got {control!r}")
    if len(control) not in (3, 4) or not all(math.isfinite(number) for number in control):
        raise ValueError(f"{wanted}, got {control!r}")
    low, high, start = control[:3]
    whole = all(type(number) is int for number in control)
    step = control[3] if len(control) == 4 else 1 if whole else (high - low) / 50
    if not (low <= start <= high and low < high and step > 0):
        raise ValueError(f"{wanted} with low <= start <= high, low < high and step > 0, got {control!r}")
    if not math.isclose((start - low) / step, round((start - low) / step), abs_tol=1e-9):
        raise ValueError(f"{wanted} with start a whole number of steps of {step} from low, got {control!r}")
    kind = ipywidgets.IntSlider if whole else ipywidgets.FloatSlider
    return kind(value=start, min=low, max=high, step=step, description=label,
                tooltip=f"{label}: {low} to {high}, an arrow key moves it by {step:.4g}",
                style={"description_width": "8em"}, layout={"width": "32em", "max_width": "100%"})


class DescribedImage(ipywidgets.Image):
    """An Image whose tooltip becomes the title, that is the accessible name, of the browser's <img>.

    ipywidgets 8.1 sets the title only of widgets that have a description, if an empty one."""

    description = traitlets.Unicode("").tag(sync=True)


class Explorer:
    """Sliders that redraw one picture: draw(**values) returns a matplotlib figure, alt says what it shows.

    controls: (low, high, start[, step]) for each argument of draw. As a cell's output it is the
    sliders and the picture; where no kernel runs (GitHub, HTML, slides), the picture alone. An exception in
    draw is raised, and its message stands above the picture. Raises TypeError or ValueError for bad
    arguments, as slider and plotting.picture do."""

    def __init__(self, draw, alt, **controls):
        if not callable(draw):
            raise TypeError(f"draw: wanted a function that returns a figure, got {type(draw).__name__}")
        if not controls:
            raise ValueError("controls: wanted at least one slider, got none")
        self.draw, self.alt = draw, alt
        self.controls = {name: slider(name, control) for name, control in controls.items()}
        self.image = DescribedImage(tooltip=alt, layout={"max_width": "100%", "align_self": "flex-start"})
        self.message = ipywidgets.Label(layout={"height": "auto"})
        self.redraw()
        self.box = ipywidgets.VBox([*self.controls.values(), self.message, self.image])
        for control in self.controls.values():
            control.observe(self.redraw, names="value")

    def redraw(self, change=None):
        """Draw the picture of the sliders' values and close every figure that draw opened."""
        opened_before = set(plt.get_fignums())
        try:
            values = {name: control.value for name, control in self.controls.items()}
            self.picture = picture(self.draw(**values), self.alt)
            self.image.value, self.message.value = self.picture.png, ""
        except Exception as error:
            self.message.value = f"Not redrawn: {type(error).__name__}: {error}"
            raise
        finally:
            for number in set(plt.get_fignums()) - opened_before:
                plt.close(number)

    def __repr__(self):
        return self.alt

    def _repr_mimebundle_(self, include=None, exclude=None):
        data, metadata = self.picture._repr_mimebundle_()
        return self.box._repr_mimebundle_() | data, metadata
