"""The site's table of symbols and its glossary, from the tables and sentences of the notebooks."""

import re
from functools import cache
from pathlib import Path

from course import pages
from course.exercises import SHORT

TERMS = Path("course/web/terms.txt")
LINE = re.compile(r"(.+?)(?: = (.+?))?(?: @ (\w+))?(?: -(\d))?(?: \+(\d))?")
SYMBOLS = "## Names, shapes and signs"


def anchor(heading):
    """The anchor of a heading as JupyterLab names it, but without formulas, which Sphinx leaves out."""
    return re.sub(r"\$[^$]+\$", "", heading).strip().replace(" ", "-")


@cache
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
    """The terms of terms.txt in alphabetical order, each with what introduces it and a link to the place."""
    return sorted(map(find, TERMS.read_text(encoding="utf-8").splitlines()), key=lambda found: found[0].lower())


def find(line):
    """A term, the sentence of the pages in which it first stands in italics or bold, and a link to the place.

    A line of terms.txt is `term = words @ page -1 +1`: the words that are in italics, the page to look at, and how many
    more sentences are wanted before and after. All but the term may be left out."""
    term, words, number, before, after = LINE.fullmatch(line).groups()
    mark = re.compile(rf"(?<!\*)(\*\*?){re.escape(words or term)}\1(?!\*)".replace(r"\ ", r"\s+"), re.IGNORECASE)
    for path in pages.paths((number,) if number else ()):
        equation, texts = "", passages(path)
        for i, (heading, text) in enumerate(texts):
            equation = (pages.TAG.findall(text) or [equation])[-1]
            if mark.search(text) and path.name != SHORT:
                block = next(part for part in re.split(r"\n(?=- |\d+\. |\| )", whole(texts, i)) if mark.search(part))
                said = sentences(block, mark, int(before or 0), int(after or 0))
                said = re.sub(r"^This is ", f"({equation}) is ", said)
                return term, re.sub(r"\]\((?=[\w/]+\.ipynb)", "](notebooks/", said), place(path, heading)
    raise ValueError(f"terms.txt: no page has *{words or term}* in italics")


def whole(texts, i):
    """A paragraph, with the formula on its own line that it ends in or goes on from."""
    text = texts[i][1]
    if text[-1] not in ".?!" and i + 1 < len(texts):
        text = f"{text} {inline(texts[i + 1][1])}"
    if text[0].islower():
        text = f"{inline(texts[i - 1][1])}, {text}"
    return text


def inline(block):
    """The first part of a formula on its own line as a formula in a sentence; of other text, nothing."""
    if not block.startswith("$$"):
        return ""
    formula = re.split(r"(?<!:)\\qquad", pages.TAG.sub("", block.strip("$")))[0]
    return f"${' '.join(formula.split()).rstrip(' .,;:')}$"


def sentences(block, mark, before=0, after=0):
    """The sentence of a block that a pattern marks; with those beside it, where a pronoun begins the second of two."""
    if block.startswith("|"):
        symbol, _, meaning, *_ = (cell.strip() for cell in block.strip(" |").split("|"))
        return f"{symbol}: {meaning}"
    block = " ".join(re.sub(r"^(- |\d+\. )", "", block).split())
    parts = re.split(r"(?<=[.?!])\s+(?=[A-Z$`*])", block)
    first = last = next(i for i, part in enumerate(parts) if mark.search(part))
    first -= first > 0 and parts[first].startswith(("This ", "These ", "It ", "For VAEs it", "To average it"))
    last += last + 1 < len(parts) and parts[last + 1].startswith("It ")
    return " ".join(parts[max(0, first - before):last + after + 1])
