"""What stands on slides: the Markdown and the code cells of a page as blocks, its prose thinned.

What a paragraph loses here goes into the speaker's notes; "…" stands there for what the slide shows.
"""

import base64
import io
import math
import re
import struct
from html import escape
from itertools import groupby
from typing import NamedTuple
from urllib.parse import unquote

import mistune
from PIL import Image
from pygments import highlight
from pygments.formatters import HtmlFormatter
from pygments.lexers import PythonLexer

from vae_lib.widgets import HEADING

BUDGET, TITLE_BUDGET = 200, 420  # letters of a paragraph that a slide keeps, and of one that has a slide of its own
FULL = 11  # lines after which a slide takes no further step, of about 16 that it holds
SHORT = 5  # lines that are too few for a slide of their own
LEANS = re.compile(r"\s*(It|Its|They|Their|That|This|These|Those|So|Then|And|But|Such|Both)\b")  # on what stands before
PREDICT = re.compile(r"<details><summary><b>(.+?)</b>(.+?)</summary>(.+?)<details><summary>(Answer)</summary>(.+?)"
                     r"</details>\s*</details>\s*", re.DOTALL)
FOLDED = re.compile(r"\s*<details><summary>Answer</summary>((?:(?!</?details>).)+)</details>\s*\Z", re.DOTALL)
PYTHON, SPANS = PythonLexer(), HtmlFormatter(nowrap=True)
COLOURED = {"k", "kn", "kc", "ow", "nf", "nc", "s", "s1", "s2", "sa", "si", "mi", "mf", "c1"}


class Block(NamedTuple):
    """A piece that is not divided while a slide has room for it. kind: text, equation, list, table, code, ..."""

    kind: str
    html: str
    note: str = ""  # what the speaker says beside it
    lines: float = 0.0  # its height, roughly


# Markdown

class Html(mistune.HTMLRenderer):
    """HTML in which a link to a page leads to its deck, and one to an exercise is plain text."""

    def link(self, text, url, title=None):
        found = re.fullmatch(r"(\w*)(?:\.ipynb)?(?:#(.+))?", url)
        if url.startswith("http"):
            return super().link(text, url, title)
        if not found or not (found[1] or found[2]):
            return text
        page, section = found[1] and f"{found[1]}.html", found[2] and f"#/{slug(unquote(found[2]))}"
        return f'<a href="{page}{section or ""}">{text}</a>'


def markdown():
    """A parser whose inline formulas may go over the end of a line."""
    parser = mistune.create_markdown(renderer=None, plugins=["math", "table"])
    parser.inline.register("inline_math", r"\$(?!\s)(?P<math_text>[^$]+?)(?<!\s)\$",
                           lambda inline, match, state: state.append_token(
                               {"type": "inline_math", "raw": match["math_text"]}) or match.end(), before="link")
    return parser


PARSE, RENDER = markdown(), mistune.create_markdown(renderer=Html(escape=False), plugins=["math", "table"]).renderer


def render(tokens):
    return RENDER(tokens, mistune.BlockState())


def slug(heading):
    """The name of a section in a deck's addresses, from its heading or from the anchor that Jupyter makes of it."""
    return re.sub(r"\W+", "-", heading).strip("-").lower()


def plain(tokens):
    """The words of tokens, formulas and code as they are typed."""
    return "".join(token.get("raw", " ") if "children" not in token else plain(token["children"]) for token in tokens)


def sentences(tokens):
    """The inline tokens of a paragraph, sentence by sentence. A full stop in code or in a formula ends none."""
    found = [[]]
    for token in tokens:
        if found[-1] and re.search(r"[.?!][\")]?\s*$", plain(found[-1][-1:])) and (
                token["type"] == "softbreak" or re.match(r"\s|\Z", token.get("raw", "x"))
                or plain(found[-1][-1:])[-1].isspace()):
            found.append([])
        if token["type"] != "text":
            found[-1].append(token)
            continue
        parts = re.split(r"(?<=[.?!])\s+(?=[^a-z\s])|(?<=[.?!][\")])\s+(?=[^a-z\s])", token["raw"])
        found[-1].append({"type": "text", "raw": parts[0]})
        found += [[{"type": "text", "raw": part}] for part in parts[1:]]
    return [sentence for sentence in found if plain(sentence).strip()]


