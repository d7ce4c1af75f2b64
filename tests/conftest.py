"""What several files of tests need: a browser."""

import pytest

from course.browser import launched


@pytest.fixture(scope="module")  # no longer: while it runs, no other test of the process can start an event loop
def chromium():
    with launched() as started:
        yield started
