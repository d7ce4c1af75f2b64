"""What the pages of the site say that are no notebooks: index, ledger, the library; the glossary has its own module.

All of it comes from README, from the notebooks' checks, and from the library's docstrings.
"""

import ast
import re
import textwrap
from pathlib import Path

from course import glossary, pages

WEB = Path("course/web")


def known():
    """What the templates in course/web may name."""
    return {**readme(), "pages": pages.paths(), "rows": ledger(), "symbols": glossary.symbols(),
            "terms": glossary.terms(), "modules": library()}


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


def library():
    """The public functions and classes of each module of the library, with their docstrings."""
    found = []
    modules = {path.stem: path for path in Path("vae_lib").glob("[!_]*.py")}
    modules |= {path.parent.name: path for path in Path("vae_lib").glob("*/__init__.py")}
    for name, path in sorted(modules.items()):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        members = [member(node) for node in tree.body
                   if isinstance(node, ast.FunctionDef | ast.ClassDef) and node.name[0] != "_"]
        found.append({"name": name, "doc": words(tree), "members": members})
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
