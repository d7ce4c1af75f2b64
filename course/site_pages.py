"""What the pages of the site say that are no notebooks: index, ledger, notation and glossary, the library.

All of it comes from README, from the notebooks' tables, checks and sentences, and from the library's docstrings.
"""

import ast
import re
import textwrap
from pathlib import Path

from course import pages

WEB = Path("course/web")
SYMBOLS = "## Names, shapes and signs"


def anchor(heading):
    """The anchor of a heading as JupyterLab names it, but without formulas, which Sphinx leaves out."""
    return re.sub(r"\$[^$]+\$", "", heading).strip().replace(" ", "-")


def known():
    """What the templates in course/web may name."""
    return {**readme(), "pages": pages.paths(), "rows": ledger(), "symbols": symbols(), "terms": terms(),
            "modules": library()}


def section(text, heading):
    """The text of a section of Markdown, without its heading."""
    return re.split(r"\n## ", f"\n{text}".split(f"\n{heading}\n")[1])[0].strip()


def readme():
    """Parts of README: its title, commands, first paragraphs and its tables of pages and modules."""
    text = Path("README.md").read_text(encoding="utf-8")
    title, _, rest = text.partition("\n")
    opening = rest.split("\n## ")[0]
    commands, picture, intro = opening.partition("![")
    return {"title": title.lstrip("# "), "commands": commands.strip(), "intro": picture + intro.strip(),
            "table": section(text, "## The pages"), "overview": section(text, "## The library")}


def ledger():
    """A row for each check of a page, with the address of the cell that checks."""
    return [{"page": f"notebooks/{path.stem}", "name": path.name[:2], "anchor": f"check-{check.number}-{i}",
             **check._asdict(), "atol": f"{check.atol:g}"}
            for path in pages.paths() for i, check in enumerate(pages.checks(path))]


def passages(path):
    """The paragraphs of a page, each with the heading above it: pairs, without references and code."""
    heading, found = "", []
    for _, text in pages.cells(path, "markdown"):
        for block in re.split(r"\n\n+", text):
            if block.startswith("#"):
                heading, _, block = block.lstrip("# ").partition("\n")
            if heading != "References" and block.strip():
                found.append((heading, block))
    return found


def place(path, heading):
    """A link to a section of a page."""
    return f"[{path.name[:2].rstrip('_')}, {heading.split('· ')[-1]}](notebooks/{path.name}#{anchor(heading)})"


def symbols():
    """Page 00's table of symbols; in place of its last column stands a link to where each is introduced."""
    first = pages.paths(("00_start",))[0]
    table = next(text for _, text in pages.cells(first, "markdown") if text.startswith(SYMBOLS)).split("\n\n")[2]
    head, line, *rows = table.splitlines()
    return "\n".join([head, line, *(introduced(row) for row in rows)])


def introduced(row):
    """A row of the table of symbols with links in its last column."""
    cells = [cell.strip() for cell in row.strip(" |").split("|")]
    names = {name.replace(r"\mid ", "|") for name in re.findall(r"\$(.+?)\$", cells[0])}
    links = []
    for number in cells[-1].split(", "):
        path = pages.paths((f"{number}_start" if number == "00" else number,))[0]
        heading = next((heading for heading, text in passages(path) if heading != SYMBOLS[3:]
                        for formula in re.findall(r"\$([^$]+)\$", text)
                        if any(name in formula for name in names)), None)
        links.append(place(path, heading or passages(path)[0][0]))
    return "| " + " | ".join([*cells[:-1], ", ".join(links)]) + " |"


def terms():
    """The terms of terms.txt, in alphabetical order, each with the sentence in which it first stands and its place."""
    return [find(term) for term in sorted((WEB / "terms.txt").read_text().splitlines(), key=str.lower)]


def find(term):
    """A term, the sentence of the pages in which it first stands in italics, and a link to the place."""
    mark = re.compile(rf"(?<!\*)\*{re.escape(term)}\*(?!\*)".replace(r"\ ", r"\s+"), re.IGNORECASE)
    for path in pages.paths():
        number = ""
        for heading, text in passages(path):
            number = (pages.TAG.findall(text) or [number])[-1]
            if mark.search(text) and path.name != "00_vae_in_half_an_hour.ipynb":
                block = next(part for part in re.split(r"\n(?=- |\d+\. |\| )", text) if mark.search(part))
                sentence = re.sub(r"^This is ", f"({number}) is ", sentences(block, mark))
                return term, re.sub(r"\]\((?=[\w/]+\.ipynb)", "](notebooks/", sentence), place(path, heading)
    raise ValueError(f"terms.txt: no page has *{term}* in italics")


def sentences(block, mark):
    """The sentence of a block that a pattern marks; with those beside it, where a pronoun begins the second of two."""
    block = " ".join(re.sub(r"^(- |\d+\. )", "", block).split())
    parts = re.split(r"(?<=[.?!])\s+(?=[A-Z$`*])", block)
    first = last = next(i for i, part in enumerate(parts) if mark.search(part))
    first -= first > 0 and parts[first].startswith(("This ", "These ", "It ", "For VAEs it", "To average it"))
    last += last + 1 < len(parts) and parts[last + 1].startswith("It ")
    return " ".join(parts[first:last + 1])


def library():
    """The public functions and classes of each module of the library, with their docstrings."""
    found = []
    for path in sorted(Path("vae_lib").glob("[!_]*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        members = [member(node) for node in tree.body
                   if isinstance(node, ast.FunctionDef | ast.ClassDef) and node.name[0] != "_"]
        found.append({"name": path.stem, "doc": words(tree), "members": members})
    return found


def member(node):
    """A function or class as Sphinx wants it."""
    if isinstance(node, ast.FunctionDef):
        return {"kind": "function", "signature": f"{node.name}({ast.unparse(node.args)})", "doc": words(node)}
    made = [part for part in node.body if isinstance(part, ast.FunctionDef) and part.name == "__init__"]
    given = ast.unparse(made[0].args).removeprefix("self").removeprefix(", ") if made else ""
    return {"kind": "class", "signature": node.name + (f"({given})" if given else ""), "doc": words(node)}


def words(node):
    """A docstring as Markdown: its stars are no emphasis, its indented lines stand as they are."""
    text = textwrap.dedent(ast.get_docstring(node) or "")
    return re.sub(r"(?m)^(?! {4})(.*)$", lambda line: re.sub(r"([*_|<\[])", r"\\\1", line[1])
                  if "`" not in line[1] else line[1].replace("*", r"\*"), text)
