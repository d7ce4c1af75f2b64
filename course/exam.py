"""A sheet for a written exam and its key, from question_bank.py: `python -m course.exam --seed 7 --pages 02,04`.

It writes sheet.md, sheet.html, key.md and key.html into build/exam. One seed gives one sheet, on every computer. The
HTML stands alone: its formulas are drawings, made by matplotlib.
"""

import argparse
import functools
import html
import itertools
import random
import re
from pathlib import Path

import mistune
from matplotlib.font_manager import FontProperties
from matplotlib.path import Path as Outline
from matplotlib.textpath import TextPath

from course.question_bank import TEMPLATES
from course.questions import draw, shown, shuffled
from vae_lib.files import write_whole

FOLDER = Path("build/exam")
PAGES = sorted({template.page[:2] for template in TEMPLATES})
LINE, ROOM = r"\_" * 18, '<div style="height: 30mm"></div>'
STROKES = {Outline.MOVETO: "M", Outline.LINETO: "L", Outline.CURVE3: "Q", Outline.CURVE4: "C", Outline.CLOSEPOLY: "Z"}
STYLE = """
@page { size: A4; margin: 18mm }
body { font: 11.5pt/1.45 "STIX Two Text", "Times New Roman", "Liberation Serif", serif; max-width: 174mm; margin: auto }
h1 { font-size: 17pt } h2 { font-size: 12.5pt; margin: 1.4em 0 .4em }
section { break-inside: avoid }
table { border-collapse: collapse; margin: .8em 0 } th, td { border: 1px solid #888; padding: .15em .7em }
pre, code { font: 10pt "DejaVu Sans Mono", Consolas, monospace } pre { background: #f3f3f3; padding: .5em }
ul { margin: .4em 0; padding-left: 1.4em } svg { overflow: visible } .unbroken { white-space: nowrap }
@media screen { body { padding: 1em } }
"""


def chosen(pages, number, seed):
    """So many templates of these pages, as evenly over the pages as it goes, in the order of the course."""
    rng = random.Random(f"sheet {seed}")
    piles = [shuffled(rng, [template for template in TEMPLATES if template.page[:2] == page])
             for page in shuffled(rng, pages)]
    dealt = [template for round in itertools.zip_longest(*piles) for template in round if template]
    return sorted(dealt[:number], key=TEMPLATES.index)


def heading(title, questions, seed):
    """The head of sheet or key, with the seed that brings both back."""
    points = sum(question.template.points for question in questions)
    return f"# {title}\n\nSeed {seed} · {len(questions)} questions · {points} points\n"


def asked(number, question):
    """A question as its reader sees it, with its options."""
    points = question.template.points
    options = "\\\n".join(f"☐ **{letter}** {option}" for letter, option in zip("ABCD", question.options))
    return "\n\n".join([f"## {number}. ({points} points)", question.text, *filter(None, [options])])


def sheet(questions, seed):
    """The sheet in Markdown, without any answer."""
    parts = [heading("Variational autoencoders: exam", questions, seed),
             f"**Name:** {LINE}{LINE} **Points:** {LINE}", "",
             "Logarithms are natural. Give numbers to four significant digits, counts of pixels, rows and parameters "
             "exactly. Of the options A to D one is right.", ""]
    for number, question in enumerate(questions, 1):
        room = [] if question.options else [ROOM, "", f"Answer: {LINE} {question.template.unit}", ""]
        parts += ["<section>", "", asked(number, question), "", *room, "</section>", ""]
    return "\n".join(parts)


def answer(question):
    """The right answer, how far it may be off, and the section that teaches it."""
    if question.options:
        right = f"**Answer: {'ABCD'[question.options.index(question.right)]}**"
    else:
        right, off = question.right, question.tolerance
        band = f"accept ${shown(right - off)}$ to ${shown(right + off)}$" if off else "exactly"
        right = f"**Answer: ${shown(right)}$** {question.template.unit}".rstrip() + f" ({band})"
    _, page, section = question.template[:3]
    link = f"../../notebooks/{page}.ipynb#{section.replace(' ', '-')}"
    return f"{right}. Page {page[:2]}, [{section}]({link})"


