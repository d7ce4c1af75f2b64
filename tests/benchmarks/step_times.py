"""How long does a step of two_hours_folded take? `python tests/benchmarks/step_times.py`; two minutes, alone.

For each run of next_stage.py, and for folded_64, whose samples are 64 and whose optimizer is Muon, this prints the
seconds of a step on the CPU by the clock, the median of ten, and how many steps of the first kind, 16 samples by Adam,
it is worth. By these ratios the runs there take equal time, to within a tenth, checkpoints left out; and by the seconds
a stage of such steps that was recorded can be compared with this machine. Last result: step_times.txt.
"""

import statistics
import time

import torch
from next_stage import RUNS

from vae_lib.data import load
from vae_lib.recipes import pretrained, recipe
from vae_lib.training import fit


def seconds(options, images, steps=10):
    """The median seconds of a step, the first one, which prepares, left out."""
    times = []

    def timed(model, x):
        times.append(time.perf_counter())
        return options["objective"](model, x)

    alone = dict(steps=steps + 2, objective=timed, device=torch.device("cpu"), progress=False)
    fit(pretrained("two_hours_folded"), images, **options | alone)
    return statistics.median(after - before for before, after in zip(times[1:], times[2:]))


def main():
    images = load("MNIST").train[:5120]
    print(f"{torch.get_num_threads()} threads, torch {torch.__version__}: seconds of a step, steps of the first kind")
    first = None
    for name, options in (RUNS | {"folded_64": recipe("folded_64").stages[0]}).items():
        taken = seconds(options, images)
        first = first or taken
        print(f"  {name:24}{taken:8.3f}{taken / first:8.2f}", flush=True)


if __name__ == "__main__":
    main()
