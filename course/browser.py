"""The course in a real browser: JupyterLab as its readers start it, driven through a Chromium without a window.

`python -m course.browser [04 ...]` copies the notebooks to build/browser/ and runs tests/browser/in_jupyterlab.py on
the copy, two pages at a time, with the 5,000 digits that need no network. Screenshots and JupyterLab's log stay there.
"""

import copy
import os
import re
import shutil
import subprocess
import sys
import time
from contextlib import contextmanager
from itertools import takewhile
from pathlib import Path

import nbformat
from jupyter_server.serverapp import list_running_servers
from nbconvert import HTMLExporter, SlidesExporter
from nbval.plugin import get_sanitize_patterns
from playwright.sync_api import sync_playwright

from course import pages

CHROMIUM = ("chromium", "chromium-browser", "google-chrome")
FOLDER = Path("build/browser")
SCREENSHOTS = FOLDER / "screenshots"
TESTS = "tests/browser/in_jupyterlab.py"
OPEN = "jupyterapp.shell.currentWidget"  # JupyterLab's panel with the notebook


def chromium():
    """The path of Chromium on this machine, or None."""
    return next(filter(None, map(shutil.which, CHROMIUM)), None)


@contextmanager
def launched():
    """A Chromium without a window, while the block runs."""
    with sync_playwright() as playwright:
        arguments = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
        started = playwright.chromium.launch(executable_path=chromium(), args=arguments)
        yield started
        started.close()


def server():
    """The address and token of the JupyterLab that runs in FOLDER, or None."""
    return next(list_running_servers(FOLDER / "runtime"), None)


@contextmanager
def jupyterlab():
    """JupyterLab as `run.py lab` starts it, while the block runs; with settings and a log of its own in FOLDER."""
    settings = {"VAE_DATA": "sample", "OMP_NUM_THREADS": "1", "JUPYTER_CONFIG_DIR": str(FOLDER.resolve() / "config"),
                "JUPYTER_RUNTIME_DIR": str(FOLDER.resolve() / "runtime")}
    command = [sys.executable, "run.py", "lab", "--no-browser", "--expose-app-in-browser", "--ServerApp.port=0"]
    log = FOLDER / "jupyterlab.log"
    with log.open("w") as file:
        lab = subprocess.Popen(command, env=os.environ | settings, stdout=file, stderr=subprocess.STDOUT)
    try:
        deadline = time.monotonic() + 60
        while server() is None:
            if lab.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"JupyterLab did not start: {log} says why")
            time.sleep(0.1)
        yield
    finally:
        lab.terminate()
        lab.wait()


# One notebook in the browser

def open_notebook(page, name):
    """Open build/browser/notebooks/`name` in a page of the browser, and wait until its kernel is ready.

    Where JupyterLab is open already it stays, as it does for a reader: to load it takes longer than a notebook.
    """
    if page.evaluate("Boolean(window.jupyterapp)"):
        page.evaluate(f"jupyterapp.commands.execute('docmanager:open', {{path: '{FOLDER}/notebooks/{name}'}}); null")
    else:
        found = server()
        workspace = re.sub(r"\W", "-", name)  # of this page alone: those open at the same time do not meet
        page.goto(f"{found['url']}lab/workspaces/{workspace}/tree/{FOLDER}/notebooks/{name}?token={found['token']}")
    page.locator(".jp-Notebook").wait_for()
    wait_until_idle(page)


def wait_until_idle(page):
    page.wait_for_function(f"{OPEN}?.sessionContext?.session?.kernel?.status === 'idle'")


def run_all(page, seconds=600):
    """Run all cells, and return the notebook as JupyterLab holds it. TimeoutError from the browser after `seconds`."""
    page.evaluate("window.done = false; jupyterapp.commands.execute('notebook:run-all-cells')"
                  ".finally(() => { window.done = true }); null")
    page.wait_for_function("window.done", timeout=1000 * seconds)
    wait_until_idle(page)
    return nbformat.from_dict(page.evaluate(f"{OPEN}.content.model.toJSON()"))


def save(page):
    """Save as a reader does, by keyboard."""
    page.keyboard.press("Control+s")
    page.wait_for_function(f"!{OPEN}.context.model.dirty")


def close_notebook(page):
    """Close what is open, and ask for the end of its kernel, which holds some hundred megabytes; do not wait for it."""
    if page.evaluate(f"Boolean(window.jupyterapp && {OPEN}?.sessionContext?.session)"):
        with page.expect_request(lambda request: request.method == "DELETE"):
            page.evaluate(f"""() => {{
                const id = {OPEN}.sessionContext.session.id
                {OPEN}.dispose()
                jupyterapp.serviceManager.sessions.shutdown(id) }}""")


