"""How long each explorer takes to redraw: `PYTHONPATH=. python tests/benchmarks/redraw.py [04 ...]`.

Every slider goes over twenty values, and every redraw is timed in milliseconds, from the new value to the finished
picture. The pages want at most 100 ms, so that a picture follows the mouse. Last result of all pages: redraw.txt.
"""

import sys

import nbformat
from nbclient import NotebookClient

from course import pages

WANTED = 100
TIME = """
def time_every_slider():  # a function, so that no name of the page is bound anew
    import gc
    import time
    from vae_lib.widgets import Explorer
    for explorer in [each for each in gc.get_objects() if type(each) is Explorer]:
        for name, control in explorer.controls.items():
            start, steps, taken = control.value, round((control.max - control.min) / control.step), []
            for i in range(20):
                value = type(start)(control.min + i * steps // 19 * control.step)
                if value != control.value:
                    before = time.perf_counter()
                    control.value = value
                    taken.append(1000 * (time.perf_counter() - before))
            control.value = start
            print(name, f"{sorted(taken)[len(taken) // 2]:.0f}", f"{max(taken):.0f}")


time_every_slider()
"""


def main(*names):
    print(f"{'page':<32}{'slider':<16}{'median':>8}{'longest':>9}")
    for path in pages.paths(names):
        page = nbformat.read(path, as_version=4)
        code = [cell for cell in page.cells if cell.cell_type == "code"]
        last = max((i for i, cell in enumerate(code) if "Explorer(" in cell.source), default=None)
        if last is None:
            continue
        page.cells = [*code[:last + 1], nbformat.v4.new_code_cell(TIME)]
        NotebookClient(page, timeout=600, kernel_name="python3",
                       resources={"metadata": {"path": str(path.parent)}}).execute()
        for line in "".join(output.text for output in page.cells[-1].outputs).splitlines():
            slider, median, longest = line.split()
            short = "" if float(longest) <= WANTED else f"   more than {WANTED}"
            print(f"{path.stem:<32}{slider:<16}{median:>8}{longest:>9}{short}", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
