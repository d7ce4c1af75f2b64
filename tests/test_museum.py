"""The museum of page 13 is whole: each exhibit of `checkup` hangs there, with all its parts, and is caught there."""

import re

import pytest

from course import pages
from vae_lib.checkup.exhibits import EXHIBITS

PAGE, = pages.paths(["13"])
CELLS = [text for _, text in pages.cells(PAGE, "markdown")]
CODE = "\n".join(text for _, text in pages.cells(PAGE, "code"))
PLAN = dict(re.findall(r"\| \[(\w+)\]\(#(.+?)\) \|", "\n".join(CELLS)))


def test_the_floor_plan_names_what_checkup_finds():
    assert set(PLAN) == set(EXHIBITS) and len(set(PLAN.values())) == len(PLAN)


def test_each_exhibit_is_caught_by_a_check_that_its_repair_passes():
    shown = re.findall(r"^exhibit\((check_\w+), (\w+), (\w+)\)$", CODE, re.MULTILINE)
    assert [broken for _, broken, _ in shown] == list(PLAN)
    assert len({repaired for _, _, repaired in shown}) == len({check for check, _, _ in shown}) == 7


@pytest.mark.parametrize("exhibit, anchor", PLAN.items(), ids=list(PLAN))
def test_an_exhibit_has_all_its_parts(exhibit, anchor):
    _, text = "\n".join(CELLS).split(f"### {anchor.replace('-', ' ')}\n")
    text, *_ = re.split(r"(?m)^###? ", text)
    assert re.findall(r"(?m)^\*(Symptom|Diagnosis|Met)\b", text) == ["Symptom", "Diagnosis", "Met"]
    assert f"def {exhibit}(" in CODE
