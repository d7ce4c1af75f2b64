"""What every explorer has to do. In a file of its own, as kernels import it: test_widgets.py imports a browser."""

import io

import matplotlib.pyplot as plt
from PIL import Image


def assert_every_control_redraws(explorer):
    """Move each control to either end and back: every time another picture, and no figure is left open."""
    for name, control in explorer.controls.items():
        start, opened = control.value, plt.get_fignums()
        ends = [end for end in (control.min, control.max) if end != start]
        for value in [value for end in ends for value in (end, start)]:
            before, said = bytes(explorer.image.value), explorer.image.tooltip
            control.value = value
            assert bytes(explorer.image.value) != before, f"{name} = {value} leaves the picture as it was"
            assert explorer.image.tooltip != said, f"{name} = {value} leaves the description as it was"
            assert explorer.image.value == explorer.picture.png and explorer.message.value == ""
            Image.open(io.BytesIO(explorer.picture.png)).load()
        assert plt.get_fignums() == opened, f"{name} leaves a figure open"
