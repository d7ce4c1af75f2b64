"""Do the pages run anywhere, and in how much memory? `python tests/benchmarks/anywhere.py [--threads 2] [04 ...]`

Pages run in random order, from a read-only copy of the course whose path has blanks, a percent sign and umlauts; each
kernel starts in another folder, with a decimal comma where that locale can be made (`localedef`, Linux). Every cell
must pass, and print what is stored, up to measured numbers; the kernel's peak of resident memory must stay below
2,000 MB. Root gives up the right to write where nobody may (`setpriv`). Exit status 1 if a page fails.
"""

import argparse
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
MOST_MB = 2000
DECIMAL_COMMA = "import locale\nlocale.setlocale(locale.LC_ALL, '')\nassert f'{1.5:n}' == '1,5'"
PEAK = "import resource\nprint(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"  # in KiB on Linux


def run_page(path):
    """Run one page in a kernel of this process's own; print its memory in KiB, then every cell that went wrong."""
    import nbformat
    from nbclient import NotebookClient

    from course.pages import normalise

    page = nbformat.read(path, as_version=4)
    expected = [said(cell) for cell in page.cells]
    around = [nbformat.v4.new_code_cell(source) for source in (DECIMAL_COMMA, PEAK)]
    page.cells = [*around[:1], *page.cells, around[1]] if "LOCPATH" in os.environ else [*page.cells, around[1]]
    NotebookClient(page, timeout=3600, kernel_name="python3", allow_errors=True,
                   resources={"metadata": {"path": os.getcwd()}}).execute()
    *ran, last = normalise(page).cells
    print(last.outputs[0].text.strip())
    if os.access(path, os.W_OK) or os.access(Path(path).parent, os.W_OK):
        print("This user may write into the read-only copy.")
    for cell, wanted in zip(ran[-len(expected):], expected):
        if said(cell) != wanted:
            print(f"In cell {cell.id}: wanted {wanted}, got {said(cell)}")


def said(cell):
    """What a cell printed or raised, without measured numbers, which stand behind ≈ up to the line's end."""
    texts = [output.get("text") or output.get("evalue", "") for output in cell.get("outputs", ())]
    return [line.split("≈")[0] for text in texts for line in text.splitlines()]


def read_only_copy(folder):
    """The files of the repository, copied into the folder; then nobody may write there."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name in listed.split("\0")[:-1]:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, folder / name)
    for path in [folder, *folder.rglob("*")]:
        path.chmod(0o555 if path.is_dir() else 0o444)


def decimal_comma(folder):
    """Settings of a locale with a decimal comma, compiled into the folder; none where that fails."""
    try:
        subprocess.run(["localedef", "-i", "de_DE", "-f", "UTF-8", folder / "de_DE.UTF-8"], capture_output=True,
                       check=True)
    except (OSError, subprocess.CalledProcessError):
        print("This system makes no locale with a decimal comma; the pages run without.")
        return {}
    return {"LOCPATH": str(folder), "LC_ALL": "de_DE.UTF-8"}


def settings(base, copy, threads):
    """The environment of the pages: the copy's library, a home of their own, and what `run.py` sets."""
    import run

    run.settle_environment(one_thread=False)
    run.keep_freed_memory()
    home, locales = base / "home", base / "locales"
    for folder in (home, locales):
        folder.mkdir()
    ours = {"PYTHONPATH": str(copy), "PYTHONDONTWRITEBYTECODE": "1", "HOME": str(home), "OMP_NUM_THREADS": str(threads)}
    return os.environ | ours | decimal_comma(locales)


def main(names, threads, seed):
    sys.path.insert(0, str(ROOT))
    from course.pages import paths

    base = Path(tempfile.mkdtemp())
    base.chmod(0o755)
    copy, elsewhere = base / "Übung 100% für alle" / "der Kurs", base / "elsewhere"
    copy.mkdir(parents=True)
    elsewhere.mkdir(mode=0o555)
    environment = settings(base, copy, threads)
    read_only_copy(copy)
    ordinary = ["setpriv", "--bounding-set=-dac_override,-dac_read_search"] if os.geteuid() == 0 else []
    pages, failed = paths(names, copy / "notebooks"), []
    random.Random(seed).shuffle(pages)
    print(f"order {seed}, OMP_NUM_THREADS={threads}, LC_ALL={environment.get('LC_ALL')}, in {copy}", flush=True)
    for path in pages:
        start = time.perf_counter()
        done = subprocess.run([*ordinary, sys.executable, __file__, "--page", path], cwd=elsewhere, env=environment,
                              capture_output=True, text=True)
        peak, *wrong = done.stdout.splitlines() or ["0", done.stderr]
        if wrong or int(peak) > MOST_MB * 1000**2 / 1024:
            failed.append(path.stem)
        print(f"{path.stem:<28}{int(peak) * 1024 / 1000**2:>6.0f} MB{time.perf_counter() - start:>6.0f} s",
              *wrong, sep="\n   ", flush=True)
    print("failed:", failed or "none")
    subprocess.run(["chmod", "-R", "u+w", base], check=True)
    shutil.rmtree(base)
    return bool(failed)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("names", nargs="*", default=[])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seed", type=int, default=random.randrange(1000))
    parser.add_argument("--page")
    given = parser.parse_args()
    sys.exit(run_page(given.page) if given.page else main(given.names, given.threads, given.seed))
