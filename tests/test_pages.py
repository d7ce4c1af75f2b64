"""Every stored page: its equations are checked, its functions are the library's, its cells were run in order."""

import ast
import inspect
import pkgutil
import re
from pathlib import Path

import nbformat
import pytest
from nbclient.exceptions import CellExecutionError
from page_cells import bound, needs

import vae_lib
from course import pages
from course.exercises import SHORT

PAGES = pages.paths(folder=pages.FOLDER)
UNITS = re.compile(  # in which a slider may count; for a ratio or a logarithm, how it is to be read
    r"nats|pixels|images|dimensions|convolutions|count|index|digit|place|per image|grey value|standard deviations|"
    r"\bstd\b|\bunits\b|share of|ratio of|log10|2 to this power|exponent of|multiples of|natural log|0 sum, 1")
LIBRARY = [module.name for module in pkgutil.iter_modules(vae_lib.__path__) if not module.ispkg]
each_page = pytest.mark.parametrize("path", PAGES, ids=[path.stem for path in PAGES])


def bare(node):
    """A definition as text, without its decorators, annotations and docstrings."""
    for part in ast.walk(node):
        if isinstance(part, ast.FunctionDef | ast.ClassDef):
            part.decorator_list = []
            if ast.get_docstring(part) is not None:
                part.body = part.body[1:] or [ast.Pass()]
        for annotation in ("returns", "annotation"):
            if hasattr(part, annotation) and not isinstance(part, ast.AnnAssign):
                setattr(part, annotation, None)
    return ast.unparse(node)


def definitions(text):
    """The functions and classes that stand at the top level of a source: a dict from name to bare text."""
    tree = ast.parse(text)
    return {node.name: bare(node) for node in tree.body if isinstance(node, ast.FunctionDef | ast.ClassDef)}


def library_definitions():
    """The public functions and classes of every module of the library."""
    sources = [(pages.Path(vae_lib.__file__).parent / f"{name}.py").read_text() for name in LIBRARY]
    return {name: text for source in sources for name, text in definitions(source).items() if name[0] != "_"}


CHAPTERS = [path for path in PAGES if path.name[:2].isdigit() and path.name != SHORT]
each_chapter = pytest.mark.parametrize("path", CHAPTERS, ids=[path.stem for path in CHAPTERS])


def test_the_chapters_are_numbered_without_a_gap():
    assert [path.name[:2] for path in CHAPTERS] == [f"{number:02}" for number in range(len(CHAPTERS))]


@each_page
def test_every_equation_has_a_check_below_it_and_every_check_an_equation(path):
    equations, checks = pages.equations(path), pages.checks(path)
    assert set(equations) == {check.number for check in checks}
    assert list(equations) == [f"{int(path.name[:2])}.{i + 1}" for i in range(len(equations))]
    for check in checks:
        assert check.cell > equations[check.number], f"({check.number}) is checked above its equation"
    independent = {check.number for check in checks if check.shares == "nothing"}
    assert set(equations) == independent, "each equation has a witness that shares nothing with what it checks"


@each_page
def test_a_cell_that_defines_a_library_function_equals_it(path):
    library = library_definitions()
    for _, text in pages.cells(path, "code"):
        for name, definition in definitions(text).items():
            assert definition == library.get(name, definition), f"{name} differs from vae_lib's"


@each_page
def test_the_page_is_stored_as_refresh_leaves_it(path):
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    assert len({cell.id for cell in notebook.cells}) == len(notebook.cells)
    assert pages.normalise(nbformat.read(path, as_version=4)) == notebook
    assert path.stat().st_size < 1_000_000
    for cell in code:
        for output in cell.outputs:
            assert output.output_type != "error" and output.get("name") != "stderr", output
            said = output.get("text", "") + output.get("data", {}).get("text/plain", "")
            assert not re.search(r"0x[0-9a-f]{6,}|/root/|/home/|/tmp/", said)


@each_page
def test_every_picture_has_alternative_text(path):
    for cell in nbformat.read(path, as_version=4).cells:
        assert "![](" not in cell.source
        for output in cell.get("outputs", []):
            if "image/png" in output.get("data", {}):
                assert output.data["text/plain"] == output.metadata["image/png"]["alt"] > ""


@each_page
def test_code_is_short_and_imports_by_name(path):
    sources = [text for _, text in pages.cells(path, "code")]
    assert max(len(text.splitlines()) for text in sources) <= 25
    assert len(sources) <= 40
    for text in sources:
        assert not re.search(r"import \*|^\s*[%!]|;\s*$", text, re.MULTILINE), text


def prose(path):
    return "\n".join(text for _, text in pages.cells(path, "markdown"))


@each_page
def test_the_page_opens_with_what_its_reader_asks_first(path):
    name = re.match(r"\d\d|[A-Z]", path.name).group()
    assert re.match(rf"# {name} · .+\?\n", prose(path)), "the title asks the page's question"
    for part in ("*Before this page:*", "*Time on a laptop CPU:*", "*Where it stands:*"):
        assert part in prose(path), f"{part} is missing"


