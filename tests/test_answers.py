"""What `answer` says, and the records of all exercises: only the right answer passes, and mistakes are named."""

import pkgutil
import re
from fractions import Fraction

import numpy as np
import pytest
import torch

import vae_lib.exercises
from vae_lib.answers import Exercise, answer, exercises

NUMBERS = [module.name.removeprefix("page_") for module in pkgutil.iter_modules(vae_lib.exercises.__path__)]
RECORDS = [exercise for page in NUMBERS for exercise in exercises(page).values()]
each_record = pytest.mark.parametrize("exercise", RECORDS, ids=[record.number for record in RECORDS])
NO = "not yet right. "


def given(exercise, function):
    """What a reader would hand in whose thoughts are those of the function: the function itself, or its value."""
    return function() if exercise.cases is None else function


def numbers(value):
    """An answer as a float64 tensor of its own."""
    stacked = torch.stack(list(value)) if isinstance(value, list | tuple) and torch.is_tensor(value[0]) else (
        torch.as_tensor(value))
    return stacked.double().clone()


def one_percent_off(value, part):
    """An answer with one entry off by 1 % of itself; a zero by 1 % of the largest, or by 0.01 where all are zero."""
    moved = numbers(value)
    entries = moved.view(-1)
    size, largest = entries[part % len(entries)].abs().item(), entries.abs().max().item()
    if size <= 1e-9 * largest:  # a zero but for rounding
        size = largest if largest > 0 else 1
    entries[part % len(entries)] += 0.01 * size
    return moved


@each_record
def test_the_right_answer_is_right_and_each_mistake_is_named(exercise):
    assert exercise.verdict(given(exercise, exercise.solution)) == "right"
    assert len(exercise.mistakes) >= 2
    assert len({message for message, _ in exercise.mistakes}) == len(exercise.mistakes)
    for message, function in exercise.mistakes:
        assert exercise.verdict(given(exercise, function)) == NO + message
        assert re.match(r"[A-Z(`].{30,}[.?!]$", message), f"a sentence that helps: {message!r}"


@each_record
def test_cases_are_exact_numbers(exercise):
    """A case in single precision would make a right answer differ from the right one."""
    tensors = [part for case in exercise.cases or () for part in case if torch.is_tensor(part)]
    assert all(part.dtype in (torch.float64, torch.int64, torch.bool) for part in tensors)
    assert all(part.is_contiguous() for part in tensors), "a right answer may take a `view`"


@each_record
def test_an_answer_one_percent_off_is_not_right(exercise):
    right = [exercise.solution(*case) for case in exercise.cases or [()]]
    if isinstance(right[0], str):
        assert {exercise.verdict(letter).startswith(NO) for letter in "abcdefgh"} == {True, False}
        return
    for part in range(max(numbers(value).numel() for value in right)):
        off = lambda *case, part=part: one_percent_off(exercise.solution(*case), part)
        assert exercise.verdict(given(exercise, off)).startswith(NO)


@each_record
def test_an_unwritten_answer_is_no_mistake(exercise):
    for nothing in (None, ...):
        assert exercise.verdict(nothing) == "not written yet"
    for nothing in [lambda *case: ..., lambda *case: None] if exercise.cases else []:
        assert exercise.verdict(nothing) == "not written yet: the function returns nothing, that is None"


KL = Exercise("4.1", cases=[(0.0, 1.0), (0.5, 2.0)])
PAIR = Exercise("4.2")
LETTER = Exercise("4.3")
NUMBER = Exercise("4.4")
ROW = Exercise("4.5", cases=[(0.3,)])
EXACT = Exercise("4.6", rtol=1e-5)
EXACT.right(lambda: 1 / 3)
EXACT.mistake("This is a third less.")(lambda: 2 / 9)


