"""What built pages borrow from installed packages, so that they need no network: MathJax, reveal.js."""

from importlib.metadata import files


def asset(package, tail):
    """The path of the one file of an installed package whose path ends with `tail`.

    Raises FileNotFoundError unless there is exactly one."""
    found = [file for file in files(package) or [] if str(file).endswith(tail)]
    if len(found) != 1:
        raise FileNotFoundError(f"asset: wanted one file of {package} that ends with {tail}, found {len(found)}")
    return found[0].locate()