@each_chapter
def test_the_chapter_has_the_parts_that_a_reader_looks_for(path):
    for part in ("## Pitfall", "## Summary", "## References"):
        assert part in prose(path), f"{part} is missing"


@each_page
def test_links_between_pages_lead_somewhere(path):
    """To a page that exists and, behind a #, to one of its headings, as JupyterLab and GitHub name them."""
    for name, anchor in re.findall(r"\]\(([^)#\s:]*\.ipynb)?(?:#([^)\s]+))?\)", prose(path)):
        target = path.parent / (name or path.name)
        assert target.exists(), f"{name} is missing"
        headings = re.findall(r"(?m)^#+ (.+)$", prose(target))
        assert not anchor or anchor in {heading.strip().replace(" ", "-") for heading in headings}, f"#{anchor}"


@each_page
def test_the_readme_names_the_page_and_the_minutes_that_it_states(path):
    minutes = re.search(r"(\d+) minutes to read", prose(path)).group(1)
    assert int(minutes) <= 60
    (row,) = [line for line in Path("README.md").read_text().splitlines() if f"](notebooks/{path.name})" in line]
    assert row.split("|")[-3].strip() == minutes


@each_page
def test_the_page_has_an_explorer_and_each_of_its_sliders_a_unit(path):
    calls = [node for _, text in pages.cells(path, "code") for node in ast.walk(ast.parse(text))
             if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "Explorer"]
    assert calls
    for option in (option for call in calls for option in call.keywords if option.arg not in ("over", "stills")):
        unit = ast.literal_eval(option.value)[-1]
        assert UNITS.search(unit), f"{option.arg} ({unit})"


@each_page
def test_a_page_has_two_predictions_each_above_the_cell_that_answers(path):
    cells = nbformat.read(path, as_version=4).cells
    places = [i for i, cell in enumerate(cells) if "<b>Predict, then run:</b>" in cell.source]
    assert len(places) == 2
    for i in places:
        text = cells[i].source
        assert text.count("<b>Predict, then run:</b>") == 1 and text.startswith("<details>"), text
        assert len(re.findall(r"(?m)^- [a-d]\) ", text)) in (3, 4), text
        assert text.count("<details>") == text.count("</details>") == 2 and "<summary>Answer</summary>" in text
        assert cells[i + 1].cell_type == "code", text


@each_page
def test_what_an_explorer_reads_stays_as_it_was(path):
    """A later cell that binds one of its names anew would make it draw something else after the first move."""
    code = [ast.parse(text) for _, text in pages.cells(path, "code")]
    functions = {node.name: node for tree in code for node in tree.body if isinstance(node, ast.FunctionDef)}
    for i, tree in enumerate(code):
        calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
        waiting = [call.args[0].id for call in calls if getattr(call.func, "id", "") == "Explorer"]
        read = set()
        while waiting:
            found = needs([ast.unparse(functions[waiting.pop()])]) - read
            read |= found
            waiting += sorted(found & set(functions))
        later = {name for other in code[i + 1:] for node in other.body for name in bound(node)}
        assert not read & later, f"{sorted(read & later)} are bound anew below the explorer"


@each_page
def test_what_is_folded_only_draws(path):
    """No check, no assert, no print, and nothing that a cell which stays open reads; explorers are always folded."""
    code = [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]
    folded = [cell for cell in code if cell.metadata.get("jupyter", {}).get("source_hidden")]
    assert folded == [cell for cell in code if "figure" in cell.metadata.get("tags", ())]
    assert all(cell in folded for cell in code if "Explorer(" in cell.source)
    for cell in folded:
        tree = ast.parse(cell.source)
        calls = {getattr(node.func, "id", "") for node in ast.walk(tree) if isinstance(node, ast.Call)}
        assert {"show", "Explorer"} & calls, cell.source
        assert not {"check", "check_at_most", "print"} & calls and "assert " not in cell.source, cell.source
        made = {name for node in tree.body for name in bound(node)}
        later = [other.source for other in code[code.index(cell) + 1:] if other not in folded]
        assert not made & needs(later), f"{made & needs(later)} is defined where nobody sees it"


@pytest.mark.parametrize("source, names", [
    ("x = x + 1", {"x"}), ("x = 1\nx + 1", set()), ("for x in a:\n    y = x\n    y + 1", {"a"}),
    ("[x for x in a]", {"a"}), ("def f(x):\n    y = x + a\n    return y", {"a"}), ("y = [x for y in a]", {"a", "x"})])
def test_names_that_a_cell_needs(source, names):
    assert needs([source]) == names


