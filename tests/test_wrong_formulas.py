"""Every numbered equation has a wrong form beside it in wrong_formulas.diff, and its check catches that."""

import functools
import re
from pathlib import Path

import matplotlib.pyplot as plt
import pytest
import torch
from page_cells import Page

from course import pages

HERE = Path(__file__).parent
FORMS = re.findall(r"^@@ (\S+) @@ (.+)\n-(.+)\n\+(.+)$", (HERE / "wrong_formulas.diff").read_text(), re.MULTILINE)
each_form = pytest.mark.parametrize("number, mistake, right, wrong", FORMS, ids=[" ".join(form[:2]) for form in FORMS])


@functools.cache
def page(start):
    """The chapter whose file name begins so."""
    (path,) = [path for path in pages.paths([start], HERE.parent / pages.FOLDER) if pages.equations(path)]
    return Page([source for _, source in pages.cells(path, "code")])


@pytest.fixture(autouse=True)
def as_before():
    """What the set-up of a page changes for the whole process is put back."""
    with plt.rc_context():
        yield
    plt.close("all")
    torch.set_default_dtype(torch.float32)


def test_every_equation_has_a_wrong_form():
    assert list(dict.fromkeys(number for number, *_ in FORMS)) == [
        number for path in pages.paths(folder=HERE.parent / pages.FOLDER) for number in pages.equations(path)]


def caught(page, number, right, wrong):
    """What the first check says that notices a mistake, after it has passed without the mistake."""
    mistaken = page.with_mistake(number, right, wrong)
    for i in page.checks(number):
        page.prove(i)
        try:
            mistaken.prove(i)
        except AssertionError as error:
            return str(error)
    return "nothing"


@each_form
def test_the_check_catches_the_wrong_form(number, mistake, right, wrong):
    said = caught(page(f"{int(number.partition('.')[0]):02}"), number, right, wrong)
    assert said.startswith(f"({number}) does not hold"), f"({number}) {mistake}: the check says {said}"


def test_a_mistake_counts_as_caught_by_a_check_of_its_own_equation():
    small = Page(["from vae_lib.checks import check", "def double(x):\n    return 2 * x",
                  'check("1.1", double(1.5), 3.0, against="hand", atol=0.0)\nassert False\n'
                  'check("1.2", double(0.0), 0.0, against="hand", atol=0.0)'])
    assert caught(small, "1.1", "2 * x", "3 * x").startswith("(1.1) does not hold: 1.5 from hand")
    assert caught(small, "1.2", "2 * x", "3 * x") == "nothing", "it is blind for a factor"
    assert caught(small, "1.2", "2 * x", "2 + x").startswith("(1.2) does not hold")
    for twice in ("x", "y"):
        with pytest.raises(ValueError, match=rf"\(1.1\) wanted code that stands once in the page, got '{twice}'"):
            caught(small, "1.1", twice, "z")
    wrong = small.with_mistake("1.1", "2 * x", "3 * x")
    with pytest.raises(AssertionError, match=r"\(1.1\) does not hold"):
        caught(wrong, "1.1", "3 * x", "2 * x")


def test_a_part_gets_its_own_networks_and_no_more_of_the_page_than_it_reads():
    small = Page(["from torch import nn\nfrom vae_lib.checks import check", "net = nn.Linear(1, 1).double()", "1 / 0",
                  "net.bias.data += 1\nmoved = net.bias.item()",
                  'check("1.1", moved - net.bias.item(), 1.0, against="hand", atol=1e-12)'])
    assert caught(small, "1.1", "+= 1", "+= 2").startswith("(1.1) does not hold")
