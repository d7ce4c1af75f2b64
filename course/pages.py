"""The pages as files: how they are stored, and the ledger of their equations.

`python -m course.pages refresh [04 ...]` executes pages and stores them in one normal form;
`python -m course.pages ledger` prints each numbered equation with what it was checked against.
"""

import ast
import re
import sys
from pathlib import Path
from typing import NamedTuple

import nbformat
from nbclient import NotebookClient

from course import exercises
from vae_lib.files import write_whole

FOLDER = Path("notebooks")
TAG = re.compile(r"\\tag\{([^}]+)\}")
WIDGET_VIEW = "application/vnd.jupyter.widget-view+json"
KEPT_METADATA = {"kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
                 "language_info": {"name": "python"}}


class Check(NamedTuple):
    """One call of `check` or `check_at_most` in a page: its witness, how closely they agree, and what they share."""

    number: str
    against: str
    atol: float
    shares: str
    cell: int


def paths(names=(), folder=FOLDER):
    """The notebooks of the folder in order; with names such as "04", those whose file name begins so."""
    found = sorted(Path(folder).glob("*.ipynb"))
    for name in names:
        if not any(path.name.startswith(name) for path in found):
            raise ValueError(f"page: no notebook in {folder}/ begins with {name!r}")
    return [path for path in found if not names or path.name.startswith(tuple(names))]


def cells(path, kind):
    """The sources of the cells of one kind, "code" or "markdown", as pairs of position and text."""
    notebook = nbformat.read(path, as_version=4)
    return [(i, cell.source) for i, cell in enumerate(notebook.cells) if cell.cell_type == kind]


def equations(path):
    """The numbered equations of a page: a dict from number to the position of its cell, each number once."""
    found = [(number, i) for i, text in cells(path, "markdown") for number in TAG.findall(text)]
    if len(dict(found)) < len(found):
        raise ValueError(f"{Path(path).name}: an equation's number stands twice in {[n for n, _ in found]}")
    return dict(found)


def checks(path):
    """The checks of a page, in order, but for those in a `try`, which are meant to fail.

    Number, `against`, `atol` and `shares` must be literals, so that the ledger can be read.
    """
    found = []
    for i, text in cells(path, "code"):
        tree = ast.parse(text)
        tried = {part for node in ast.walk(tree) if isinstance(node, ast.Try) for part in ast.walk(node)}
        calls = (node for node in ast.walk(tree) if isinstance(node, ast.Call) and node not in tried)
        for call in calls:
            if getattr(call.func, "id", "") in ("check", "check_at_most"):
                options = {option.arg: ast.literal_eval(option.value) for option in call.keywords
                           if option.arg in ("against", "atol", "shares")}
                options = {"atol": 0.0, "shares": "nothing"} | options
                found.append(Check(ast.literal_eval(call.args[0]), cell=i, **options))
    return found


def ledger(pages):
    """One row for each check: equation, page, its witness, what the witness shares with it, tolerance."""
    return [(check.number, Path(page).stem, check.against, check.shares, f"{check.atol:g}")
            for page in pages for check in checks(page)]


def normalise(notebook):
    """Leave in a notebook what its reader needs: no widget state, timings, versions or split streams.

    JupyterLab opens it with the code of cells tagged `figure` folded: they only draw."""
    notebook.metadata = nbformat.from_dict(KEPT_METADATA)
    for cell in notebook.cells:
        folded = {"jupyter": {"source_hidden": True}} if "figure" in cell.metadata.get("tags", ()) else {}
        kept = {key: value for key, value in cell.metadata.items() if key in ("tags", "slideshow")}
        cell.metadata = nbformat.from_dict(folded | kept)
        if cell.cell_type != "code":
            continue
        joined = []
        for output in cell.outputs:
            output.get("data", {}).pop(WIDGET_VIEW, None)  # its model dies with the kernel; the picture beside it stays
            if joined and output.output_type == "stream" == joined[-1].output_type and output.name == joined[-1].name:
                joined[-1].text += output.text
            else:
                joined.append(output)
        cell.outputs = joined
    return notebook


def execute(notebook, path):
    """Run a notebook in the folder of its path, and store it there, normalised. One that fails is not written."""
    resources = {"metadata": {"path": str(path.parent)}}
    NotebookClient(notebook, timeout=600, kernel_name="python3", resources=resources).execute()
    write_whole(path, (nbformat.writes(normalise(notebook)) + "\n").encode())


def refresh(path):
    """Execute and store a page, and before it the solutions of its exercises and, written from them, the exercises."""
    path = Path(path)
    page = nbformat.read(path, as_version=4)
    solutions = path.parent / "solutions" / path.name
    if solutions.exists():
        notebook, question = nbformat.read(solutions, as_version=4), exercises.question(page)
        notebook.cells[0].source = exercises.opening("solutions", path.name, question)
        execute(notebook, solutions)
        execute(exercises.blank(notebook, path.name, question), path.parent / "exercises" / path.name)
        for cell in page.cells:
            if cell.source.startswith(exercises.TABLE):
                cell.source = exercises.table(notebook, path.name)
    execute(page, path)


def main(task, *names, folder=FOLDER):
    """Run a task from the command line."""
    if task == "refresh":
        for path in paths(names, folder):
            print(f"refresh {path}", flush=True)
            refresh(path)
    elif task == "ledger":
        rows = [("equation", "page", "checked against", "shares with it", "to within"), *ledger(paths(names, folder))]
        widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
        for row in rows:
            print("  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip())
    else:
        raise ValueError(f"task: wanted refresh or ledger, got {task!r}")


if __name__ == "__main__":
    main(*sys.argv[1:])
