"""The library's map, in the docstring of the package and in the README, names each module once."""

import pkgutil
import re
from pathlib import Path

import vae_lib


def test_the_map_names_each_module_once():
    rows = re.findall(r"^\| ([a-z_, ]+) \|", vae_lib.__doc__, re.MULTILINE)
    named = [name for row in rows for name in row.split(", ")]
    assert sorted(named) == sorted(module.name for module in pkgutil.iter_modules(vae_lib.__path__))


def test_the_readme_has_the_same_map():
    readme = Path(__file__).parents[1].joinpath("README.md").read_text(encoding="utf-8")
    section = readme.partition("## The library")[2].partition("\n## ")[0]
    rows = re.findall(r"^\|.*\|$", section.replace("`", ""), re.MULTILINE)
    assert rows == re.findall(r"^\|.*\|$", vae_lib.__doc__.replace("`", ""), re.MULTILINE)
