"""Pages that use MNIST print the same with the 5,000 digits that serve when there is no network."""

import os
import subprocess
import sys

import pytest

from course import pages

WITH_DATA = [path for path in pages.paths() if any("load(" in text for _, text in pages.cells(path, "code"))]


@pytest.mark.parametrize("path", WITH_DATA, ids=[path.stem for path in WITH_DATA])
def test_the_page_passes_on_the_sample(path):
    command = [sys.executable, "-m", "pytest", "-q", "--nbval", "-p", "no:cacheprovider", str(path)]
    result = subprocess.run(command, env={**os.environ, "VAE_DATA": "sample"}, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout[-3000:]
