"""Mutation testing: how many small faults in a module its own tests notice. No part of the tests or of CI.

    python -m pip install -c constraints.txt mutmut
    python tests/benchmarks/mutants.py [module ...]

Each mutant of vae_lib/<module>.py differs from it in one place: a number one larger, an operator exchanged, an argument
left out or None. It is killed if tests/test_<module>.py fails, or takes much longer than before; for evaluation, whose
samples may come from a refined q, test_refinement.py counts as well. mutants.txt keeps each module's last result, and
mutants.toml says why the mutants that survive do no harm.

The mutations are those of mutmut. Its own runner leaves decorated functions out, and cosmic-ray starts Python anew for
each mutant, torch included: over gaussian.py that took 8.7 s of CPU time a mutant, and this took 0.2 s. Here each
mutant is a fork of a process that has imported torch, SciPy and scikit-learn, and runs the tests that run its line,
fastest first.
"""

import ast
import contextlib
import difflib
import gc
import multiprocessing
import os
import re
import signal
import sys
import tomllib
from collections import Counter
from importlib.machinery import SourceFileLoader
from itertools import product
from pathlib import Path

import coverage
import libcst as cst
import pytest
from mutmut.mutation.mutators import mutation_operators

TESTS, ROOT = Path(__file__).parents[1:3]
MODULES = "gaussian likelihoods objectives loss_translator exact mixture evaluation flow".split()
RESULT, REASONS = (Path(__file__).with_suffix(suffix) for suffix in (".txt", ".toml"))
NOTE = "Each module, and its lines, as they were when it was last examined."
ALSO = {"evaluation": ["refinement"]}  # modules whose tests are its tests, too
OPTIONS = "-x -q --noconftest --assert=plain -p no:cacheprovider -o addopts= -o pythonpath=.".split()
OPTIONS += ["-k", "not five_thousand_samples"]  # starts a Python of its own, which would not see the mutant
os.environ |= {"OMP_NUM_THREADS": "1", "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}


def nodes(node):
    """The node and all below it in the syntax tree, but for annotations."""
    yield node
    for child in node.children:
        if not isinstance(child, cst.Annotation):
            yield from nodes(child)


def mutants(source):
    """The sources that differ from this one by one of mutmut's mutations, are Python, and do not mean the same."""
    tree, meanings = cst.parse_module(source), {ast.dump(ast.parse(source))}
    for node, (kind, operator) in product(nodes(tree), mutation_operators):
        for other in operator(node) if isinstance(node, kind) else ():
            mutant = tree.deep_replace(node, other).code
            with contextlib.suppress(SyntaxError):
                if (meaning := ast.dump(ast.parse(mutant))) not in meanings:
                    meanings.add(meaning)
                    yield mutant


def change(source, mutant):
    """The number of the first line that differs, and the lines that differ, before and after."""
    place, *lines = list(difflib.unified_diff(source.splitlines(), mutant.splitlines(), n=0, lineterm=""))[2:]
    before, after = (" ".join(line[1:].strip() for line in lines if line[0] == sign) for sign in "-+")
    return int(re.search(r"\d+", place)[0]), before, after


def files_of_tests(module):
    return [str(TESTS / f"test_{name}.py") for name in (module, *ALSO.get(module, ()))]


class Tests:
    """A plugin of pytest that notes which tests run which lines, and their seconds; then it chooses by these."""

    def __init__(self, path):
        self.lines, self.seconds, self.chosen = coverage.Coverage(data_file=None, include=[str(path)]), Counter(), {""}

    def choose(self, path, line):
        """Choose the tests that run the statement at this line; all, if it runs on import."""
        runs = self.lines.get_data().contexts_by_lineno(str(path))
        self.chosen = set(runs[max(first for first in runs if first <= line)])

    def pytest_collection_modifyitems(self, items):
        items[:] = [item for item in items if {"", item.nodeid} & self.chosen]
        items.sort(key=lambda item: self.seconds[item.nodeid])  # fastest first

    def pytest_runtest_setup(self, item):
        if coverage.Coverage.current():
            self.lines.switch_context(item.nodeid)

    def pytest_runtest_logreport(self, report):
        self.seconds[report.nodeid] += report.duration


def run_tests(module, source, tests):
    """Run the chosen tests with this source in place of the module's, and end the process with pytest's exit code."""
    signal.alarm(30 + 5 * int(sum(took for name, took in tests.seconds.items() if {"", name} & tests.chosen)))
    for stream in (1, 2):
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream)
    get_code = SourceFileLoader.get_code
    SourceFileLoader.get_code = lambda self, name: (
        compile(source, self.path, "exec") if name == f"vae_lib.{module}" else get_code(self, name))
    os._exit(pytest.main([*OPTIONS, *files_of_tests(module)], [tests]))


def survives(*arguments):
    """Whether no test fails in a fork of this process; the arguments are those of run_tests."""
    child = multiprocessing.get_context("fork").Process(target=run_tests, args=arguments)
    child.start()
    child.join()
    return child.exitcode in (0, pytest.ExitCode.NO_TESTS_COLLECTED)


def examine(module):
    """The number of the module's mutants, and the changes of those that survive."""
    path = ROOT / f"vae_lib/{module}.py"
    source, tests, survivors = path.read_text(), Tests(path), []
    with tests.lines.collect():
        pytest.main([*OPTIONS, *files_of_tests(module)], [tests])
    for name, imported in list(sys.modules.items()):
        if name.startswith(("vae_lib", "tqdm")) or Path(getattr(imported, "__file__", None) or "").parent == TESTS:
            del sys.modules[name]  # a child imports the mutant, what imports it, and tests; tqdm has begun a thread
    gc.freeze()
    assert survives(module, source, tests), "the tests fail as it is"
    for number, mutant in enumerate(mutants(source), 1):
        line, before, after = change(source, mutant)
        tests.choose(path, line)
        if survives(module, mutant, tests):
            survivors.append((line, before, after))
            print(module, number, *survivors[-1], sep="  ", flush=True)
    return number, survivors


def main():
    """Examine the modules named on the command line, or all; bring their parts of mutants.txt up to date."""
    os.nice(10)
    parts = dict(re.findall(r"^== (\w+)\n(.*?)(?=^== |\Z)", RESULT.read_text(), re.M | re.S)) if RESULT.exists() else {}
    for module in sys.argv[1:] or MODULES:
        number, survivors = examine(module)
        reasons = {change: entry["why"] for entry in tomllib.loads(REASONS.read_text()).get(module, [])
                   for change in entry["changes"]}
        row = f"{module:<15} {number:>7} {number - len(survivors):>6} {1 - len(survivors) / number:>8.1%}\n\n"
        parts[module] = row + "".join(f"line {place}: {before}\n  ->  {after}\n  why {reasons.get(after, '?')}\n\n"
                                      for place, before, after in survivors)
        parts = {name: parts[name] for name in dict.fromkeys([*MODULES, *parts]) if name in parts}
        table = [f"{'module':<15} mutants killed    share", *(part.splitlines()[0] for part in parts.values())]
        sections = [f"== {name}\n{part}" for name, part in parts.items()]
        RESULT.write_text("\n".join([*table, "", NOTE, "", ""]) + "".join(sections))


if __name__ == "__main__":
    main()
