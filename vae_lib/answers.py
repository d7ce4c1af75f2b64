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
import importlib
import math
import re
from contextlib import contextmanager

import torch

from vae_lib.guards import not_negative

TYPED = 5e-4  # how far a mistake that is typed with four digits may be off
NEARLY = 9e-3
MULTIPLES = {-1: "The sign is turned: yours is minus the answer.", 2: "Yours is twice the answer.",
             0.5: "Yours is half of the answer.",
             1 / math.log(2): "Yours is 1.4427 times the answer: bits in place of nats?"}


class Exercise:
    """One exercise: its right answer, by a route of its own, and the mistakes that are known.

    number: page and place, as in "2.1". cases: None for an exercise whose answer is a value; else tuples of
    arguments, at each of which the reader's function must return what the right one returns. rtol: how far each
    entry of an answer may be off, as a share of itself, or of 1 % of the largest one if that is more; 0.001 for
    values, which are typed, and 1e-6 for functions, unless told otherwise. gradient: position of an argument; the
    gradient of what the function returns, summed, with respect to this tensor must agree as well. A value may be a
    number, a tensor, a list of numbers or a letter.

    Raises ValueError for a number that is none, for no cases, and unless 0 <= rtol <= 0.005."""

    def __init__(self, number, cases=None, rtol=None, gradient=None):
        if not re.fullmatch(r"\d+\.\d+", number):
            raise ValueError(f"number: wanted one such as '2.1', got {number!r}")
        if cases is not None and not (cases and all(isinstance(case, tuple) for case in cases)):
            raise ValueError(f"cases: wanted tuples of arguments, got {cases!r}")
        rtol = (1e-3 if cases is None else 1e-6) if rtol is None else rtol
        not_negative("rtol", rtol)
        if rtol > 5e-3:
            raise ValueError(f"rtol: wanted at most 0.005, for an answer 1 % off is wrong, got {rtol}")
        self.number, self.cases, self.rtol, self.gradient = number, cases, rtol, gradient
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
        if given is None or given is ...:
            return "not written yet"
        if callable(given) != (self.cases is not None):
            return f"not yet right. Wanted a {'value, not a function' if self.cases is None else 'function'}."
        cases = self.cases or [()]
        answers = []
        for case in cases:
            try:
                with _float64():
                    answers.append(self._found(given, case))
            except _Unwritten as unwritten:
                return "not written yet" + f": the function returns {unwritten}" * callable(given)
            except Exception as error:
                return f"not yet right. {self._place(len(answers))}{type(error).__name__}: {error}"
        right = [self._found(self.solution if self.cases else self.solution(), case) for case in cases]
        agree = [all(map(self._same, found, wanted)) for found, wanted in zip(answers, right)]
        if all(agree):
            return "right"
        typed = self.rtol if callable(given) else max(self.rtol, TYPED)
        for message, mistake in self.mistakes:
            made = (self._found(mistake if self.cases else mistake(), case) for case in cases)
            if all(all(same(*pair, typed) for pair in zip(found, wrong)) for found, wrong in zip(answers, made)):
                return f"not yet right. {message}"
        pairs = [(found[0], wanted[0]) for found, wanted in zip(answers, right)]
        off = not all(same(*pair, self.rtol) for pair in pairs)  # else it is the gradient
        said = _relation(cases, pairs, self.rtol) if off else None
        if said is None:
            first = agree.index(False)
            said = self._place(first) + self._difference(answers[first], right[first])
            if off and all(same(*pair, NEARLY) for pair in pairs):
                said += " It is within 1 %: is it rounded, or found by too coarse a search?"
        return f"not yet right. {said[0].upper()}{said[1:]}"

    def _found(self, given, case):
        """What is compared: the answer to a case and, where that is asked for, its gradient."""
        if not callable(given):
            return [_comparable(given)]
        case = list(copy.deepcopy(case))
        if self.gradient is None:
            return [_comparable(given(*case))]
        part = case[self.gradient].requires_grad_()
        case[self.gradient] = part.clone()  # which a function may change in place
        value = given(*case)
        found = _comparable(value)
        if not (torch.is_tensor(value) and value.requires_grad):
            return [found, torch.zeros_like(part)]
        return [found, torch.autograd.grad(value.sum(), part)[0]]

    def _same(self, found, wanted):
        return same(found, wanted, self.rtol)

    def _place(self, i):
        if self.cases is None:
            return ""
        return f"Case {i + 1} of {len(self.cases)}, at ({', '.join(map(_brief, self.cases[i]))}): "

    def _difference(self, answer, right):
        name, found, wanted = "", answer[0], right[0]
        if self._same(found, wanted):
            name, found, wanted = "the value is right, its gradient is not: ", answer[1], right[1]
        if isinstance(wanted, str):
            kind = "one of the letters that stand there" if isinstance(found, str) else "a letter"
            return f"wanted {kind}, got {_brief(found)}."
        if isinstance(found, str):
            return f"wanted a number, got {found!r}."
        if found.shape != wanted.shape:
            return f"wanted {_shape(wanted)}, got {_shape(found)}."
        i = _close(found, wanted, self.rtol).reshape(-1).tolist().index(False)
        part = f"entry {i + 1}" if found.ndim else ""
        if self.cases is not None:
            wanted, found = wanted.reshape(-1)[i], found.reshape(-1)[i]
            digits = 4 if _brief(wanted) != _brief(found) else 8
            return f"{name}{part}{': ' * bool(part)}wanted {_brief(wanted, digits)}, got {_brief(found, digits)}."
        if not found.isfinite().all():
            return f"{part or 'your answer'} is not a finite number."
        if same(found, wanted, NEARLY):
            return f"{part or 'your answer'} is off."
        return f"{part or 'your answer'} is off, and it is none of the mistakes that are known here."


