"""Answers to exercises as numbers or letters: what they are, whether two are one, and how two are related."""

import math
import re

import numpy as np
import torch

NEARLY = 9e-3  # how far off, as a share, numbers may be that are called nearly right
NO_LETTERS = re.compile(r"\$.*?\$|\bi\.e\b|\be\.g\b|\b['’]d\b")  # formulas and abbreviations behind a letter
ANOTHER = re.compile(r"\b(?:[b-eB-E]|[aA](?!\s+\S))\b")  # a second letter; "a" before a word is an article
ROUNDING = 1e-12  # how far a number may be off that should be zero
MULTIPLES = {-1: "The sign is turned: yours is minus the answer.", 2: "Yours is twice the answer.",
             0.5: "Yours is half of the answer.",
             1 / math.log(2): "Yours is 1.4427 times the answer: bits in place of nats?"}


class Unwritten(Exception):
    """An answer, or a part of it, is still `...` or None. The message says what a function returned."""


def comparable(value):
    """An answer as a letter or a float64 tensor. Raises Unwritten for `...` or None, TypeError for others."""
    if value is None or value is ...:
        raise Unwritten("nothing, that is None")
    if isinstance(value, str):
        if not value.strip():
            raise Unwritten("nothing")
        letter = re.match(r"[\W_]*([a-zA-Z])\s*(?:[^\w\s]|$)", value)
        behind = NO_LETTERS.sub(" ", value[letter.end(1):]) if letter else ""
        return letter[1].lower() if letter and not ANOTHER.search(behind) else value.strip()
    if isinstance(value, bool):
        raise TypeError("wanted numbers or a letter, got a truth value")
    if isinstance(value, list | tuple) and value:
        if any(part is None or part is ... for part in value):
            raise Unwritten("a list with nothing in one of its places")
        parts = [comparable(part) for part in value]
        if any(isinstance(part, str) for part in parts):
            raise TypeError("wanted numbers or one letter, got a list with text in it")
        parts = [part.reshape(()) if part.numel() == 1 else part for part in parts]
        if len(shapes := {tuple(part.shape) for part in parts}) > 1:
            raise TypeError(f"wanted numbers of one shape, got parts of the shapes {sorted(shapes)}")
        value = torch.stack(parts)
    if not torch.is_tensor(value):
        array = np.asarray(value)
        try:
            value = torch.from_numpy(array.astype(array.dtype if array.dtype.kind in "bc" else float))
        except (TypeError, ValueError):
            raise TypeError(f"wanted numbers or a letter, got a {type(value).__name__}") from None
    if value.dtype == torch.bool or value.is_complex():
        raise TypeError(f"wanted real numbers, got {value.dtype}")
    return value.detach().cpu().double()


def same(found, wanted, rtol):
    """Whether two answers are one: equal letters, or numbers of one shape, each `close` to the wanted one."""
    if isinstance(found, str) or isinstance(wanted, str):
        return isinstance(found, str) and isinstance(wanted, str) and found == wanted
    return found.shape == wanted.shape and found.numel() > 0 and bool(close(found, wanted, rtol).all())


def nearly(found, wanted):
    """Whether numbers are within 1 % of the wanted ones, unless they are counts."""
    return same(found, wanted, NEARLY) and not isinstance(found, str) and not bool((found == found.round()).all())


def shaped(found, wanted):
    """An answer, or a single number in the shape in which it is wanted, if that has no more dimensions."""
    single = torch.is_tensor(found) and torch.is_tensor(wanted) and found.numel() == wanted.numel() == 1
    return found.reshape(wanted.shape) if single and found.ndim >= wanted.ndim else found


def close(found, wanted, rtol):
    """Of each number, whether it is off by at most rtol of the wanted one, or of 1 % of the largest: booleans."""
    finite = wanted[wanted.isfinite()].abs()
    least = 0.01 * finite.max() if finite.any() else 1
    allowed = (rtol * wanted.abs().nan_to_num(posinf=0).clamp_min(least)).clamp_min(ROUNDING)
    alike = (found == wanted) | (found.isnan() & wanted.isnan())  # where neither need be finite
    return alike | ((found - wanted).abs() <= allowed)


def relation(cases, pairs, rtol):
    """How an answer is related to the right one in all cases, or None. pairs: (found, wanted) of each case."""
    if any(isinstance(part, str) for pair in pairs for part in pair):
        return None
    if any(found.shape != wanted.shape or not found.numel() for found, wanted in pairs):
        return None
    for factor, message in MULTIPLES.items():
        if all(same(found, factor * wanted, rtol) for found, wanted in pairs):
            return message
    if not all(same(found, wanted, rtol) for found, wanted in pairs) and all(
            1 < len(wanted.unique()) == wanted.numel() <= 6
            and same(found.reshape(-1).sort()[0], wanted.unique(), rtol) for found, wanted in pairs):
        return "The numbers are right, but they stand in another order."
    sizes = [_sizes(case) for case in cases]
    for power, message in ((1, "is summed that should be averaged"), (-1, "is averaged that should be summed")):
        if all(any(same(found, wanted * size**power, rtol) for size in of_case)
               for (found, wanted), of_case in zip(pairs, sizes)):
            return f"Yours is off by a factor that is a size of the arguments. Perhaps something {message}."
    return None


def _sizes(case):
    """The numbers over which a function may have summed: the sizes of its tensors, and its whole numbers, from 2."""
    whole = {part for part in case if isinstance(part, int)}
    sizes = {size for part in case if torch.is_tensor(part) for size in (*part.shape, part.numel())}
    return {size for size in whole | sizes if size > 1}


def in_words(tensor):
    """The shape of a tensor, for a sentence."""
    return f"shape {tuple(tensor.shape)}" if tensor.ndim else "one number"


def brief(value, digits=4):
    """A case or an answer in few digits: what is printed must not depend on the processor."""
    if callable(value):
        return getattr(value, "__name__", type(value).__name__)
    if isinstance(value, str | int):
        return repr(value)
    value = torch.as_tensor(value)
    if value.numel() == 1:
        return f"{value.item():.{digits}g}"
    if value.numel() <= 18 and value.ndim <= 2:
        return f"[{', '.join(brief(part, digits) for part in value)}]"
    return f"a tensor of shape {tuple(value.shape)}"