LESS = "It is within 1 %: is something rounded, approximated or left out?"
OFF = "Yours is off by a factor that is a size of the arguments. Perhaps something is "
TOTAL = Exercise("4.7", cases=[(torch.tensor([1.0, 2.0, 4.0], dtype=torch.float64), 5)])
TOTAL.right(lambda x, n: n * x.sum())
SLOPE = Exercise("4.8", cases=[(torch.tensor([1.0, -3.0], dtype=torch.float64),)], gradient=0)
SLOPE.right(lambda x: x * x)
BOTH = Exercise("4.8", cases=[(torch.tensor([2.0]).double(), torch.tensor([3.0]).double())], gradient=(0, 1))
BOTH.right(lambda x, y: x * y)
LONG = Exercise("4.8", cases=[tuple(torch.full((18,), 0.25).double() for _ in range(4))])
LONG.right(lambda *parts: sum(parts).sum())
SLOPE.mistake("The gradient is not a number.")(lambda x: x**2 + 0 * (x - x).sqrt())


@KL.right
def _(mu, sigma):
    return 0.5 * (mu**2 + sigma**2 - 1) - torch.tensor(sigma).log()


@KL.mistake("Sigma stands where sigma squared belongs: at the prior it is right by luck.")
def _(mu, sigma):
    return 0.5 * (mu**2 + sigma - 1) - torch.tensor(sigma).log()


@PAIR.right
def _():
    return [1.0, 20.0]


@PAIR.mistake("The two are exchanged.")
def _():
    return [20.0, 1.0]


@LETTER.right
def _():
    return "b"


@LETTER.mistake("This would hold only if the prior were the posterior.")
def _():
    return "a"


TIGHT = Exercise("4.2", rtol=1e-4)
TIGHT.right(lambda: [1, 20])
SINGLE = Exercise("4.1", cases=[(2.0,)])
SINGLE.right(lambda x: torch.tensor([x]))
COUNT = Exercise("4.9", rtol=1e-4)
COUNT.right(lambda: 1000)


@NUMBER.right
def _():
    return 3.0


@ROW.right
def _(x):
    return [2.0, 2 * x]


def broken(mu, sigma):
    raise ArithmeticError("no")


