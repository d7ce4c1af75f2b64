"""The lecturer's page: its minutes, its exam commands, and what it says of a reference that leads nowhere."""

import re
from pathlib import Path

import nbformat
import pytest

from course import exam, lectures, pages, slide_blocks, slides

PLAN = {"Lecture 1: the bound": ["00", "01", "02"], "Lecture 2: its two terms": ["04", "05", "06"],
        "Lecture 3: two networks, one bound": ["03", "07"], "Lecture 4: the model": ["08", "09"],
        "Lecture 5: what it can do": ["10", "11", "12"], "A single lecture of 45 minutes": ["00"],
        "A museum of mistakes: 45 minutes more": ["13"]}
each_lecture = pytest.mark.parametrize("lecture", PLAN)


@pytest.fixture(scope="module")
def page():
    return lectures.render()


@pytest.fixture(scope="module")
def parts(page):
    """The page's sections by their headings."""
    return dict(part.split("\n", 1) for part in page.split("\n## ")[1:])


def rows(part):
    """The rows of a lecture's table, as lists of cells."""
    lines = [line for line in part.splitlines() if re.match(r"\| \d+–", line)]
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]


def test_the_page_has_the_lectures(parts):
    assert list(parts) == ["Before your first lecture", *PLAN]


@each_lecture
def test_minutes_follow_each_other_to_the_end(parts, lecture):
    spans = [tuple(map(int, row[0].split("–"))) for row in rows(parts[lecture])]
    assert [start for start, _ in spans] == [0, *(end for _, end in spans[:-1])]
    assert all(start < end for start, end in spans)
    assert spans[-1][1] == (45 if "45" in lecture else 90)


@each_lecture
def test_each_row_has_all_columns_and_only_a_break_is_empty(parts, lecture):
    for row in rows(parts[lecture]):
        assert len(row) == 4
        assert all(row) or row[1:] == ["Break", "", ""]


@each_lecture
def test_without_a_kernel_each_explorer_has_stills_to_show(parts, lecture):
    shown = [row[2] for row in rows(parts[lecture]) if "**Explorer**" in row[2]]
    assert shown and all("*No kernel:*" in cell for cell in shown)


@each_lecture
def test_each_page_of_a_lecture_is_taught_and_set_and_examined(parts, lecture, tmp_path, monkeypatch):
    part, wanted = parts[lecture], PLAN[lecture]
    taught = "\n".join(row[1] for row in rows(part))
    assert sorted(set(re.findall(r"\]\((\d\d)_", taught))) == wanted
    assert part.count("**Vote:** ") >= 2 and "Explorer" in part
    command, = re.findall(r"`python3 run.py exam (.+)`", part)
    monkeypatch.setattr(exam, "page", lambda title, text: text)  # HTML, whose formulas take a second to draw
    exam.main(command.split(), tmp_path)
    asked = {name for name in exam.PAGES if f"Page {name}, " in (tmp_path / "key.md").read_text(encoding="utf-8")}
    assert asked >= set(wanted) and f"--pages {','.join(sorted(asked))} " in command
    if lecture.startswith("Lecture"):
        assert asked == set(wanted)
        assert {name for name in wanted if f"exercises/{name}_" in part.split("At home")[1]} >= set(wanted) - {"00"}


def test_links_lead_to_headings(page):
    links = re.findall(r"\]\(([\w/]+\.ipynb)(?:#(.+?))?\)(?=[ ,.:;)]|$)", page, re.MULTILINE)
    assert len(links) == len(re.findall(r"\.ipynb", page)) > 150
    anchors = {}
    for name in {name for name, _ in links}:
        cells = nbformat.read(pages.FOLDER / name, as_version=4).cells
        headings = re.findall(r"(?m)^## (.+)$", "\n\n".join(cell.source for cell in cells))
        anchors[name] = {"", *(heading.replace(" ", "-") for heading in headings)}
    assert [(name, anchor) for name, anchor in links if anchor not in anchors[name]] == []