def thin(tokens, leads=False, budget=BUDGET):
    """The sentences of a paragraph, in runs: pairs (whether its slide keeps them, their inline tokens).

    A short paragraph stays. Of a longer one: the key sentences, which are bold; the last if it leads to a formula, to
    a list or to code; the first; then those that define a term, and the others in order, while there is room. A
    sentence that leans on the one before it brings that along."""
    found = sentences(tokens)

    def rank(i):
        kinds = [token["type"] for token in found[i] if token["type"] in ("strong", "emphasis")]
        return ("strong" not in kinds, not (leads and i == len(found) - 1), i > 0, not kinds, i)

    kept, length = set(), 0
    for i in sorted(range(len(found)), key=rank):
        length += len(plain(found[i]))
        if kept and length > budget and not (i == 0 and length < 2 * budget):
            break
        kept.add(i)
    for i in range(len(found) - 1, 0, -1):
        if i in kept and LEANS.match(plain(found[i])):
            kept.add(i - 1)
    space = {"type": "text", "raw": " "}
    return [(stays, [token for i in run for token in (*found[i], space)])
            for stays, run in groupby(range(len(found)), key=kept.__contains__)]


def parted(runs):
    """What a slide shows of a paragraph's runs, and what is left to say: both HTML. Behind the n-th <i> of the second
    stands the n-th <span> of the first."""
    if all(stays for stays, _ in runs):
        return "".join(render(run) for _, run in runs), ""
    return ("".join(f"<span>{render(run)}</span>" for stays, run in runs if stays),
            "".join("<i>… </i>" if stays else render(run) for stays, run in runs))


