"""The lecturer's page in Markdown, its lectures minute by minute: `python -m course.lectures` prints it.

Its words stand in web/lectures.md. What stands elsewhere is taken from there by the functions below: headings,
questions, exercises, known mistakes, times, and lines that the pages print. A reference to what is not there fails.
"""

import ast
import functools
import math
import re
from pathlib import Path

import nbformat
from jinja2 import Environment, StrictUndefined

from course import exercises, pages
from course.slide_blocks import slug
from vae_lib import answers
from vae_lib.widgets import slider

TEMPLATE = Path(__file__).parent / "web" / "lectures.md"
VOTE = re.compile(r"<b>Predict, then run:</b>(.+?)</summary>.+?<summary>Answer</summary>\s+(\w)\)(.+?)</details>",
                  re.DOTALL)


@functools.cache
def page(number):
    """Path and notebook of the first page whose file name begins so, such as "02" or "00_vae"."""
    path = pages.paths((number,))[0]
    return path, nbformat.read(path, as_version=4)


def sources(number, kind):
    """The sources of a page's cells of one kind."""
    return [cell.source for cell in page(number)[1].cells if cell.cell_type == kind]


def the_one(what, found, *words):
    """Of some texts the one that holds all these words, its white space as single blanks."""
    found = [" ".join(text.split()) for text in found]
    hits = [text for text in found if all(each in text for each in words)]
    if len(hits) != 1:
        raise ValueError(f"{what}: wanted words of one text, got {' and '.join(map(repr, words))}, which {len(hits)} "
                         f"of these hold: {found}")
    return hits[0]


def section(number, heading=None):
    """A link to a section of a page, or to the page."""
    path, notebook = page(number)
    if heading is None:
        return f"[{number[:2]} · {exercises.question(notebook)}]({path.name})"
    headings = re.findall(r"(?m)^## (.+)$", "\n\n".join(sources(number, "markdown")))
    if heading not in headings:
        raise ValueError(f"section of page {number}: wanted one of {headings}, got {heading!r}")
    return f"[{heading}]({path.name}#{heading.replace(' ', '-')})"


def taught(number, heading):
    """A link to a section of a page, and one to its slides in the built site."""
    stem = page(number)[0].stem
    return f'{section(number, heading)} (<a href="../slides/{stem}.html#/{slug(heading)}">slides</a>)'


@functools.cache
def entries(number):
    """File name and exercises of a page."""
    path = page(number)[0]
    solutions = nbformat.read(path.parent / "solutions" / path.name, as_version=4)
    return path.name, {entry.number: entry for entry in exercises.entries(solutions)}


def exercise(number, text="[{0.number} {0.title}]({link})"):
    """A link to an exercise, or another text about it."""
    name, found = entries(number.partition(".")[0].zfill(2))
    if number not in found:
        raise ValueError(f"exercise: wanted one of {', '.join(found)}, got {number!r}")
    anchor = f"{number}-{found[number].title.replace(' ', '-')}"
    return text.format(found[number], link=f"exercises/{name}#{anchor}")


def homework(*numbers):
    """A list of exercises, with their kinds and minutes."""
    lines = [f"- {exercise(number)}: {exercise(number, '{0.kind}, {0.minutes} minutes')}" for number in numbers]
    minutes = sum(int(exercise(number, "{0.minutes}")) for number in numbers)
    return "\n".join([f"At home, {minutes} minutes:", "", *lines])


def mistake(number, words):
    """What `answer` says of a known mistake, found by some of its words."""
    link = exercise(number, "[exercise {0.number}]({link})")
    messages = [message for message, _ in answers.exercises(number.partition(".")[0])[number].mistakes]
    return f"“{the_one(f'mistake of {number}', messages, words)}” ({link})"


def votes(number):
    """The questions to predict of a page: [question, right letter, answer], each on one line."""
    found = VOTE.findall("\n".join(sources(number, "markdown")))
    return [[" ".join(text.split()) for text in each] for each in found]


def vote(number, words):
    """A question to predict, found by some of its words, with the right letter."""
    letters = {question: letter for question, letter, _ in votes(number)}
    question = the_one(f"vote of page {number}", letters, words)
    return f"**Vote:** {question} ({letters[question]})"


def reason(number, words):
    """A sentence from the answers to a page's questions, found by some of its words."""
    found = [sentence for *_, answer in votes(number) for sentence in re.split(r"(?<=[.?!]) (?=[A-Z(])", answer)]
    return the_one(f"answers of page {number}", found, words)


def printed(number, *words):
    """A line that a page prints, or that describes a picture, found by some of its words."""
    outputs = [output for cell in page(number)[1].cells for output in cell.get("outputs", ())]
    texts = [output.get("text") or output.get("data", {}).get("text/plain", "") for output in outputs]
    lines = [line for text in texts for line in text.splitlines()]
    return f"`{the_one(f'output of page {number}', lines, *words)}`"


def still(number, value, words=""):
    """One of the pictures of a page's explorer that stand where no kernel runs, by its value, and words of its text."""
    texts = [output.data["text/plain"] for cell in page(number)[1].cells for output in cell.get("outputs", ())
             if output.output_type == "execute_result"]
    lines = [line for text in texts for line in text.splitlines()]
    the_one(f"stills of page {number}", lines, f"{value}: ", words)
    return f"`{value}`" + f" (`{words}`)" * bool(words)


def sliders(number, **values):
    """Where to put sliders of a page's explorer."""
    calls = (node for source in sources(number, "code") if "Explorer(" in source for node in ast.walk(ast.parse(source))
             if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "Explorer")
    controls = {option.arg: option.value for call in calls for option in call.keywords
                if isinstance(option.value, ast.Tuple) and option.arg != "stills"}
    for name, value in values.items():
        if name not in controls:
            raise ValueError(f"slider of page {number}: wanted one of {', '.join(controls)}, got {name!r}")
        control = slider(name, ast.literal_eval(controls[name]))
        steps = (value - control.min) / control.step
        if not (control.min <= value <= control.max and math.isclose(steps, round(steps), abs_tol=1e-6)):
            raise ValueError(f"slider {name} of page {number}: wanted {control.min} to {control.max} in steps of "
                             f"{control.step}, got {value}")
    return ", ".join(f"`{name}` {value:g}" for name, value in values.items())


def time(number, what):
    """From a page's head: the time it takes to "run" or to "read"."""
    return re.search(rf"\*Time on a laptop CPU:\*.*?([\w ]+) to {what}", sources(number, "markdown")[0])[1].strip()


def clock():
    """A function that lays lengths end to end: 5 and then 10 minutes are 0–5 and 5–15."""
    ends = [0]

    def span(minutes):
        ends.append(ends[-1] + minutes)
        return f"{ends[-2]}–{ends[-1]}"
    return span


def render():
    """The page in MyST Markdown, with links as the notebooks have them. What is taken from elsewhere may stand in a
    table: its bars are escaped."""
    environment = Environment(undefined=StrictUndefined, finalize=lambda text: text.replace("|", r"\|"))
    environment.globals |= {each.__name__: each for each in (
        section, taught, exercise, homework, mistake, vote, reason, printed, still, sliders, time, clock)}
    return environment.from_string(TEMPLATE.read_text(encoding="utf-8")).render() + "\n"


if __name__ == "__main__":
    print(render(), end="")
