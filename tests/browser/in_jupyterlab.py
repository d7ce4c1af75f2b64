"""Every page in JupyterLab, as a reader meets it: `python3 run.py browser` starts this, and `run.py test` does not."""

import re
from pathlib import Path

import nbformat
import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import expect

from course import browser, pages
from vae_lib import answers

COPIES = browser.FOLDER / "notebooks"
EXPLORER = ".jp-OutputArea-output > .widget-vbox:has(.widget-slider)"
DIALOG = ".jp-Dialog, .Toastify__toast"

# Read from an explorer's img: its accessible name, and a hash of the picture itself.
PICTURE = """async img => {
    for (let tries = 1; ; tries++) try {
        await img.decode()  // else the last picture but some may be what is still seen
        const bytes = await (await fetch(img.src)).arrayBuffer()
        const hash = new Uint8Array(await crypto.subtle.digest('SHA-256', bytes))
        return [img.title, hash.join()]
    } catch (error) {  // as where a new picture takes its place meanwhile
        if (tries === 20) throw error
        await new Promise(requestAnimationFrame)
    }
}"""
SETTLED = f"""async img => {{  // the same, once nothing has been drawn for a quarter of a second
    for (let last = '', now; ; last = now) {{
        now = await ({PICTURE})(img)
        if (now.join() === last.toString()) return now
        await new Promise(done => setTimeout(done, 250))
    }}
}}"""
HAS_CHANGED = f"""async ([img, before]) => {{
    const now = await ({PICTURE})(img)
    return now[0] !== before[0] && now[1] !== before[1]
}}"""


def new_page(chromium):
    page = chromium.new_page(viewport={"width": 1280, "height": 900})
    page.complaints = []
    page.on("pageerror", lambda error: page.complaints.append(str(error)))
    page.on("console", lambda line: line.type == "debug" or page.complaints.append(f"{line.type}: {line.text}"))
    page.set_default_timeout(30_000)
    return page


@pytest.fixture(scope="module")
def opened():
    """The page of the browser in which JupyterLab is open, if there is one, in a list."""
    return []


@pytest.fixture
def page(request, chromium, opened):
    """A page of the browser without a notebook; what the browser complains about goes into `page.complaints`.

    One test leaves JupyterLab to the next, but not after a failure.
    """
    page, failed = opened.pop() if opened else new_page(chromium), request.session.testsfailed
    page.complaints.clear()
    yield page
    browser.close_notebook(page)
    if request.session.testsfailed == failed:
        opened.append(page)
    else:
        page.close()


def screenshot(place, name):
    place.screenshot(path=browser.SCREENSHOTS / f"{name}.png")


def scroll_to(place):
    """Scroll to a part of the page until it stays: what is painted on the way may be of another height than guessed."""
    for _ in range(3):
        place.evaluate("""place => {
            place.scrollIntoView({block: 'center'})
            return new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))
        }""")
    return place


def show_cell(page, i):
    return scroll_to(page.locator(".jp-Notebook .jp-Cell").nth(i))


