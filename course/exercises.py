"""The exercises as files: the solutions edition is the source, and the exercise edition is written from it.

Cells tagged `solution` hold the answers. In the exercise edition a stub stands in their place: of what they define, the
names that `answer` is asked about, each worth `...`.
"""

import ast
import copy
import re
from typing import NamedTuple

HEADING = re.compile(r"^## ((?:\d+|[A-Z])\.\d+) (.+)\n\n\*(derive|compute|code|predict|debug), (\d+) minutes\*$",
                     re.MULTILINE)
TABLE = "## Exercises"
SHORT = "00_vae_in_half_an_hour.ipynb"
OPENINGS = {
    "exercises": """# Exercises of page {page}: {question}

Run the set-up cell first. Write each answer where `...` stands, and run the cell with `answer` below it. It says
whether the answer is right and, where that is known, which mistake it is. Two hints are folded under each statement.
To read on: [page {page}](../{name}), or [the solutions](../solutions/{name}).""",
    "solutions": """# Solutions to page {page}: {question}

Each answer below is one of several good ones. Without the answers: [the exercises](../exercises/{name}). To read on:
[page {page}](../{name}).""",
}
WORDS = "*Your reasoning, in words and formulas:*"


class Entry(NamedTuple):
    """What a heading of the solutions edition says about its exercise."""

    number: str
    title: str
    kind: str
    minutes: int


def entries(notebook):
    """The exercises of an edition, from its headings, in order."""
    text = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
    return [Entry(number, title, kind, int(minutes)) for number, title, kind, minutes in HEADING.findall(text)]


def letter(name):
    """What the numbers of a page's exercises begin with: "4" for 04_gaussian_kl.ipynb, and "S" for the short 00."""
    return "S" if name == SHORT else name.partition("_")[0].lstrip("0") or "0"


def opening(edition, name, question):
    """The first cell of an edition."""
    page = "00, short" if name == SHORT else name.partition("_")[0]
    return OPENINGS[edition].format(page=page, name=name, question=question)


def table(notebook, name):
    """The section of a page that links to its exercises."""
    rows = [f"| [{number} {title}](exercises/{name}#{number}-{title.replace(' ', '-')}) | {kind} | {minutes} |"
            for number, title, kind, minutes in entries(notebook)]
    return "\n".join([TABLE, "", "| Exercise | Kind | Minutes |", "|---|---|---|", *rows, "",
                      f"The statements, with two hints each, are in [exercises/{name}](exercises/{name}).",
                      "There `answer` says whether yours is right. "
                      f"The answers are in [solutions/{name}](solutions/{name})."])


def asked(cells):
    """The names that `answer` is asked about."""
    trees = (ast.parse(cell.source) for cell in cells if cell.cell_type == "code")
    calls = [node for tree in trees for node in ast.walk(tree)
             if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "answer"]
    return {part.id for call in calls for given in call.args for part in ast.walk(given) if isinstance(part, ast.Name)}


def stub(source, wanted):
    """What stands in place of an answer: its functions and values that are wanted, without their contents."""
    parts = []
    for node in ast.parse(source).body:
        if isinstance(node, ast.FunctionDef) and node.name in wanted:
            node.body = node.body[:ast.get_docstring(node) is not None] + [ast.Expr(ast.Constant(...))]
            parts.append(ast.unparse(node))
        elif isinstance(node, ast.Assign):
            names = [part.id for part in ast.walk(node.targets[0]) if isinstance(part, ast.Name)]
            if wanted & set(names):
                parts.append(f"{', '.join(names)} = {', '.join(['...'] * len(names))}")
    return re.sub(r"\n(?=def )|(?<=    \.\.\.)\n", "\n\n\n", "\n".join(parts))


def blank(solutions, name, question):
    """The exercise edition of a solutions notebook, not yet run."""
    notebook = copy.deepcopy(solutions)
    answers = [cell for cell in notebook.cells if "solution" in cell.metadata.get("tags", ())]
    wanted = asked(notebook.cells)
    for cell in answers:
        cell.source = stub(cell.source, wanted) if cell.cell_type == "code" else WORDS
        cell.metadata.pop("tags")
    notebook.cells = [cell for cell in notebook.cells if cell.source]
    notebook.cells[0].source = opening("exercises", name, question)
    return notebook


def question(page):
    """What a page asks: its title, without the number."""
    return page.cells[0].source.partition("\n")[0].partition("· ")[2]