def height_of_text(tokens):
    return 0.6 + -(-len(re.sub(r"\\[a-z]+|[{}$]", "", plain(tokens))) // 90)


def text(tokens, leads=False, budget=BUDGET):
    """A paragraph's block: what `thin` leaves, and the rest for the speaker."""
    runs = thin(tokens, leads, budget)
    shown, said = parted(runs)
    return Block("text lead" if leads else "text", f"<p>{shown}</p>", said and f"<p>{said}</p>",
                 height_of_text([token for stays, run in runs if stays for token in run]))


def listed(token, whole):
    """A list's block: of each item what `thin` leaves, unless it is wanted whole."""
    items = [thin(item["children"][0]["children"], budget=math.inf if whole else BUDGET // 2)
             for item in token["children"]]
    shown, said = zip(*map(parted, items), strict=True)
    tag, height = "ol" if token["attrs"]["ordered"] else "ul", 0
    for item in items:
        height += height_of_text([each for stays, run in item if stays for each in run])
    return Block("list", f"<{tag}>{''.join(f'<li>{item}</li>' for item in shown)}</{tag}>",
                 "".join(f"<p>{item}</p>" for item in said if item), height)


def blocks_of_text(source, leads=False, whole=False):
    """The blocks of Markdown. leads: code follows; whole: paragraphs and lists are kept as they are."""
    tokens, found = [token for token in PARSE(source) if token["type"] != "blank_line"], []
    for i, token in enumerate(tokens):
        kind = token["type"]
        if kind == "heading":
            kind = "heading" if token["attrs"]["level"] < 3 else "subheading"
            found.append(Block(kind, render(token["children"]), slug(plain(token["children"])), 2))
        elif kind == "paragraph":
            follows = tokens[i + 1]["type"] not in ("paragraph", "heading") if i + 1 < len(tokens) else leads
            alone = [each["type"] for each in tokens[i - 1:i + 2:2]] == ["heading", "heading"]
            found.append(text(token["children"], follows, math.inf if whole else TITLE_BUDGET if alone else BUDGET))
        elif kind == "block_math":
            found.append(Block("equation", render([token]), lines=1.5 + 1.2 * token["raw"].count(r"\\")))
        elif kind == "list":
            found.append(listed(token, whole))
        elif kind == "block_code":
            found.append(lines_of("code", token["raw"].rstrip("\n"), coloured(token["raw"])))
        elif kind == "table":
            found.append(Block("table", render([token]), lines=1.2 * len(token["children"][1]["children"]) + 1))
        else:
            raise ValueError("slides: wanted text, a list, a table, a formula or code, "
                             f"got {kind}: {plain([token])[:80]!r}")
    return found


def prediction(source, leads=False):
    """The blocks of text with a folded "Predict, then run": one slide asks and gives the options, the next answers."""
    found = PREDICT.search(source)
    if not found:
        raise ValueError(f'details: wanted <b>Predict, then run:</b>, options and a folded Answer, got {source[:80]!r}')
    before, after = blocks_of_text(source[:found.start()]), blocks_of_text(source[found.end():], leads)
    turn, back = Block("break", "", lines=FULL), Block("subheading", "")
    title, question, options, answer, reply = (part.strip() for part in found.groups())
    asked = [block._replace(kind="list options") for block in blocks_of_text(options, whole=True)]
    right = re.match(r"\w\)", reply)
    marked = [block._replace(html=block.html.replace(f"<li>{right[0]}", f'<li class="right">{right[0]}'), note="")
              for block in asked] if right else []
    opening = [*before, *[turn][:len(before)], Block("subheading", title.rstrip(":"))]
    told = next((k for k in range(len(before), 0, -1) if before[k - 1].kind == "heading"), 0)
    if sum(block.lines for block in before[told:]) < SHORT:
        opening = [*before[:told], opening[-1], *before[told:]]
    parted = [turn, back] if leads or sum(block.lines for block in after) > SHORT else []
    return [*opening, *blocks_of_text(question[0].upper() + question[1:], whole=True), *asked,
            turn, Block("subheading", answer), *marked, *blocks_of_text(reply), *parted, *after]


# Code and its outputs

def blocks_of_code(cell):
    """A cell's code, unless it only draws, what it printed, and its pictures."""
    draws, found = "figure" in cell.metadata.get("tags", ()), []
    if not draws:
        source = cell.source.replace("\n\n\n", "\n\n")
        found.append(lines_of("code", source, coloured(source)))
    for output in cell.outputs:
        if output.output_type == "stream":
            found.append(lines_of("output", output.text.rstrip("\n"), escape(output.text.rstrip("\n"))))
        elif "image/png" in output.get("data", {}):
            found += pictures(output)
        elif "it/s]" not in output.get("data", {}).get("text/plain", ""):  # which a progress bar leaves
            raise ValueError(f"output: wanted printed text or a picture, got {output.output_type}")
    return found


def coloured(source):
    """Code in HTML, with spans for what slides.css colours only: browsers measure the decks faster without the rest."""
    html = highlight(source, PYTHON, SPANS).rstrip("\n")
    return re.sub(r'<span class="(\w+)">([^<]*)</span>', lambda span: span[span[1] not in COLOURED and 2], html)


def lines_of(kind, words, html):
    """A block of typed lines, which tells the style sheet how long the longest is."""
    lines = words.splitlines()
    return Block(kind, f'<pre style="--letters: {max(map(len, lines))}">{html}</pre>', lines=0.5 + 0.7 * len(lines))


def pictures(output):
    """A figure's picture, or those that an explorer's still puts under each other, each with its alternative text."""
    png, alt = base64.b64decode(output.data["image/png"]), output.data["text/plain"]
    if output.output_type != "execute_result":
        return [picture(png, alt)]
    still, found = Image.open(io.BytesIO(png)), []
    for i, words in enumerate(alt.splitlines()):
        height, tile = still.height // len(alt.splitlines()), io.BytesIO()
        still.crop((0, i * height + HEADING, still.width, (i + 1) * height)).save(tile, format="png")
        name, words = words.split(": ", 1)
        found.append(picture(tile.getvalue(), words, caption=name))
    return found


def picture(png, alt, caption=""):
    """A picture's block. Where a caption names it, its alternative text is shown; else it is said."""
    width, height = struct.unpack(">II", png[16:24])
    data = base64.b64encode(png).decode()
    html = f'<img src="data:image/png;base64,{data}" width="{width}" height="{height}" alt="{escape(alt)}">'
    if caption:
        return Block("picture", f"<p><b>{escape(caption)}</b>: {escape(alt)}</p>{html}", lines=14)
    return Block("picture", html, f"<p><b>Picture:</b> {escape(alt)}</p>", 14)


# Cells

def blocks(cell, follower=None):
    """The blocks of a cell. follower: the cell behind it, to which its last sentence may lead."""
    if cell.cell_type == "code":
        return blocks_of_code(cell)
    leads = follower is not None and follower.cell_type == "code" and "figure" not in follower.metadata.get("tags", ())
    if folded := FOLDED.search(cell.source):
        *found, last = blocks_of_text(cell.source[:folded.start()], leads)
        return [*found, last._replace(note=last.note + said(folded[1]))]
    if "<details>" in cell.source:
        return prediction(cell.source, leads)
    if cell.source.startswith("## Exercises"):
        title, *tables = blocks_of_text(cell.source)[:2]  # none before the page is stored for the first time
        return [title, *(table._replace(note=said(cell.source, "heading", "table")) for table in tables)]
    return blocks_of_text(cell.source, leads, whole=cell.source.startswith("## Summary"))


def said(source, *but):
    """All of a cell's Markdown as notes, but for some kinds of its tokens."""
    return render([token for token in PARSE(source) if token["type"] not in but])


def title_blocks(source):
    """The blocks of a page's first cell: number, question, thinned introduction; where it stands is for the speaker."""
    number, question = re.match(r"# (\w+) · (.+)", source).groups()
    body = [text(token["children"], budget=TITLE_BUDGET) for token in PARSE(source) if token["type"] == "paragraph"]
    body[-1] = body[-1]._replace(note=body[-1].note + said(source, "heading", "paragraph"))
    return [Block("number", number), Block("headline", render(PARSE(question)[0]["children"])), *body]
