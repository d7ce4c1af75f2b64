"""The exercises as files: the two editions belong together, and each page has exercises of every kind."""

import re

import nbformat
import pytest

from course import exercises, pages
from vae_lib import answers
from vae_lib.comparison import comparable

PAGES = pages.paths()
each_page = pytest.mark.parametrize("path", PAGES, ids=[path.stem for path in PAGES])
NEW = nbformat.v4


def read(path, edition=""):
    return nbformat.read(path.parent / edition / path.name, as_version=4)


def sources(notebook):
    return [(cell.cell_type, cell.id, cell.source) for cell in notebook.cells]


def printed(notebook, word):
    """The exercises about which `answer` printed this word, with or without more behind a colon, in order."""
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", ())]
    text = "".join(output.get("text", "") for output in outputs)
    return [line.partition(":")[0] for line in text.splitlines() if line.split(": ")[1:2] == [word]]


@each_page
def test_each_page_has_exercises_of_all_kinds_and_a_record_of_each(path):
    entries = exercises.entries(read(path, "solutions"))
    assert 4 <= len(entries) <= 6
    page = exercises.letter(path.name)
    assert [entry.number for entry in entries] == [f"{page}.{i + 1}" for i in range(len(entries))]
    assert {entry.kind for entry in entries} == {"derive", "compute", "code", "predict", "debug"}
    assert all(5 <= entry.minutes <= 60 for entry in entries)
    assert list(answers.exercises(page)) == [entry.number for entry in entries]


@each_page
def test_an_option_that_is_typed_whole_counts_as_its_letter(path):
    text = "\n".join(cell.source for cell in read(path, "exercises").cells)
    options = re.findall(r"^- (([a-e])\) .+)$", text, re.MULTILINE)
    assert len(options) >= 3
    assert [comparable(option) for option, _ in options] == [letter for _, letter in options]


@each_page
def test_the_exercise_edition_is_the_solutions_edition_without_its_answers(path):
    solutions, question = read(path, "solutions"), exercises.question(read(path))
    assert solutions.cells[0].source == exercises.opening("solutions", path.name, question)
    assert sources(read(path, "exercises")) == sources(exercises.blank(solutions, path.name, question))


@each_page
def test_every_solution_is_right_and_every_stub_is_not_written_yet(path):
    solutions = read(path, "solutions")
    numbers = [entry.number for entry in exercises.entries(solutions)]
    assert printed(solutions, "right") == numbers
    assert printed(read(path, "exercises"), "not written yet") == numbers


@each_page
def test_the_page_links_to_its_exercises(path):
    (section,) = [cell.source for cell in read(path).cells if cell.source.startswith(exercises.TABLE)]
    assert section == exercises.table(read(path, "solutions"), path.name)


@each_page
@pytest.mark.parametrize("edition", exercises.OPENINGS)
def test_an_edition_stands_alone_and_is_stored_as_refresh_leaves_it(path, edition):
    notebook = read(path, edition)
    assert pages.normalise(read(path, edition)) == notebook
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    assert len(code[0].source.splitlines()) <= 12 and "from vae_lib.answers import answer" in code[0].source
    assert all(len(cell.source.splitlines()) <= 25 for cell in code)
    for cell in notebook.cells:
        hints = cell.source.count("<summary>Hint ")
        assert hints == (2 if exercises.HEADING.search(cell.source) else 0)
        assert cell.source.count("<details>") == cell.source.count("</details>")


def notebook_of(*cells):
    """A notebook of pairs of source and tags; sources that begin with '#' or '*' become Markdown."""
    made = [(NEW.new_markdown_cell if text[0] in "#*" else NEW.new_code_cell)(text, metadata={"tags": tags})
            for text, *tags in cells]
    return NEW.new_notebook(cells=made)


SOLUTIONS = notebook_of(
    ("# old",), ("import torch",), ("## 4.1 Half of it\n\n*derive, 10 minutes*\n\nWhat is half of x?",),
    ("*By division.*", "solution"),
    ("def helper(x):\n    return x / 2\n\n\n"
     'def half(x, scale=1):\n    """x / 2, shape (N,)."""\n    return helper(x)\n\n\n'
     "a, b = helper(4), 1\nc = half(2)\nprint(c)", "solution"),
    ('answer("4.1", half)\nanswer("4.2", [a, b])',),
    ("print(1)", "solution"))


def test_a_stub_keeps_what_answer_asks_about_and_no_more():
    blank = exercises.blank(SOLUTIONS, "04_page.ipynb", "How much?")
    texts = [cell.source for cell in blank.cells]
    assert texts[0].startswith("# Exercises of page 04: How much?\n") and "../solutions/04_page.ipynb" in texts[0]
    assert texts[1:] == [
        "import torch", "## 4.1 Half of it\n\n*derive, 10 minutes*\n\nWhat is half of x?", exercises.WORDS,
        'def half(x, scale=1):\n    """x / 2, shape (N,)."""\n    ...\n\n\na, b = ..., ...',
        'answer("4.1", half)\nanswer("4.2", [a, b])']
    assert "solution" not in str([cell.metadata for cell in blank.cells])
    assert SOLUTIONS.cells[0].source == "# old" and SOLUTIONS.cells[3].metadata["tags"] == ["solution"]


def test_entries_and_table():
    assert exercises.entries(SOLUTIONS) == [("4.1", "Half of it", "derive", 10)]
    assert "| [4.1 Half of it](exercises/04_page.ipynb#4.1-Half-of-it) | derive | 10 |" in exercises.table(
        SOLUTIONS, "04_page.ipynb").splitlines()


def test_refresh_writes_both_editions_and_the_table(tmp_path):
    page = notebook_of(("# 04 · How much?",), ("1 + 1",), ("## Exercises",))
    (tmp_path / "solutions").mkdir()
    (tmp_path / "exercises").mkdir()
    path = tmp_path / "04_page.ipynb"
    nbformat.write(page, path)
    given = notebook_of(("# old",), ("answer = print",), ("## 4.1 Half\n\n*code, 5 minutes*\n\nWhat is it?",),
                        ("half = 0.5", "solution"), ('answer("4.1:", half)',))
    nbformat.write(given, tmp_path / "solutions" / path.name)
    pages.refresh(path)
    assert read(path).cells[-1].source == exercises.table(given, path.name)
    assert read(path, "solutions").cells[0].source == exercises.opening("solutions", path.name, "How much?")
    assert read(path, "solutions").cells[-1].outputs[0].text == "4.1: 0.5\n"
    assert read(path, "exercises").cells[-2].source == "half = ..."
    assert read(path, "exercises").cells[-1].outputs[0].text == "4.1: Ellipsis\n"