@pytest.mark.parametrize("call, said", [
    (lambda: lectures.section("02", "A third derivation"), "section of page 02: wanted one of .*got 'A third"),
    (lambda: lectures.section("14"), "page: no notebook in notebooks/ begins with '14'"),
    (lambda: lectures.exercise("2.9"), "exercise: wanted one of 2.1, .*got '2.9'"),
    (lambda: lectures.homework("2.1", "2.9"), "exercise: wanted one of 2.1, .*got '2.9'"),
    (lambda: lectures.mistake("2.1", "entrophy"), "mistake of 2.1: wanted words of one text, got 'entrophy', which 0"),
    (lambda: lectures.mistake("2.1", "the"), "which [2-9] of these hold"),
    (lambda: lectures.vote("02", "nobody asks"), "vote of page 02: .*got 'nobody asks'"),
    (lambda: lectures.reason("02", "nobody says"), "answers of page 02: .*got 'nobody says'"),
    (lambda: lectures.printed("02", "log p(x)", "never"), r"output of page 02: .*got 'log p\(x\)' and 'never'"),
    (lambda: lectures.still("02", "mu = 1"), "stills of page 02: wanted .*got 'mu = 1: '"),
    (lambda: lectures.still("02", "mu = 1.1", "gap = 1"), "got 'mu = 1.1: ' and 'gap = 1'"),
    (lambda: lectures.sliders("02", sigma=1), "slider of page 02: wanted one of mu, log_var, x, got 'sigma'"),
    (lambda: lectures.sliders("02", mu=3.1), "slider mu of page 02: wanted -3.0 to 3.0 in steps of 0.1, got 3.1"),
    (lambda: lectures.sliders("02", mu=0.05), "in steps of 0.1, got 0.05")])
def test_a_reference_that_leads_nowhere_is_refused(call, said):
    with pytest.raises(ValueError, match=said):
        call()


def addresses(stem):
    """The addresses of a deck's sections."""
    cells = nbformat.read(f"notebooks/{stem}.ipynb", as_version=4).cells
    return {block.note for cell, kind in zip(cells, slides.slide_types(cells), strict=True)
            if cell.cell_type == "markdown" and kind not in ("skip", "notes")
            for block in slide_blocks.blocks(cell) if block.kind.endswith("heading")}


def test_every_link_to_slides_leads_to_a_section_of_a_deck(page):
    links = re.findall(r'href="\.\./slides/(\w+)\.html#/([^"]+)"', page)
    anchors = {stem: addresses(stem) for stem in {stem for stem, _ in links}}
    assert len(anchors) == 15 and len(links) > 60
    assert [(stem, anchor) for stem, anchor in links if anchor not in anchors[stem]] == []


def test_what_is_pulled_is_what_stands_there():
    assert lectures.section("02", "Two ways to raise it") == (
        "[Two ways to raise it](02_elbo.ipynb#Two-ways-to-raise-it)")
    assert lectures.exercise("2.1") == "[2.1 A better family](exercises/02_elbo.ipynb#2.1-A-better-family)"
    assert lectures.homework("4.1", "4.2").startswith("At home, 20 minutes:")
    assert lectures.vote("08", "which part of the gap") == "**Vote:** which part of the gap is the larger one? (b)"
    assert lectures.sliders("02", mu=-2.1, log_var=-2) == "`mu` -2.1, `log_var` -2"
    assert lectures.time("04", "run") == "fifteen seconds" and lectures.time("04", "read") == "52 minutes"


def test_the_template_types_nothing_that_the_pages_say():
    words = Path(lectures.TEMPLATE).read_text(encoding="utf-8")
    titles = [title for number in exam.PAGES for title in re.findall(
        r"(?m)^## (.{12,})$", "\n\n".join(lectures.sources(number, "markdown")))]
    typed = re.sub(r"\{\{.+?\}\}|\{%.+?%\}", "", words, flags=re.DOTALL)
    assert len(titles) > 100 and [title for title in titles if title in typed] == []
