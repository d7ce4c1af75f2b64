"""The library's map, in the docstring of the package, names each module once."""

import pkgutil
import re

import vae_lib


def test_the_map_names_each_module_once():
    rows = re.findall(r"^\| ([a-z_, ]+) \|", vae_lib.__doc__, re.MULTILINE)
    named = [name for row in rows for name in row.split(", ")]
    assert sorted(named) == sorted(module.name for module in pkgutil.iter_modules(vae_lib.__path__))
