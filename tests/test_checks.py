"""The checks that the pages rely on: they pass when the sides agree, and cannot pass when nothing was proved."""

import pytest
import torch

from vae_lib.checks import check, check_at_most

DOUBLE = torch.tensor([1.0, 2.0], dtype=torch.float64)


def test_an_equation_that_holds_is_named_in_one_line(capsys):
    check("1.1", DOUBLE, DOUBLE + 1e-12, against="quadrature", atol=1e-10)
    assert capsys.readouterr().out == "(1.1) holds against quadrature, to within 1e-10\n"


def test_numbers_arrays_and_tensors_can_be_compared(capsys):
    check("1.1", DOUBLE, [1.0, 2.0], against="a list", atol=0.0)
    check("1.1", DOUBLE.numpy().copy(), DOUBLE, against="an array", atol=0.0)
    check("1.1", torch.ones(3, dtype=torch.float64), 1, against="one number", atol=0.0)
    assert capsys.readouterr().out.count("holds") == 3


def test_a_difference_anywhere_raises():
    with pytest.raises(AssertionError, match=r"\(1.1\) does not hold: 0.5 from quadrature, wanted at most 0.1"):
        check("1.1", DOUBLE, torch.tensor([1.0, 2.5], dtype=torch.float64), against="quadrature", atol=0.1)


def test_a_measured_check_wants_four_standard_errors(capsys):
    measured = torch.tensor([1.03, 2.03])
    check("5.1", measured, [1.0, 2.0], against="Monte Carlo", atol=0.1, stderr=torch.tensor([0.01, 0.02]))
    assert "to within 0.1 and 4 standard errors" in capsys.readouterr().out
    with pytest.raises(AssertionError, match="more than 4 standard errors"):
        check("5.1", measured, [1.0, 2.0], against="Monte Carlo", atol=0.1, stderr=0.005)


def test_numbers_and_parts_of_one_tensor_can_be_compared(capsys):
    """A small integer is one object wherever it stands; the two halves of a tensor are two results."""
    square = DOUBLE * DOUBLE[:, None]
    for left, right in ((14, 14), (0.5, 0.5), (2**53 - 1, 2**53 - 1), (DOUBLE[:1], DOUBLE[1:] - 1),
                        (square, square.mT)):
        check("9.2", left, right, against="a count by hand", atol=0.0)
        check_at_most("9.2", left, right, against="a count by hand")
    assert capsys.readouterr().out.count("holds") == 10


def test_a_standard_error_of_another_shape_is_refused():
    with pytest.raises(ValueError, match=r"stderr: wanted one number, or shape \(2,\), .* got \(2, 1\)"):
        check("5.1", DOUBLE, [1.0, 2.0], against="Monte Carlo", atol=0.1, stderr=torch.full((2, 1), 0.01))


@pytest.mark.parametrize("stderr", [0.1, 0.0, float("nan"), -0.01])
def test_a_standard_error_that_proves_nothing_is_refused(stderr):
    with pytest.raises(ValueError, match="stderr: wanted positive numbers of at most atol / 4 = 0.025, got"):
        check("5.1", 1.0, 1.0 + 1e-9, against="Monte Carlo", atol=0.1, stderr=stderr)


def test_a_bound_holds_one_way_only(capsys):
    check_at_most("2.2", DOUBLE - 1, DOUBLE, against="the exact value")
    assert capsys.readouterr().out == "(2.2) holds as a bound, against the exact value\n"
    with pytest.raises(AssertionError, match=r"\(2.2\) does not hold: the left side exceeds the exact value by 1"):
        check_at_most("2.2", DOUBLE, DOUBLE - 1, against="the exact value")


@pytest.mark.parametrize("left, right, options, error, message", [
    (DOUBLE, DOUBLE, {}, ValueError, "the same memory twice"),
    (DOUBLE, DOUBLE.detach(), {}, ValueError, "the same memory twice"),
    (DOUBLE, DOUBLE[:], {}, ValueError, "the same memory twice"),
    (DOUBLE, DOUBLE[None].mT.squeeze(), {}, ValueError, "the same memory twice"),
    (DOUBLE, DOUBLE.numpy(), {}, ValueError, "the same memory twice"),
    (DOUBLE[0], DOUBLE[:1], {}, ValueError, "the same memory twice"),
    (2**60, 2**60 + 1, {}, ValueError, r"left: wanted integers below 2\*\*53, .*, got 1152921504606846976"),
    (1, torch.tensor([-2**53]), {}, ValueError, "right: wanted integers below"),
    (DOUBLE.float(), DOUBLE, {}, TypeError, "left: wanted float64 for an exact check, got torch.float32"),
    (DOUBLE + 1j, DOUBLE, {}, TypeError, "left: wanted real numbers, got torch.complex128"),
    (DOUBLE, DOUBLE.half(), {}, TypeError, "right: wanted float64"),
    (DOUBLE, DOUBLE[:0], {}, ValueError, "right: wanted finite values"),
    (DOUBLE * float("nan"), DOUBLE, {}, ValueError, "left: wanted finite values"),
    (DOUBLE, torch.ones(2, 2, dtype=torch.float64), {}, ValueError, "wanted one shape"),
    (DOUBLE, DOUBLE + 0, {"against": ""}, ValueError, "against: wanted the name"),
    (DOUBLE, DOUBLE + 0, {"atol": float("inf")}, ValueError, "atol: wanted a finite number"),
])
@pytest.mark.parametrize("function", [check, check_at_most])
def test_a_comparison_that_proves_nothing_is_refused(function, left, right, options, error, message):
    with pytest.raises(error, match=message):
        function("1.1", left, right, **{"against": "quadrature", "atol": 1e-6, **options})