def test_library_imports_point_one_way():
    """No cycle: modules can be put in an order in which each imports only earlier ones."""
    needs = {}
    for name in LIBRARY:
        module = __import__(f"vae_lib.{name}", fromlist=[name])
        found = re.findall(r"^(?:from vae_lib\.(\w+)|from vae_lib import ([\w, ]+))", inspect.getsource(module), re.M)
        needs[name] = {part.strip() for pair in found for group in pair for part in group.split(",") if part.strip()}
    while ready := [name for name in needs if not needs[name] & set(needs)]:
        for name in ready:
            del needs[name]
    assert not needs, f"a cycle among {sorted(needs)}"


def write_page(folder, *sources, name="07_page.ipynb"):
    """A small notebook: sources that begin with '#' or '$' become Markdown."""
    new = nbformat.v4
    cells = [new.new_markdown_cell(text) if text[0] in "#$" else new.new_code_cell(text) for text in sources]
    nbformat.write(new.new_notebook(cells=cells), folder / name)
    return folder / name


def test_equations_and_checks_are_found(tmp_path):
    path = write_page(tmp_path, r"$$a = b \tag{7.1}$$",
                      'check("7.1", 1, 1.0, against="hand", atol=1e-3, shares="the sum")',
                      'check_at_most("7.2", 0, 1, against="hand")',
                      'try:\n    check("7.1", 1, 2, against="a mistake", atol=0)\nexcept AssertionError:\n    pass')
    assert pages.equations(path) == {"7.1": 0}
    assert pages.checks(path) == [("7.1", "hand", 1e-3, "the sum", 1), ("7.2", "hand", 0.0, "nothing", 2)]
    assert pages.ledger([path]) == [("7.1", "07_page", "hand", "the sum", "0.001"),
                                    ("7.2", "07_page", "hand", "nothing", "0")]


def test_a_number_that_stands_twice_is_refused(tmp_path):
    path = write_page(tmp_path, r"$$a \tag{7.1}$$", r"$$b \tag{7.1}$$")
    with pytest.raises(ValueError, match="07_page.ipynb: an equation's number stands twice"):
        pages.equations(path)


def test_pages_are_found_by_number(tmp_path):
    first, second = (write_page(tmp_path, "x = 1", name=name) for name in ("01_a.ipynb", "02_b.ipynb"))
    assert pages.paths(folder=tmp_path) == [first, second]
    assert pages.paths(["02"], folder=tmp_path) == [second]
    with pytest.raises(ValueError, match="page: no notebook in .* begins with '09'"):
        pages.paths(["09"], folder=tmp_path)


def test_refresh_executes_and_normalises(tmp_path):
    path = write_page(tmp_path, "import sys; print(6 * 7); print('x', file=sys.stderr); print(1)")
    notebook = nbformat.read(path, as_version=4)
    notebook.metadata["widgets"] = {"application/vnd.jupyter.widget-state+json": {"state": {}}}
    nbformat.write(notebook, path)
    pages.refresh(path)
    stored = nbformat.read(path, as_version=4)
    assert stored.metadata == pages.KEPT_METADATA
    assert stored.cells[0].execution_count == 1 and stored.cells[0].metadata == {}
    outputs = {output.name: output.text for output in stored.cells[0].outputs}
    assert outputs["stderr"] == "x\n" and outputs["stdout"].endswith("1\n")


def test_split_streams_are_joined():
    new = nbformat.v4
    outputs = [new.new_output("stream", name="stdout", text=text) for text in ("a", "b")]
    notebook = new.new_notebook(cells=[new.new_code_cell("f()", outputs=outputs)])
    assert [output.text for output in pages.normalise(notebook).cells[0].outputs] == ["ab"]


def test_of_a_widget_only_the_picture_and_the_text_are_stored():
    new = nbformat.v4
    data = {pages.WIDGET_VIEW: {"model_id": "1"}, "image/png": "aGk=", "text/plain": "a slider"}
    output = new.new_output("display_data", data=data)
    notebook = new.new_notebook(cells=[new.new_code_cell("f()", outputs=[output])])
    assert pages.normalise(notebook).cells[0].outputs[0].data == {"image/png": "aGk=", "text/plain": "a slider"}


def test_a_page_that_fails_is_not_written(tmp_path):
    path = write_page(tmp_path, "1 / 0")
    before = path.read_bytes()
    with pytest.raises(CellExecutionError):
        pages.refresh(path)
    assert path.read_bytes() == before


def test_the_tasks_of_the_command_line(tmp_path, capsys):
    path = write_page(tmp_path, r"$$a = b \tag{7.1}$$", 'def check(*a, **k): pass',
                      'check("7.1", 1, 1.0, against="hand", atol=1e-3)')
    pages.main("refresh", "07", folder=tmp_path)
    pages.main("ledger", folder=tmp_path)
    out = capsys.readouterr().out.splitlines()
    assert out[0] == f"refresh {path}"
    assert out[1:] == ["equation  page     checked against  shares with it  to within",
                       "7.1       07_page  hand             nothing         0.001"]
    with pytest.raises(ValueError, match="task: wanted refresh or ledger, got 'fly'"):
        pages.main("fly")
