"""How a question of the exam is written and drawn (task `exam`); the questions are in question_bank.py.

A template is a function of a generator under `@asks(page, section, points)`. Its docstring is the question, then `---`,
then the solution; <name> stands for the number of that name. It returns a Draw: numbers, the right answer, and the
answers that known mistakes lead to. Formulas use only what matplotlib, too, can draw: \\frac{1}{2}, \\leq, no \\text.
"""

import inspect
import random
import re
from typing import NamedTuple

import torch

TEMPLATES = []


class Draw(NamedTuple):
    """What a template draws: numbers `given` by name, the right answer, wrong ones, numbers for the solution.

    An answer is a number or, to choose among options, the text of one. `wrong` maps what somebody may have done, in
    words that can stand behind "has", to the answer that follows.
    """

    given: dict
    right: object
    wrong: dict
    steps: dict = {}


class Template(NamedTuple):
    """A question without its numbers: what makes it, the page and section that teach it, its points and its unit.

    A number may be off by `within`, by default 1 %; an integer by nothing.
    """

    make: object
    page: str
    section: str
    points: int
    unit: str
    within: float | None

    @property
    def name(self):
        return self.make.__name__


class Question(NamedTuple):
    """A question with its numbers, in Markdown; a right number may be off by `tolerance`."""

    template: Template
    text: str
    given: dict
    right: float | int | str
    wrong: dict
    options: list
    solution: str
    tolerance: float


def asks(page, section, points, unit="", within=None):
    """Make a function a template of the exam."""
    def add(make):
        TEMPLATES.append(Template(make, page, section, points, unit, within))
        return make
    return add


def draw(template, seed):
    """The question of a template for this seed, the same on every computer; numbers that blur answers are redrawn."""
    rng = random.Random(f"{template.name} {seed}")
    question = None
    while question is None or not is_fair(question):
        given, right, wrong, steps = template.make(rng)
        text, solution = inspect.cleandoc(template.make.__doc__).split("\n---\n")
        names = given | steps | {"right": right}
        right = plain(right, names)
        tolerance = 0 if isinstance(right, int | str) else template.within or 0.01 * abs(right)
        wrong = {why: plain(answer, names) for why, answer in wrong.items()}
        options = shuffled(rng, [right, *wrong.values()]) if isinstance(right, str) else []
        question = Question(template, fill(text, names), given, right, wrong, options, fill(solution, names), tolerance)
    return question


def is_fair(question):
    """Whether all answers differ in print, and a right number can be told from zero and from each wrong one."""
    right, wrong = question.right, list(question.wrong.values())
    if len({shown(answer) for answer in [right, *wrong]}) <= len(wrong):
        return False
    near = 2 * question.tolerance + 1e-9  # not left to the last bits
    return isinstance(right, str) or (abs(right) > 2.5 * near and all(abs(answer - right) > near for answer in wrong))


def plain(answer, names):
    """A text with its numbers filled in; an integer as it is; any other number as float."""
    return fill(answer, names) if isinstance(answer, str) else answer if isinstance(answer, int) else float(answer)


def fill(text, names):
    """The text with each <name> replaced by what it stands for: a negative number in brackets behind + - / or a dot."""
    def put(match):
        value = shown(names[match["name"]])
        bracket = (match["before"] or match["after"]) and value.startswith("-")
        return (match["before"] or "") + (f"({value})" if bracket else value) + match["after"]
    return re.sub(r"(?P<before>[-+/]|\\cdot )?<(?P<name>\w+)>(?P<after>\^?)", put, text)


def shown(value):
    """A value in print: text as it is, lists in brackets, numbers to four digits or two decimals."""
    if isinstance(value, str | int):
        return str(value)
    if isinstance(value, list):
        return "(" + r",\ ".join(f"{{{part}}}" if part[0] == "-" else part for part in map(shown, value)) + ")"
    value = round(float(f"{float(value):.11g}"), 9)  # the last bits depend on the computer
    if abs(value) >= 1e4:
        return f"{value:.0f}"
    return f"{value:.2f}".rstrip("0").rstrip(".") if abs(value) >= 10 else f"{value:.4g}"


def pick(rng, values):
    """One of the values. Of a generator only random() is used, which Python promises never to change."""
    return values[int(rng.random() * len(values))]


def some(rng, num, values):
    return [pick(rng, values) for _ in range(num)]


def shuffled(rng, values):
    return sorted(values, key=lambda _: rng.random())


def grid(low, high, step=0.1):
    """Numbers from low to high that print as they are."""
    return [round(low + i * step, 6) for i in range(round((high - low) / step) + 1)]


def doubles(*values):
    return torch.tensor(values, dtype=torch.float64)


def total(terms):
    """The terms of a sum in print."""
    return "+".join(terms)


def table(*columns):
    """The rows of a Markdown table, numbered."""
    return "\n".join(f"| {number} | {' | '.join(map(shown, row))} |" for number, row in enumerate(zip(*columns), 1))
