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

import importlib
import re

import torch

from vae_lib.guards import not_negative


class Exercise:
    """One exercise: its right answer, by a route of its own, and the mistakes that are known.

    number: page and place, as in "2.1". cases: None for an exercise whose answer is a value; else tuples of
    arguments, at each of which the reader's function must return what the right one returns. rtol: how far an
    answer may be off, as a share of the right one's largest entry; 0.002 for values, which are typed, and
    1e-6 for functions, unless told otherwise. A value may be a number, a tensor, a list of numbers or a letter.

    Raises ValueError for a number that is none, for no cases, and unless 0 <= rtol <= 0.005."""

    def __init__(self, number, cases=None, rtol=None):
        if not re.fullmatch(r"\d+\.\d+", number):
            raise ValueError(f"number: wanted one such as '2.1', got {number!r}")
        if cases is not None and not (cases and all(isinstance(case, tuple) for case in cases)):
            raise ValueError(f"cases: wanted tuples of arguments, got {cases!r}")
        rtol = (2e-3 if cases is None else 1e-6) if rtol is None else rtol
        not_negative("rtol", rtol)
        if rtol > 5e-3:
            raise ValueError(f"rtol: wanted at most 0.005, for an answer 1 % off is wrong, got {rtol}")
        self.number, self.cases, self.rtol = number, cases, rtol
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

    def verdict(self, given):
        """What is said about an answer: "not written yet", "right", or "not yet right" and why."""
        if given is None or given is ...:
            return "not written yet"
        if callable(given) != (self.cases is not None):
            return f"not yet right. Wanted a {'value, not a function' if self.cases is None else 'function'}."
        answers = []
        for number, case in enumerate(self.cases or [()], 1):
            try:
                found = given(*case) if callable(given) else given
                if found is None or found is ...:
                    return "not written yet"
                answers.append(_comparable(found))
            except Exception as error:
                return f"not yet right. {self._place(number, case)}{type(error).__name__}: {error}"
        if all(self._agree(answers, self.solution)):
            return "right"
        for message, function in self.mistakes:
            if all(self._agree(answers, function)):
                return f"not yet right. {message}"
        number = list(self._agree(answers, self.solution)).index(False) + 1
        case = (self.cases or [()])[number - 1]
        return f"not yet right. {self._place(number, case)}{self._what_differs(answers[number - 1], case)}"

    def _agree(self, answers, function):
        """For each case, whether an answer is what the function returns."""
        for found, case in zip(answers, self.cases or [()], strict=True):
            yield same(found, _comparable(function(*case)), self.rtol)

    def _place(self, number, case):
        if self.cases is None:
            return ""
        return f"Case {number} of {len(self.cases)}, at ({', '.join(map(_brief, case))}): "

    def _what_differs(self, found, case):
        wanted = _comparable(self.solution(*case))
        if isinstance(found, str) or isinstance(wanted, str):
            return f"wanted {'a letter' if isinstance(wanted, str) else 'a number'}, got {_brief(found)}."
        if found.shape != wanted.shape:
            return f"wanted {_shape(wanted)}, got {_shape(found)}."
        if self.cases is not None:
            return f"wanted {_brief(wanted)}, got {_brief(found)}."
        wrong = [i for i in range(found.numel())
                 if not same(found.view(-1)[i], wanted.view(-1)[i], self.rtol)] if found.ndim else []
        part = f"entry {wrong[0] + 1} of your answer" if wrong else "your answer"
        return f"It is no mistake that is known here: {part} is off."


def same(found, wanted, rtol):
    """Whether two answers are one: equal letters, or numbers of one shape within rtol of the largest wanted."""
    if isinstance(found, str) or isinstance(wanted, str):
        return isinstance(found, str) and isinstance(wanted, str) and found == wanted
    if found.shape != wanted.shape or found.numel() == 0:
        return False
    scale = wanted.abs().max()
    return bool(((found - wanted).abs() <= rtol * (scale if scale > 0 else 1)).all())


def _comparable(value):
    """An answer as a letter or a float64 tensor. Raises TypeError for anything else."""
    if isinstance(value, str):
        return value.strip().strip("()").lower()
    if isinstance(value, bool):
        raise TypeError("wanted numbers or a letter, got a truth value")
    if isinstance(value, list | tuple):
        value = torch.stack([_comparable(part) for part in value])
    value = torch.as_tensor(value)
    if value.dtype == torch.bool or value.is_complex():
        raise TypeError(f"wanted real numbers, got {value.dtype}")
    return value.detach().double()


def _shape(tensor):
    return f"shape {tuple(tensor.shape)}" if tensor.ndim else "one number"


def _brief(value):
    """A case or an answer in few digits: what is printed must not depend on the processor."""
    if callable(value):
        return getattr(value, "__name__", type(value).__name__)
    if isinstance(value, str | int):
        return repr(value)
    value = torch.as_tensor(value)
    return f"{value.item():.4g}" if value.numel() == 1 else f"a tensor of shape {tuple(value.shape)}"


def exercises(page):
    """The exercises of a page, a dict from number to `Exercise`. Raises ModuleNotFoundError where there are none."""
    module = importlib.import_module(f"vae_lib.exercises.page_{int(page):02d}")
    return {each.number: each for each in vars(module).values() if isinstance(each, Exercise)}


def answer(number, yours):
    """Say about an answer to exercise `number`: not written yet, right, or which mistake it is.

    Raises ValueError where there is no such exercise."""
    try:
        exercise = exercises(number.partition(".")[0])[number]
    except (AttributeError, KeyError, ModuleNotFoundError, ValueError):
        raise ValueError(f"number: wanted that of an exercise, such as '2.1', got {number!r}") from None
    print(f"{number}: {exercise.verdict(yours)}")