# What a notebook says

def printed(notebook, patterns):
    """What each code cell leaves behind in words, masked by the patterns: a dict from the cell's position."""
    found = {}
    for i, cell in enumerate(pages.normalise(copy.deepcopy(notebook)).cells):
        if cell.cell_type == "code":
            found[i] = [mask(text, patterns) for output in cell.outputs for text in texts(output)]
    return found


def texts(output):
    """The texts of one output, each behind its kind."""
    if output.output_type == "stream":
        return [f"{output.name}: {output.text}"]
    if output.output_type == "error":
        return [f"{output.ename}: {output.evalue}"]
    return [f"{kind}: {value}" for kind, value in output.data.items() if not kind.startswith("image/")]


def mask(text, patterns):
    for pattern, replacement in patterns:
        text = re.sub(pattern, replacement, text)
    return text


def differences(stored, now, sanitize):
    """Where two runs of a notebook print other words: position of the cell, what is stored, what it prints now.

    sanitize: text of the file that tells nbval what to mask."""
    patterns = get_sanitize_patterns(sanitize)
    before, after = printed(stored, patterns), printed(now, patterns)
    return [(i, before.get(i), after.get(i)) for i in sorted(before | after) if before.get(i) != after.get(i)]


def errors(notebook):
    """The errors that stand in a notebook's outputs."""
    return [f"{output.ename}: {output.evalue}" for cell in notebook.cells for output in cell.get("outputs", [])
            if output.output_type == "error"]


def pictures(notebook):
    """The PNG pictures in a notebook's outputs, as base64 without blanks, each with whether it is an explorer's."""
    data = [output.get("data", {}) for cell in notebook.cells for output in cell.get("outputs", [])]
    return [("".join(each["image/png"].split()), pages.WIDGET_VIEW in each) for each in data if "image/png" in each]


def not_shown(notebook, exporter):
    """How many of a notebook's pictures its export to HTML lacks, as where an empty widget stands in place of one.

    What has no picture is left out, as most of the export's time is for code and prose.
    """
    drawn = copy.deepcopy(notebook)
    drawn.cells = [cell for cell in drawn.cells
                   if any("image/png" in output.get("data", {}) for output in cell.get("outputs", []))]
    for cell in drawn.cells:
        cell.source = ""
    html, _ = exporter.from_notebook_node(drawn)
    shown = {"".join(png.split()) for png in re.findall(r'<img[^>]*\bsrc="data:image/png;base64,([^"]*)"', html)}
    return sum(png not in shown for png, _ in pictures(notebook))


EXPORTERS = {"html": HTMLExporter, "slides": SlidesExporter}


# The exercises

def answers(exercises, solutions):
    """The cells of an exercise notebook to write into: their positions, a right answer and a wrong one, and its word's.

    A list of (position, right, wrong, position of the cell that says whether it is right)."""
    rights = {cell.id: cell.source for cell in solutions.cells
              if cell.cell_type == "code" and "solution" in cell.metadata.get("tags", ())}
    found = []
    for i, cell in enumerate(exercises.cells):
        if cell.get("id") in rights:
            word = next(k for k in range(i + 1, len(exercises.cells)) if 'answer("' in exercises.cells[k].source)
            found.append((i, rights[cell.id], wrong(cell.source), word))
    return found


def wrong(stub):
    """A stub with a number for each `...` that is no answer to any exercise."""
    return re.sub(r"(?m)(?<=[=,] )\.\.\.", "-12345.0", re.sub(r"(?m)^( +)\.\.\.$", r"\1return -12345.0", stub))


def main(*arguments):
    """Run the tests on the pages named, or on all; what follows the first option is pytest's. Returns its status."""
    if chromium() is None:
        print(f"browser: nothing is run, for none of {', '.join(CHROMIUM)} is installed")
        return 0
    names = list(takewhile(lambda argument: not argument.startswith("-"), arguments))
    chosen = [f"{TESTS}::test_page[{path.stem}]" for path in pages.paths(names)]
    exercises = [path.stem for path in pages.paths(folder=pages.FOLDER / "exercises")]
    exercises = [stem for stem in exercises if stem.startswith(tuple(names))] if names else exercises[:1]
    chosen += [f"{TESTS}::test_exercises[{stem}]" for stem in exercises]
    shutil.rmtree(FOLDER, ignore_errors=True)
    for name in "notebooks", "figures":
        shutil.copytree(name, FOLDER / name, ignore=shutil.ignore_patterns(".ipynb_checkpoints"))
    with jupyterlab():
        return subprocess.call([sys.executable, "-m", "pytest", *chosen, "-n", "2", "--dist", "worksteal",
                                *arguments[len(names):]])


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