@pytest.mark.parametrize("exercise, yours, verdict", [
    (KL, KL.solution, "right"),
    (KL, KL.mistakes[0][1], NO + KL.mistakes[0][0]),
    (KL, lambda mu, sigma: 0.0, NO + "Case 2 of 2, at (0.5, 2): wanted 0.9319, got 0."),
    (ROW, lambda x: [2.0, 0.60001], NO + "Case 1 of 1, at (0.3): entry 2: wanted 0.6, got 0.60001. " + LESS),
    (KL, lambda mu, sigma: torch.zeros(3), NO + "Case 1 of 2, at (0, 1): wanted one number, got shape (3,)."),
    (KL, abs, NO + "Case 1 of 2, at (0, 1): TypeError: abs() takes exactly one argument (2 given)"),
    (KL, broken, NO + "Case 1 of 2, at (0, 1): ArithmeticError: no"),
    (KL, lambda mu, sigma: float("nan"), NO + "Case 1 of 2, at (0, 1): wanted 0, got nan."),
    (KL, lambda mu, sigma: "b", NO + "Case 1 of 2, at (0, 1): wanted a number, got 'b'."),
    (KL, 0.0, NO + "Wanted a function."),
    (PAIR, (1, 20), "right"),
    (PAIR, torch.tensor([1.0, 20.0]), "right"),
    (PAIR, [torch.tensor(1.0), 20.005], "right"),
    (PAIR, [1.0, torch.tensor([20.0])], "right"),
    (PAIR, [20, 1], NO + "The two are exchanged."),
    (EXACT, 0.2222, NO + "This is a third less."),
    (EXACT, [0.2222], NO + "This is a third less."),
    (TIGHT, [1.0003, 20], NO + "Entry 1 is off. " + LESS),
    (EXACT, 0.3333, NO + "Your answer is off. " + LESS),
    (ROW, lambda x: 2 * torch.eye(2) @ torch.tensor([1, x]).double(), "right"),
    (PAIR, [1, 21], NO + "Entry 2 is off, and it is none of the mistakes that are known here."),
    (PAIR, [-1, -20], NO + "The sign is turned: yours is minus the answer."),
    (PAIR, [2, 40], NO + "Yours is twice the answer."),
    (PAIR, [0.5, 10], NO + "Yours is half of the answer."),
    (PAIR, [1.4427, 28.854], NO + "Yours is 1.4427 times the answer: bits in place of nats?"),
    (NUMBER, 4, NO + "Your answer is off, and it is none of the mistakes that are known here."),
    (ROW, lambda x: [2.0, x], NO + "Case 1 of 1, at (0.3): entry 2: wanted 0.6, got 0.3."),
    (PAIR, [1, ...], "not written yet"),
    (PAIR, [float("nan"), 20], NO + "Entry 1 is not a finite number."),
    (PAIR, [1, float("inf")], NO + "Entry 2 is not a finite number."),
    (PAIR, [torch.tensor([1.0]), np.float32(20)], "right"),
    (PAIR, np.array([20.0, 1.0])[::-1], "right"),
    (PAIR, [Fraction(1), 20], "right"),
    (PAIR, [20, 7], NO + "Entry 1 is that of a known mistake. The two are exchanged."),
    (NUMBER, [3], "right"),
    (ROW, lambda x: torch.tensor([[7.0, 2.0], [8.0, 2 * x]])[:, 1], "right"),
    (ROW, lambda x: torch.tensor([[7.0, 2.0], [8.0, 3.0]])[:, 1],
     NO + "Case 1 of 1, at (0.3): entry 2: wanted 0.6, got 3."),
    (LETTER, "", "not written yet"),
    (LETTER, "b - since it is", "right"),
    (LETTER, "a bound", NO + "Wanted one of the letters that stand there, got 'a bound'."),
    (SLOPE, lambda x: [part * part for part in x], "right"),
    (COUNT, 1001, NO + "Your answer is off, and it is none of the mistakes that are known here."),
    (PAIR, [1.01, 20], NO + "Entry 1 is off, and it is none of the mistakes that are known here."),
    (PAIR, [1, [20, 3]], NO + "TypeError: wanted numbers of one shape, got parts of the shapes [(), (2,)]"),
    (PAIR, [1, 20, 3], NO + "Wanted shape (2,), got shape (3,)."),
    (PAIR, PAIR.solution, NO + "Wanted a value, not a function."),
    (PAIR, True, NO + "TypeError: wanted numbers or a letter, got a truth value"),
    (PAIR, [True, 20], NO + "TypeError: wanted numbers or a letter, got a truth value"),
    (PAIR, ["1.0", 20], NO + "TypeError: wanted numbers or one letter, got a list with text in it"),
    (PAIR, torch.tensor([True, False]), NO + "TypeError: wanted real numbers, got torch.bool"),
    (PAIR, {1.0, 20.0}, NO + "TypeError: wanted numbers or a letter, got a set"),
    (ROW, lambda x: [2.0, None], "not written yet: the function returns a list with nothing in one of its places"),
    (ROW, lambda x: [2 * x, 2.0], NO + "The numbers are right, but they stand in another order."),
    (TOTAL, lambda x, n: 3 * TOTAL.solution(x, n), NO + OFF + "summed that should be averaged."),
    (TOTAL, lambda x, n: TOTAL.solution(x, n) / n, NO + OFF + "averaged that should be summed."),
    (TOTAL, lambda x, n: 0.0, NO + "Case 1 of 1, at ([1, 2, 4], 5): wanted 35, got 0."),
    (SLOPE, lambda x: x**2, "right"),
    (SLOPE, lambda x: x.neg_() ** 2, "right"),
    (SLOPE, lambda x: x.detach() ** 2,
     NO + "Case 1 of 1, at ([1, -3]): the value is right, its gradient is not: entry 1: wanted 2, got 0."),
    (SLOPE, SLOPE.mistakes[0][1], NO + SLOPE.mistakes[0][0]),
    (BOTH, lambda x, y: y * x, "right"),
    (BOTH, lambda x, y: x * y.detach(),
     NO + "Case 1 of 1, at (2, 3): the value is right, its gradient by argument 2 is not: entry 1: wanted 2, got 0."),
    (BOTH, lambda x, y: (x.detach() * y).tolist(),
     NO + "Case 1 of 1, at (2, 3): the value is right, its gradient by argument 1 is not: entry 1: wanted 3, got 0."),
    (LONG, lambda *parts: 0.5, NO + "Case 1 of 1: wanted 18, got 0.5."),
    (PAIR, [], NO + "Wanted shape (2,), got shape (0,)."),
    (LETTER, " (B) ", "right"),
    (LETTER, "b.", "right"),
    (LETTER, "b) Above 1", "right"),
    (LETTER, "b, as a is too small", "right"),
    (LETTER, "b, i.e. above 1", "right"),
    (LETTER, "b) with $c=2$, I'd say", "right"),
    (LETTER, "b/a", NO + "Wanted one of the letters that stand there, got 'b/a'."),
    (LETTER, "b/c", NO + "Wanted one of the letters that stand there, got 'b/c'."),
    (LETTER, "c, maybe B", NO + "Wanted one of the letters that stand there, got 'c, maybe B'."),
    (SINGLE, lambda x: torch.tensor([[x]]), "right"),
    (SINGLE, lambda x: x, NO + "Case 1 of 1, at (2): wanted shape (1,), got one number."),
    (LETTER, "a", NO + LETTER.mistakes[0][0]),
    (LETTER, "e", NO + "Wanted one of the letters that stand there, got 'e'."),
    (LETTER, 2, NO + "Wanted a letter, got 2."),
])
def test_what_is_said(exercise, yours, verdict):
    assert exercise.verdict(yours) == verdict


