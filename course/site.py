"""The course as a site that opens by double click: `python -m course.site` builds build/site from the pages.

Sphinx turns the notebooks into pages as they are stored; nothing is executed. What is no notebook comes from README,
from the notebooks' tables and checks and from the library's docstrings: see the templates in course/web. With --pdf
Chromium also prints each page into build/site/pdf, which takes some minutes.
"""

import ast
import importlib
import re
import shutil
import sys
import textwrap
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from playwright.sync_api import sync_playwright
from sphinx.cmd.build import build_main

from course import pages
from course.browser import chromium
from course.lectures import render as lectures_page

WEB = Path("course/web")
SYMBOLS = "## Names, shapes and signs"
EXTRAS = (("slides", "slides/index.html", "one deck for each page."),
          ("live", "live.html", "pictures that move, without a kernel."))


def anchor(heading):
    """The anchor of a heading as JupyterLab names it, but without formulas, which Sphinx leaves out."""
    return re.sub(r"\$[^$]+\$", "", heading).strip().replace(" ", "-")


# What the pages that are no notebooks say

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
        for heading, text in passages(path):
            if mark.search(text) and path.name != "00_vae_in_half_an_hour.ipynb":
                block = next(part for part in re.split(r"\n(?=- |\d+\. |\| )", text) if mark.search(part))
                block = " ".join(re.sub(r"^(- |\d+\. )", "", block).split())
                parts = re.split(r"(?<=[.?!])\s+(?=[A-Z$`*])", block)
                sentence = next((part for part in parts if mark.search(part)), block)
                return term, re.sub(r"\]\((?=[\w/]+\.ipynb)", "](notebooks/", sentence), place(path, heading)
    raise ValueError(f"terms.txt: no page has *{term}* in italics")


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


# Building

def stage(source, extras=()):
    """Copy the notebooks, and write the other pages from their templates."""
    shutil.rmtree(source, ignore_errors=True)
    left = shutil.ignore_patterns(".ipynb_checkpoints", "*.py", "*.cfg", "*.md")
    for name in ("notebooks", "figures"):
        shutil.copytree(name, source / name, ignore=left)
    editions = {name: pages.paths(folder=pages.FOLDER / name) for name in ("exercises", "solutions")}
    known = {**readme(), "pages": pages.paths(), "extras": extras, "rows": ledger(), "symbols": symbols(),
             "terms": terms(), "modules": library()}
    templates = Environment(loader=FileSystemLoader(WEB), undefined=StrictUndefined, keep_trailing_newline=True)
    for name in ("index", "ledger", "notation", "library"):
        (source / f"{name}.md").write_text(templates.get_template(f"{name}.md").render(known), encoding="utf-8")
    for name, found in editions.items():
        text = templates.get_template("edition.md").render(title=name.capitalize(), found=found)
        (source / f"{name}.md").write_text(text, encoding="utf-8")
    lectures = re.sub(r"\]\(([^)\s]+)\)", lambda link: f"]({anchor(link[1]).rstrip('-')})", lectures_page())
    (source / "notebooks/lectures.md").write_text(lectures, encoding="utf-8")


def build(folder="build", extras=(), pdf=False):
    """Build folder/site anew, with links to the extras, and return Sphinx's status: a warning is an error."""
    folder = Path(folder).resolve()
    site, source = folder / "site", folder / "site-source"
    shutil.rmtree(site, ignore_errors=True)
    stage(source, extras)
    return build_main(["-b", "html", "-c", str(WEB), "-d", str(folder / "site-doctrees"), "-E", "-j", "auto", "-q",
                       "-W", "--keep-going", "-D", f"pdf={int(pdf)}", str(source), str(site)])


def add(extras, site):
    """Write the decks and the live page into a site."""
    for name, address, _ in extras:
        module = importlib.import_module(f"course.{name}")
        if name == "slides":
            module.main(folder=site / "slides")
        else:
            module.build(site / address)


def print_pdfs(site):
    """Print each page of a site into its folder pdf, by Chromium."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium(), args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_page(color_scheme="light")
        for path in sorted([*site.glob("*.html"), *site.glob("notebooks/**/*.html")]):
            if path.name in ("search.html", "genindex.html", "py-modindex.html", "live.html"):
                continue
            page.goto(path.as_uri())
            page.evaluate("window.MathJax?.startup.promise.then(() => null)")
            page.pdf(path=(site / "pdf" / path.relative_to(site)).with_suffix(".pdf"), format="A4")
        browser.close()


def main(*options):
    """Build the site, with --pdf also its printed pages; returns 0 when nothing was amiss."""
    if set(options) - {"--pdf"}:
        print(__doc__)
        return 0 if options[0] in ("-h", "--help") else 2
    if "--pdf" in options and chromium() is None:
        raise SystemExit("site: --pdf wants Chromium or Chrome, and found neither")
    site, extras = Path("build/site").resolve(), [each for each in EXTRAS if Path(f"course/{each[0]}.py").exists()]
    status = build(extras=extras, pdf="--pdf" in options)
    add(extras, site)
    if "--pdf" in options:
        print_pdfs(site)
    print("site: build/site/index.html")
    return status


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
