"""Answers to the exercises: `answer("2.1", yours)` says whether it is written, right, or which mistake it is.

The records stand in `vae_lib/exercises/page_02.py`, one `Exercise` each:

    kl = Exercise("4.1", cases=[(0.0, 1.0), (0.5, 2.0)])

    @kl.right
    def _(mu, sigma):
        return quadrature(...)

    @kl.mistake("This is the KL with sigma where sigma squared belongs: at the prior it is 1/2 and should be 0.")
    def _(mu, sigma):
        return ...
"""

import copy
import importlib.util
import re
from contextlib import contextmanager

import torch

from vae_lib.comparison import Unwritten, brief, close, comparable, in_words, nearly, relation, same, shaped
from vae_lib.guards import not_negative

TYPED = 5e-4  # how far a mistake that is typed with four digits may be off


class Exercise:
    """One exercise: its right answer, by a route of its own, and the mistakes that are known.

    number: page and place, as in "2.1" or "A.1"; the short page 00 is "S". cases: None for an exercise whose answer is
    a value; else tuples of arguments, at each of which the reader's function must return what the right one returns.
    rtol: how far each entry of an answer may be off, as a share of itself, or of 1 % of the largest one if that is
    more; 0.001 for values, which are typed, and 1e-6 for functions, unless told otherwise. gradient: position of an
    argument, or several; the gradients of what the function returns, summed, with respect to these tensors must agree
    as well. A value may be a number, a tensor, a list of numbers or a letter.

    Raises ValueError for a number that is none, for no cases, and unless 0 <= rtol <= 0.005."""

    def __init__(self, number, cases=None, rtol=None, gradient=None):
        if not re.fullmatch(r"(\d+|[A-Z])\.\d+", number):
            raise ValueError(f"number: wanted one such as '2.1', got {number!r}")
        if cases is not None and not (cases and all(isinstance(case, tuple) for case in cases)):
            raise ValueError(f"cases: wanted tuples of arguments, got {cases!r}")
        rtol = (1e-3 if cases is None else 1e-6) if rtol is None else rtol
        not_negative("rtol", rtol)
        if rtol > 5e-3:
            raise ValueError(f"rtol: wanted at most 0.005, for an answer 1 % off is wrong, got {rtol}")
        self.number, self.cases, self.rtol = number, cases, rtol
        self.gradient = (gradient,) if isinstance(gradient, int) else gradient or ()
        self.solution, self.mistakes = None, []

    def right(self, function):
        """Decorate the function that computes the right answer: of a case, or of nothing for a value."""
        self.solution = function
        return function

    def mistake(self, message):
        """Decorate a function that makes a known mistake; message tells the reader which, and how to notice it."""
        def note(function):
            self.mistakes.append((message, function))
            return function
        return note

    def letters(self, **messages):
        """The wrong letters of a choice, each with what is wrong about it."""
        for letter, message in messages.items():
            self.mistake(message)(lambda letter=letter: letter)

    def verdict(self, given):
        """What is said about an answer: "not written yet", "right", or "not yet right" and why."""
        with torch.enable_grad(), _float64():
            return self._verdict(given)

    def _verdict(self, given):
        if given is None or given is ...:
            return "not written yet"
        if callable(given) != (self.cases is not None):
            return f"not yet right. Wanted a {'value, not a function' if self.cases is None else 'function'}."
        cases = self.cases or [()]
        answers = []
        for case in cases:
            try:
                answers.append(self._found(given, case))
            except Unwritten as unwritten:
                return "not written yet" + f": the function returns {unwritten}" * callable(given)
            except Exception as error:
                return f"not yet right. {self._place(len(answers))}{type(error).__name__}: {error}"
        right = [self._found(self.solution if self.cases else self.solution(), case) for case in cases]
        fitted = [list(map(shaped, found, wanted)) for found, wanted in zip(answers, right)]
        agree = [all(map(self._same, found, wanted)) for found, wanted in zip(fitted, right)]
        if all(agree):
            return "right"
        typed = self.rtol if callable(given) else max(self.rtol, TYPED)
        for message, mistake in self.mistakes:
            made = (self._found(mistake if self.cases else mistake(), case) for case in cases)
            if all(same(shaped(*pair), pair[1], typed)
                   for found, wrong in zip(answers, made) for pair in zip(found, wrong)):
                return f"not yet right. {message}"
        pairs = [(found[0], wanted[0]) for found, wanted in zip(fitted, right)]
        off = [not self._same(*pair) for pair in pairs]  # where none is, it is the gradient
        said = relation(cases, pairs, typed) if any(off) else None
        if said is None:
            first = agree.index(False)
            said = self._place(first) + self._difference(fitted[first], right[first], typed)
            if off[first] and all(nearly(*pair) for pair in pairs):
                said += " It is within 1 %: is something rounded, approximated or left out?"
        return f"not yet right. {said[0].upper()}{said[1:]}"

    def _found(self, given, case):
        """What is compared: the answer to a case and, where that is asked for, its gradients."""
        if not callable(given):
            return [comparable(given)]
        case = list(copy.deepcopy(case))
        if not self.gradient:
            return [comparable(given(*case))]
        parts = [case[i].requires_grad_() for i in self.gradient]
        for i, part in zip(self.gradient, parts):
            case[i] = part.clone()  # which a function may change in place
        value = given(*case)
        found = comparable(value)
        if isinstance(value, list | tuple) and all(map(torch.is_tensor, value)):
            value = torch.stack(value)
        if not (torch.is_tensor(value) and value.requires_grad):
            return [found, *map(torch.zeros_like, parts)]
        return [found, *torch.autograd.grad(value.sum(), parts, allow_unused=True, materialize_grads=True)]

    def _same(self, found, wanted):
        return same(found, wanted, self.rtol)

    def _place(self, i):
        if self.cases is None:
            return ""
        case = ", ".join(map(brief, self.cases[i]))
        return f"Case {i + 1} of {len(self.cases)}" + f", at ({case})" * (len(case) <= 200) + ": "

    def _difference(self, answer, right, typed):
        i, name = next(i for i, pair in enumerate(zip(answer, right)) if not self._same(*pair)), ""
        found, wanted = answer[i], right[i]
        if i > 0:
            argument = f" by argument {self.gradient[i - 1] + 1}" * (len(self.gradient) > 1)
            name = f"the value is right, its gradient{argument} is not: "
        if isinstance(wanted, str):
            kind = "one of the letters that stand there" if isinstance(found, str) else "a letter"
            return f"wanted {kind}, got {brief(found)}."
        if isinstance(found, str):
            return f"wanted a number, got {found!r}."
        if found.shape != wanted.shape:
            return f"wanted {in_words(wanted)}, got {in_words(found)}."
        agrees = close(found, wanted, self.rtol) if found.isfinite().all() else found.isfinite()
        i = agrees.reshape(-1).tolist().index(False)
        part = f"entry {i + 1}" if found.ndim else ""
        if self.cases is not None:
            wanted, found = wanted.reshape(-1)[i], found.reshape(-1)[i]
            digits = 4 if brief(wanted) != brief(found) else 8
            return f"{name}{part}{': ' * bool(part)}wanted {brief(wanted, digits)}, got {brief(found, digits)}."
        if not found.isfinite().all():
            return f"{part or 'your answer'} is not a finite number."
        for message, mistake in self.mistakes if found.ndim == 1 else ():
            wrong = comparable(mistake())
            if wrong.shape == found.shape and same(found[i], wrong[i], typed) and not self._same(wrong[i], wanted[i]):
                return f"{part} is that of a known mistake. {message}"
        if nearly(found, wanted):
            return f"{part or 'your answer'} is off."
        return f"{part or 'your answer'} is off, and it is none of the mistakes that are known here."


@contextmanager
def _float64():
    """Numbers that are made inside are float64, as all cases are, whatever the notebook has chosen."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def module_of(page):
    """The module with the exercises of a page, such as "2" or "A"."""
    return f"vae_lib.exercises.page_{page.zfill(2) if page.isdigit() else page}"


def exercises(page):
    """The exercises of a page, such as "2" or "A": a dict from number to `Exercise`.

    Raises ModuleNotFoundError where there are none."""
    with torch.enable_grad():
        module = importlib.import_module(module_of(page))
    return {each.number: each for each in vars(module).values() if isinstance(each, Exercise)}


def answer(number, yours):
    """Say about an answer to exercise `number`: not written yet, right, or which mistake it is.

    Raises ValueError where there is no such exercise."""
    page = number.partition(".")[0] if isinstance(number, str) else ""
    there = exercises(page) if importlib.util.find_spec(module_of(page)) else {}
    if not (isinstance(number, str) and number in there):
        raise ValueError(f"number: wanted that of an exercise, such as '2.1', got {number!r}")
    print(f"{number}: {there[number].verdict(yours)}")
