"""Slides: a reveal.js deck of each page, from the page's own cells and their stored outputs.

`python -m course.slides [04 ...]` writes build/slides/NN_name.html and an index. Nothing is executed. Here each cell
becomes blocks; course/web/slides.js divides them among slides in the browser that shows them.

A cell's `slide_type` in its metadata says where it stands: `slide` opens a section, `subslide` a slide of it, `-` or
`fragment` continue one, `skip` leaves it out, `notes` puts it into the speaker's notes. Where it is missing,
`default_types` decides.
"""

import re
import shutil
import sys
from pathlib import Path

import nbformat
from jinja2 import Environment, FileSystemLoader

from course import pages
from course.assets import asset
from course.slide_blocks import FULL, PARSE, SHORT, Block, blocks, render, said, title_blocks
from vae_lib.files import write_whole

FOLDER, WEB = Path("build/slides"), Path("course/web")
BORROWED = {"reveal.js": ("sphinx-revealjs", "dist/reveal.js"), "reveal.css": ("sphinx-revealjs", "dist/reveal.css"),
            "notes.js": ("sphinx-revealjs", "notes/notes.js"),
            "mathjax.js": ("sphinx-mathjax-offline", "tex-svg-full.js")}
OPENERS = ("slide", "subslide")


def default_types(cells):
    """The slide_type of each cell of a page.

    A heading opens a section. Text with the code behind it is a step; a step opens a slide, unless the one before has
    room for it or holds only the first words of a section. Short text with nothing or a heading behind it is a remark
    on what stands before. Left out: the cell of imports that opens a page, the text on it, and the references."""
    types, lines, opened = [], 0.0, False
    first = next((i for i, cell in enumerate(cells) if cell.cell_type == "code"), None)
    contents = [blocks(cell) for cell in cells]
    heights = [sum(block.lines for block in content) for content in contents]
    sections = [i for i, cell in enumerate(cells) if cell.source.startswith("## ")]
    for i, cell in enumerate(cells):
        stops = (k for k in range(i + 1, len(cells)) if cells[k].cell_type == "markdown")
        step = range(i, next(stops, len(cells)))
        height, said = sum(heights[k] for k in step), heights[i]
        asks = "<details>" in cell.source
        kinds = ("heading",) if asks else ("heading", "subheading")
        inner = [k for k, block in enumerate(contents[i]) if k and block.kind in kinds]
        if inner:  # the text in front of a heading inside the cell
            said = sum(block.lines for block in contents[i][:inner[0]])
        if i == first:
            kind = "skip"
        elif i == 0 or cell.source.startswith("## "):
            kind = "skip" if cell.source.startswith("## References") else "slide"
        elif first is not None and i < first and i < min(sections, default=0):
            kind = "notes"
        elif cell.cell_type == "code":
            kind = "-"
        elif cell.source.startswith("### ") or i - 1 == first:
            kind = "subslide"
        else:
            remark = (inner or len(step) == 1 and "$$" not in cell.source) and said < SHORT
            opening = opened and lines < SHORT
            room = not asks and lines + height < FULL
            kind = "-" if remark or opening or room else "subslide"
        if cell.cell_type == "markdown" and kind != "notes":
            lines = height - said * bool(inner) if inner or kind in OPENERS else lines + height
            opened = kind == "slide" or bool(inner)
        types.append(kind)
    return types


def slide_types(cells):
    """The slide_type of each cell: as it is stored, else by default."""
    stored = [cell.metadata.get("slideshow", {}).get("slide_type") for cell in cells]
    if all(stored):
        return stored
    return [kind or default for kind, default in zip(stored, default_types(cells), strict=True)]


def groups(cells):
    """The slides that the slide types ask for: (slide or subslide, title, addresses, [(block, its step)])."""
    found, title, step = [], "", 0
    for i, (cell, kind) in enumerate(zip(cells, slide_types(cells), strict=True)):
        if kind == "skip":
            continue
        content = title_blocks(cell.source) if i == 0 else blocks(cell, cells[i + 1] if i + 1 < len(cells) else None)
        step = i if kind == "fragment" else step * (kind == "-")  # cells behind a fragment appear with it
        if kind == "notes":
            found[-1][3].append((Block("aside", "", said(cell.source)), 0))
            continue
        if kind in OPENERS or not found:
            found.append((kind, title, [], []))
        for block in content:
            joins = kind == "-" and block is content[0]
            if block.kind == "break" or block.kind.endswith("heading") and found[-1][3] and not joins:
                found.append(("slide" if block.kind == "heading" else "subslide", title, [], []))
            if block.kind.endswith("heading"):
                title = block.html if block.kind == "heading" else title
                part = f" · {block.html}" if block.kind == "subheading" and block.html else ""
                found[-1] = (found[-1][0], title + part, [*found[-1][2], block.note], found[-1][3])
            elif block.kind != "break":
                found[-1][3].append((block, step))
    return [group for group in found if group[3]]


def columns(found):
    """The groups of a deck, section by section."""
    starts = [i for i, group in enumerate(found) if group[0] == "slide" or i == 0]
    return [found[start:end] for start, end in zip(starts, [*starts[1:], len(found)], strict=True)]


def deck(title, found):
    """The HTML of a deck."""
    template = Environment(loader=FileSystemLoader(WEB), autoescape=True).get_template("slides.html")
    return template.render(title=title, columns=columns(found))


def index(paths):
    """The deck that lists the decks."""
    rows = [re.match(r"# (\w+) · (.+)", nbformat.read(path, as_version=4).cells[0].source).groups() for path in paths]
    table = "".join(f'<tr><td>{number}</td><td><a href="{path.stem}.html">{render(PARSE(question)[0]["children"])}</a>'
                    f"</td></tr>" for path, (number, question) in zip(paths, rows, strict=True))
    keys = ("<p>Space: next slide. Arrow keys: sections to the sides, their slides up and down. O: overview. "
            "F: full screen. S: speaker view. Printed as PDF: add <code>?print-pdf</code> to a deck's address.</p>")
    return deck("Slides", [("slide", "Variational autoencoders: the decks", [], [
        (Block("table", f"<table><tbody>{table}</tbody></table>"), 0), (Block("text", keys), 0)])])


def main(*names, folder=FOLDER):
    """Write the decks of the pages named, or of all, the index and what they share."""
    assets = Path(folder) / "assets"
    assets.mkdir(parents=True, exist_ok=True)
    for name, place in BORROWED.items():
        shutil.copyfile(asset(*place), assets / name)
    for name in ("slides.css", "slides.js"):
        shutil.copyfile(WEB / name, assets / name)
    for path in pages.paths(names):
        cells = nbformat.read(path, as_version=4).cells
        write_whole(Path(folder) / f"{path.stem}.html", deck(cells[0].source.splitlines()[0].lstrip("# "),
                                                             groups(cells)).encode())
        print(f"slides: {folder}/{path.stem}.html", flush=True)
    write_whole(Path(folder) / "index.html", index(pages.paths()).encode())


if __name__ == "__main__":
    main(*sys.argv[1:])
