"""Check a numbered equation against an independent source, in a cell of a page.

`check("2.3", left, right, against="quadrature", atol=1e-10)` prints one line and raises when the two sides
differ. The line never shows the difference, which may vary in its last digits from one processor to another.
"""

import numpy as np
import torch

from vae_lib.guards import not_negative

LOW_PRECISION = (torch.float32, torch.float16, torch.bfloat16)


def check(number, left, right, *, against, atol, stderr=None, shares="nothing"):
    """Assert |left - right| <= atol everywhere, and say so in one line that names the equation and the source.

    `left` and `right` are numbers, arrays or tensors of one shape (or one of them a single number), and no two views of
    the same memory. Without `stderr` they must be float64: the check is exact. With `stderr`, the standard error of
    their difference, the check is a measured one: the sides must also agree within 4 standard errors, and these must
    not exceed `atol`.

    `shares` names the code or formula that both sides go through, if any, and so what the check cannot find wrong.

    Raises ValueError or TypeError for sides that cannot be compared, AssertionError when the equation does not hold.
    """
    left, right = _sides(number, left, right, against, atol, exact=stderr is None)
    common = _common(number, shares)
    differences = (left - right).abs()
    difference = differences.max().item()
    if difference > atol:
        raise AssertionError(f"({number}) does not hold: {difference:g} from {against}, wanted at most {atol:g}")
    if stderr is None:
        print(f"({number}) holds against {against}, to within {atol:g}{common}")
        return
    stderr = torch.as_tensor(stderr, dtype=torch.float64)
    if stderr.numel() > 1 and stderr.shape != differences.shape:
        raise ValueError(f"({number}) stderr: wanted one number, or shape {tuple(differences.shape)}, as the sides "
                         f"have, got {tuple(stderr.shape)}")
    if not (stderr.isfinite().all() and (stderr > 0).all() and 4 * stderr.max() <= atol):
        raise ValueError(f"({number}) stderr: wanted positive numbers of at most atol / 4 = {atol / 4:g}, "
                         f"got {stderr.min():g} to {stderr.max():g}")
    if (differences > 4 * stderr).any():
        raise AssertionError(f"({number}) does not hold: {difference:g} from {against}, more than 4 standard errors")
    print(f"({number}) holds against {against}, to within {atol:g} and 4 standard errors{common}")


def check_at_most(number, left, right, *, against, atol=0.0, shares="nothing"):
    """Assert left <= right + atol everywhere, in float64, and say so in one line that names the equation.

    Raises ValueError or TypeError for sides that cannot be compared, AssertionError when the inequality does not hold.
    """
    left, right = _sides(number, left, right, against, atol, exact=True)
    common = _common(number, shares)
    excess = (left - right).max().item()
    if excess > atol:
        raise AssertionError(f"({number}) does not hold: the left side exceeds {against} by {excess:g}")
    print(f"({number}) holds as a bound, against {against}" + (f", to within {atol:g}" if atol else "") + common)


def _common(number, shares):
    """The end of the printed line, which names the code that both sides share; empty for "nothing"."""
    if not (isinstance(shares, str) and shares):
        raise ValueError(f"({number}) shares: wanted words, or \"nothing\", got {shares!r}")
    return "" if shares == "nothing" else f" (both go through {shares})"


def _sides(number, left, right, against, atol, exact):
    """Both sides as float64 tensors, after every reason why comparing them would prove nothing is ruled out."""
    if not (isinstance(against, str) and against):
        raise ValueError(f"({number}) against: wanted the name of an independent source, got {against!r}")
    not_negative(f"({number}) atol", atol)
    left, right = (side if isinstance(side, torch.Tensor) else torch.as_tensor(np.asarray(side))
                   for side in (left, right))
    for name, side in (("left", left), ("right", right)):
        if side.is_complex():
            raise TypeError(f"({number}) {name}: wanted real numbers, got {side.dtype}")
        if exact and side.dtype in LOW_PRECISION:
            raise TypeError(f"({number}) {name}: wanted float64 for an exact check, got {side.dtype}")
        if side.numel() == 0 or not side.isfinite().all():
            finite = side.isfinite().sum().item()
            raise ValueError(f"({number}) {name}: wanted finite values, got {finite} finite of {side.numel()}")
        if not side.is_floating_point() and side.double().abs().max() >= 2**53:
            raise ValueError(f"({number}) {name}: wanted integers below 2**53, which float64 holds, got {side.max()}")
    if left.shape != right.shape and left.numel() > 1 and right.numel() > 1:
        raise ValueError(f"({number}) left and right: wanted one shape, got {left.shape} and {right.shape}")
    if left.data_ptr() == right.data_ptr() and left.squeeze().stride() == right.squeeze().stride():
        raise ValueError(f"({number}) left and right: wanted two computations, got the same memory twice")
    return left.detach().double(), right.detach().double()
