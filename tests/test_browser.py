"""What `run.py browser` compares and writes, apart from the browser."""

import base64
import shutil

import nbformat.v4 as v4
import pytest
from nbformat import from_dict

from course import browser, pages

PNG, OTHER = (base64.b64encode(name * 20).decode() for name in (b"a picture ", b"an explorer "))


def notebook(*cells):
    return v4.new_notebook(cells=list(cells))


def code(*outputs, source="1", **kwargs):
    return v4.new_code_cell(source, outputs=list(outputs), **kwargs)


def prints(text):
    return v4.new_output("stream", name="stdout", text=text)


def shows(png=PNG, **data):
    return v4.new_output("display_data", {"image/png": png, "text/plain": "A bell.", **data})


def test_without_chromium_one_line_says_so_and_nothing_fails(monkeypatch, capsys):
    monkeypatch.setattr(shutil, "which", lambda name: None)
    assert browser.main("04") == 0
    line, = capsys.readouterr().out.splitlines()
    assert line == "browser: nothing is run, for none of chromium, chromium-browser, google-chrome is installed"


def test_the_first_chromium_that_is_installed_is_taken(monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name: f"/usr/bin/{name}" if "chrom" in name[3:] else None)
    assert browser.chromium() == "/usr/bin/google-chrome"


def test_words_are_compared_as_the_tests_of_the_pages_compare_them():
    text = v4.new_markdown_cell("A page")
    stored = notebook(text, code(prints("n = 3\nmean ≈ 0.31\n"), shows()), code())
    split = notebook(text, code(prints("n = 3\n"), prints("mean ≈ 0.29\n"), shows(PNG[4:])), code())
    assert browser.differences(stored, split, SANITIZE) == []
    other = notebook(text, code(prints("n = 4\nmean ≈ 0.31\n"), shows()), code(prints("more")))
    assert browser.differences(stored, other, SANITIZE) == [
        (1, ["stdout: n = 3\nmean (measured)\n", "text/plain: A bell."],
         ["stdout: n = 4\nmean (measured)\n", "text/plain: A bell."]),
        (2, [], ["stdout: more"])]
    assert browser.differences(stored, notebook(text, stored.cells[1]), SANITIZE) == [(2, [], None)]


SANITIZE = (pages.FOLDER / "sanitize.cfg").read_text()


def test_errors_are_found_and_are_words_too():
    failed = notebook(code(v4.new_output("error", ename="ValueError", evalue="too large", traceback=[])))
    assert browser.errors(failed) == ["ValueError: too large"]
    assert browser.errors(notebook(code(prints("fine")))) == []
    assert browser.differences(notebook(code()), failed, SANITIZE) == [(0, [], ["ValueError: too large"])]


@pytest.mark.parametrize("kind", ["html", "slides"])
def test_a_picture_that_an_export_leaves_out_is_counted(kind):
    explorer = shows(OTHER, **{pages.WIDGET_VIEW: {"model_id": "0", "version_major": 2, "version_minor": 0}})
    drawn = notebook(code(shows(PNG[:40] + "\n" + PNG[40:])), code(explorer))
    assert browser.pictures(drawn) == [(PNG, False), (OTHER, True)]
    assert browser.not_shown(drawn, browser.EXPORTERS[kind]()) == 0
    assert browser.not_shown(drawn, browser.EXPORTERS[kind](exclude_output=True)) == 2
    state = {"state": {"0": {"model_name": "VBoxModel"}}, "version_major": 2, "version_minor": 0}
    drawn.metadata["widgets"] = from_dict({"application/vnd.jupyter.widget-state+json": state})
    assert browser.not_shown(drawn, browser.EXPORTERS[kind]()) == 1, "an empty widget in place of the picture"


def test_answers_stand_where_the_stubs_are():
    solution = {"tags": ["solution"]}
    solutions = notebook(code(source="def f(x):\n    return x", metadata=solution, id="f"), code(id="a"),
                         v4.new_markdown_cell("Because.", metadata=solution), code(source="g = 2", id="g"))
    exercises = notebook(code(source='def f(x):\n    """One."""\n    ...', id="f"), code(source="x = 1"),
                         code(source='answer("2.1", f)'), code(source='g = ...', id="g"))
    right, wrong = "def f(x):\n    return x", 'def f(x):\n    """One."""\n    return -12345.0'
    assert browser.answers(exercises, solutions) == [(0, right, wrong, 2)]


@pytest.mark.parametrize("stub, expected", [
    ("share = ...", "share = -12345.0"), ("low, high = ..., ...", "low, high = -12345.0, -12345.0"),
    ("def f(x):\n    ...\n\n\ny = ...", "def f(x):\n    return -12345.0\n\n\ny = -12345.0")])
def test_a_wrong_answer_fills_every_gap(stub, expected):
    assert browser.wrong(stub) == expected