@pytest.mark.parametrize("path", pages.paths(), ids=lambda path: path.stem)
def test_page(page, subtests, path):
    name, stored = path.stem, nbformat.read(COPIES / path.name, as_version=4)
    browser.open_notebook(page, path.name)
    ran = browser.run_all(page)
    assert browser.errors(ran) == []
    with subtests.test("the code of cells that only draw is folded, and no other"):
        tags = [cell.metadata.get("tags", ()) for cell in stored.cells if cell.cell_type == "code"]
        code = page.locator(".jp-Notebook .jp-CodeCell")
        expect(code).to_have_count(len(tags))
        folded = code.evaluate_all("cells => cells.map(cell => !!cell.querySelector('.jp-InputPlaceholder'))")
        assert folded == ["figure" in each for each in tags]
    with subtests.test("no dialog and no notification stands in the way"):
        assert page.locator(DIALOG).all_inner_texts() == []
    explorers = page.locator(EXPLORER)
    with subtests.test("every explorer is drawn"):
        expect(explorers).to_have_count(sum(is_explorer for _, is_explorer in browser.pictures(ran)))
    for i in range(explorers.count()):
        with subtests.test(f"explorer {i + 1} can be used without a mouse"):
            move_every_slider(page, explorers.nth(i), f"{name}_explorer_{i + 1}")
    with subtests.test("axe finds nothing serious in the explorers"):
        assert serious(page) == []
    for place, i in ("1_top", 0), ("2_middle", len(ran.cells) // 2), ("3_end", len(ran.cells) - 1):
        show_cell(page, i)
        screenshot(page, f"{name}_{place}")

    browser.save(page)
    saved = nbformat.read(COPIES / path.name, as_version=4)
    with subtests.test("the words are those that are stored"):
        assert browser.differences(stored, saved, Path("notebooks/sanitize.cfg").read_text()) == []
    for kind, exporter in browser.EXPORTERS.items():
        with subtests.test(f"every picture stands in the export to {kind}"):
            assert browser.not_shown(saved, exporter()) == 0
    if True in folded:
        with subtests.test("folded code is one click away"):
            i = folded.index(True)
            scroll_to(code.nth(i)).locator(".jp-InputPlaceholder").click()
            expect(code.nth(i).locator(".cm-content")).to_be_visible()
    with subtests.test("the browser has nothing to complain about"):
        assert page.complaints == []


def move_every_slider(page, explorer, name):
    """Move each slider by an arrow key and to both ends: picture and description change, and nothing fails."""
    picture = explorer.locator("img")
    screenshot(scroll_to(explorer), f"{name}_before")
    for slider in explorer.locator(".widget-slider").all():
        label, handle = slider.locator(".widget-label"), slider.locator(".noUi-handle")
        readout = slider.locator(".widget-readout")
        value, words = readout.inner_text(), label.inner_text()
        now, high = (float(handle.get_attribute(f"aria-value{part}")) for part in ("now", "max"))
        handle.focus()
        for key in ("ArrowRight", "Home", "End") if now < high else ("ArrowLeft", "End", "Home"):
            before = picture.evaluate(SETTLED)  # else it is the last key's picture that comes
            page.keyboard.press(key)
            page.wait_for_function(HAS_CHANGED, arg=[picture.element_handle(), before])
        assert words.strip() and handle.get_attribute("aria-valuetext"), "a slider without a name or a value"
        assert handle.get_attribute("aria-label") == words
        assert readout.inner_text() != value, words
        assert explorer.locator("> .widget-label").inner_text() == "", words
        assert label.evaluate("label => label.scrollWidth <= label.clientWidth"), f"{words!r} is cut off"
    picture.evaluate(SETTLED)
    screenshot(scroll_to(explorer), f"{name}_after")


def serious(page):
    """What axe finds serious or critical in the explorers: rule and element."""
    if not page.locator(EXPLORER).count():
        return []
    return [(violation["id"], node["html"]) for violation in Axe().run(page, EXPLORER).response["violations"]
            if violation["impact"] in ("serious", "critical") for node in violation["nodes"]]


@pytest.mark.parametrize("path", pages.paths(folder=pages.FOLDER / "exercises"), ids=lambda path: path.stem)
def test_exercises(page, path):
    """A right answer, a wrong one and a known mistake, typed into an exercise notebook, get their words."""
    exercises, solutions = (nbformat.read(COPIES / folder / path.name, as_version=4)
                            for folder in ("exercises", "solutions"))
    (i, right, _, its_word), (k, _, wrong, other_word) = browser.answers(exercises, solutions)[:2]
    browser.open_notebook(page, f"exercises/{path.name}")
    untouched = browser.run_all(page)
    assert browser.errors(untouched) == []
    assert "not written yet" in said(page, its_word) and "not written yet" in said(page, other_word)
    write(page, i, right)
    write(page, k, wrong)
    browser.run_all(page)
    for word, wanted in (its_word, ": right"), (other_word, ": not yet right"):
        assert wanted in said(page, word)
        screenshot(page, f"{path.stem}_exercise{wanted.replace(':', '').replace(' ', '_')}")
    number, name = re.match(r'answer\("(.+)", (\w+)\)$', exercises.cells[other_word].source).groups()
    page_of = number.partition(".")[0]
    known = answers.exercises(page_of)[number]
    call = "()" if known.cases is None else ""
    write(page, k, f"import vae_lib.answers\n{name} = vae_lib.answers.exercises({page_of!r})[{number!r}]"
                   f".mistakes[0][1]{call}")
    browser.run_all(page)
    assert known.mistakes[0][0] in said(page, other_word)
    screenshot(page, f"{path.stem}_exercise_known_mistake")
    assert page.complaints == []


def write(page, i, source):
    """Write a cell's source anew, as a reader does."""
    show_cell(page, i).locator(".cm-content").click()
    page.keyboard.press("Control+a")
    page.keyboard.insert_text(source)


def said(page, i):
    return show_cell(page, i).locator(".jp-OutputArea-output").first.inner_text()
