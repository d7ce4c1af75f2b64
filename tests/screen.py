"""Drawing in tests."""

import matplotlib
import matplotlib.pyplot as plt
import pytest


@pytest.fixture(autouse=True)
def no_screen():
    """Every test of a file that imports this draws without a screen, and begins in matplotlib's own style."""
    with matplotlib.rc_context():
        plt.switch_backend("agg")
        yield
        plt.close("all")