def mistake(question, why, wrong):
    """What stands behind a wrong answer."""
    if question.options:
        return f"- Whoever ticks {'ABCD'[question.options.index(wrong)]} has {why}."
    return f"- Whoever writes ${shown(wrong)}$ has {why}."


def key(questions, seed, pages):
    """The key in Markdown: the sheet's questions with answers, solutions and known mistakes."""
    wish = "" if pages == PAGES else f" --pages {','.join(pages)}"
    parts = [heading("Variational autoencoders: key to the exam", questions, seed),
             f"`python3 run.py exam --seed {seed}{wish} --questions {len(questions)}` writes sheet and key.", ""]
    for number, question in enumerate(questions, 1):
        mistakes = [mistake(question, why, wrong) for why, wrong in question.wrong.items()]
        parts += ["<section>", "", asked(number, question), "", answer(question), "", question.solution, "",
                  "Known mistakes:", "", *mistakes, "", "</section>", ""]
    return "\n".join(parts)


@functools.cache
def drawn(tex):
    """A formula as SVG, in the size of the text around it; its source is the text for who cannot see it."""
    outline = TextPath((0, 0), f"${tex}$", size=1000, prop=FontProperties(math_fontfamily="stix"))
    left, low, width, height = outline.get_extents().bounds
    width += 40  # some air behind an italic letter
    strokes = (STROKES[code] + ("" if code == Outline.CLOSEPOLY else " ".join(f"{value:.0f}" for value in points))
               for points, code in Outline(outline.vertices * [1, -1], outline.codes).iter_segments(simplify=False))
    return (f'<svg xmlns="http://www.w3.org/2000/svg" role="img" aria-label="{html.escape(tex)}" '
            f'viewBox="{left:.0f} {-low - height:.0f} {width:.0f} {height:.0f}" '
            f'style="width: {width / 1000:.3f}em; height: {height / 1000:.3f}em; vertical-align: {low / 1000:.3f}em">'
            f'<path d="{"".join(strokes)}" /></svg>')


def page(title, markdown):
    """Markdown as an HTML document that needs no other file and no network."""
    renderer = mistune.HTMLRenderer(escape=False)
    render = mistune.create_markdown(renderer=renderer, plugins=["table", "math"])
    renderer.register("inline_math", lambda _, tex: drawn(tex))
    body = re.sub(r"(<svg[^>]+><path[^>]+></svg>)([.,;:?!)]+)", r'<span class="unbroken">\1\2</span>', render(markdown))
    return (f'<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8" />\n<title>{title}</title>\n'
            f"<style>{STYLE}</style>\n</head>\n<body>\n{body}</body>\n</html>\n")


def pages_of(text):
    """The pages of a text such as 02,04."""
    pages = sorted(set(text.split(",")))
    for name in pages:
        if name not in PAGES:
            raise argparse.ArgumentTypeError(f"wanted some of {', '.join(PAGES)}, with commas between, got {name!r}")
    return pages


def main(args=None, folder=FOLDER):
    """Write a sheet and its key."""
    parser = argparse.ArgumentParser(prog="run.py exam", description="Write a sheet for an exam, and its key.")
    parser.add_argument("--seed", type=int, default=0, help="another seed, other questions and numbers (default: 0)")
    parser.add_argument("--pages", type=pages_of, default=PAGES, help="such as 02,04 (default: all)")
    parser.add_argument("--questions", type=int, default=8, help="how many (default: 8)")
    given = parser.parse_args(args)
    most = sum(template.page[:2] in given.pages for template in TEMPLATES)
    if not 1 <= given.questions <= most:
        parser.error(f"argument --questions: wanted 1 to {most}, as many as pages {', '.join(given.pages)} have, "
                     f"got {given.questions}")
    questions = [draw(template, given.seed) for template in chosen(given.pages, given.questions, given.seed)]
    texts = {"sheet": sheet(questions, given.seed), "key": key(questions, given.seed, given.pages)}
    files = {f"{name}.md": text for name, text in texts.items()}
    files |= {f"{name}.html": page(f"Exam, {name} {given.seed}", text) for name, text in texts.items()}
    for name, text in files.items():
        write_whole(Path(folder, name), text.encode())
    print(f"{len(questions)} questions, {sum(question.template.points for question in questions)} points: "
          f"{', '.join(str(Path(folder, name)) for name in files)}")


if __name__ == "__main__":
    main()