class _Unwritten(Exception):
    """An answer is still `...`, or a part of it: then the message says so."""


def _relation(cases, pairs, rtol):
    """How an answer is related to the right one in all cases, or None. pairs: (found, wanted) of each case."""
    if any(isinstance(part, str) for pair in pairs for part in pair):
        return None
    if any(found.shape != wanted.shape or not found.numel() for found, wanted in pairs):
        return None
    for factor, message in MULTIPLES.items():
        if all(same(found, factor * wanted, rtol) for found, wanted in pairs):
            return message
    if all(1 < len(wanted.unique()) == wanted.numel() <= 6 and same(found.view(-1).sort()[0], wanted.unique(), rtol)
           for found, wanted in pairs):
        return "The numbers are right, but they stand in another order."
    sizes = [_sizes(case) for case in cases]
    for power, message in ((1, "is summed that should be averaged"), (-1, "is averaged that should be summed")):
        if all(any(same(found, wanted * size**power, rtol) for size in of_case)
               for (found, wanted), of_case in zip(pairs, sizes)):
            return f"Yours is off by a factor that is a size of the arguments. Perhaps something {message}."
    return None


def _sizes(case):
    """The numbers over which a function may have summed: the sizes of its tensors, and its whole numbers, from 3."""
    whole = {part for part in case if isinstance(part, int)}
    sizes = {size for part in case if torch.is_tensor(part) for size in (*part.shape, part.numel())}
    return {size for size in whole | sizes if size > 2}


@contextmanager
def _float64():
    """Numbers that are made inside are float64, as all cases are, whatever the notebook has chosen."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def same(found, wanted, rtol):
    """Whether two answers are one: equal letters, or numbers of one shape, each within rtol of the wanted one."""
    if isinstance(found, str) or isinstance(wanted, str):
        return isinstance(found, str) and isinstance(wanted, str) and found == wanted
    return found.shape == wanted.shape and found.numel() > 0 and bool(_close(found, wanted, rtol).all())


def _close(found, wanted, rtol):
    finite = wanted[wanted.isfinite()].abs()
    least = 0.01 * finite.max() if finite.any() else 1
    allowed = rtol * wanted.abs().nan_to_num(posinf=0).clamp_min(least)
    alike = (found == wanted) | (found.isnan() & wanted.isnan())  # where neither need be finite
    return alike | ((found - wanted).abs() <= allowed)


def _comparable(value):
    """An answer as a letter or a float64 tensor. Raises _Unwritten for `...` or None, TypeError for others."""
    if value is None or value is ...:
        raise _Unwritten("nothing, that is None")
    if isinstance(value, str):
        letter = re.match(r"\s*\(?([a-zA-Z])(?:[).:]|\s*$)", value)
        return letter[1].lower() if letter else value.strip()
    if isinstance(value, bool):
        raise TypeError("wanted numbers or a letter, got a truth value")
    if isinstance(value, list | tuple) and value:
        if any(part is None or part is ... for part in value):
            raise _Unwritten("a list with nothing in one of its places")
        parts = [_comparable(part) for part in value]
        if any(isinstance(part, str) for part in parts):
            raise TypeError("wanted numbers or one letter, got a list with text in it")
        if len({part.shape for part in parts}) > 1:  # a number beside an array that holds one number
            parts = [part.squeeze() if part.numel() == 1 else part for part in parts]
        if len(shapes := {tuple(part.shape) for part in parts}) > 1:
            raise TypeError(f"wanted numbers of one shape, got parts of the shapes {sorted(shapes)}")
        value = torch.stack(parts)
    try:
        value = torch.as_tensor(value, dtype=torch.float64 if isinstance(value, float) else None)
    except (RuntimeError, TypeError, ValueError):
        raise TypeError(f"wanted numbers or a letter, got a {type(value).__name__}") from None
    if value.dtype == torch.bool or value.is_complex():
        raise TypeError(f"wanted real numbers, got {value.dtype}")
    return value.detach().double()


def _shape(tensor):
    return f"shape {tuple(tensor.shape)}" if tensor.ndim else "one number"


def _brief(value, digits=4):
    """A case or an answer in few digits: what is printed must not depend on the processor."""
    if callable(value):
        return getattr(value, "__name__", type(value).__name__)
    if isinstance(value, str | int):
        return repr(value)
    value = torch.as_tensor(value)
    if value.numel() == 1:
        return f"{value.item():.{digits}g}"
    if value.numel() <= 18 and value.ndim <= 2:
        return f"[{', '.join(_brief(part, digits) for part in value)}]"
    return f"a tensor of shape {tuple(value.shape)}"


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