def test_an_answer_may_change_its_arguments():
    doubled = Exercise("4.4", cases=[(torch.tensor([1.0, 2.0], dtype=torch.float64),)])
    doubled.right(lambda x: 2 * x)
    assert doubled.verdict(lambda x: x.mul_(2)) == doubled.verdict(lambda x: x.mul_(2)) == "right"


def test_gradients_may_be_switched_off():
    with torch.no_grad():
        assert SLOPE.verdict(lambda x: x**2) == "right"


def test_numbers_and_cases_are_looked_at():
    with pytest.raises(ValueError, match="number: wanted one such as '2.1', got 'two'"):
        Exercise("two")
    with pytest.raises(ValueError, match="cases: wanted tuples of arguments, got"):
        Exercise("4.1", cases=[1.0])
    with pytest.raises(ValueError, match="rtol: wanted at most 0.005, for an answer 1 % off is wrong, got 0.01"):
        Exercise("4.1", rtol=0.01)
    with pytest.raises(ValueError, match="rtol"):
        Exercise("4.1", rtol=-1.0)


@pytest.mark.parametrize("number", ["4.99", "99.1", "4", "x.1", "", "..", "a b.1", 4.1, [4.1]])
def test_an_exercise_that_is_not_there(number):
    with pytest.raises(ValueError, match="number: wanted that of an exercise, such as '2.1', got"):
        answer(number, 1.0)


@pytest.mark.parametrize("error", [ModuleNotFoundError("No module named 'scipy'", name="scipy"), ValueError("rtol"),
                                   KeyError("x")])
def test_a_page_of_exercises_that_fails_says_why(monkeypatch, error):
    def broken(name):
        raise error

    monkeypatch.setattr("vae_lib.answers.importlib.import_module", broken)
    with pytest.raises(type(error)) as raised:
        answer("4.1", 1.0)
    assert raised.value is error


def test_answer_prints_the_verdict(capsys):
    answer(RECORDS[0].number, ...)
    assert capsys.readouterr().out == f"{RECORDS[0].number}: not written yet\n"
