"""What `checkup` catches and what it takes for a fault: every exhibit in three networks, and correct models.

    python tests/benchmarks/checkup_table.py    writes checkup_table.txt, beside this file
"""

import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parent.parent))

from correct_models import CORRECT  # noqa: E402
from exhibits import IMAGES, NETWORKS, exhibit  # noqa: E402
from odd_models import ODD  # noqa: E402
from published_forms import PUBLISHED  # noqa: E402

from vae_lib.checkup import checkup  # noqa: E402
from vae_lib.checkup.exhibits import EXHIBITS  # noqa: E402

TABLE = Path(__file__).with_suffix(".txt")


def of_exhibit(name, kind):
    """What a network with one fault shows: "caught", "missed", and the alarms that are false."""
    patient = exhibit(name, kind)
    shown = checkup(patient.model, IMAGES, patient.loss, patient.validation, patient.bound).shown
    others = [other for other in shown if other != name]
    return ", ".join(["caught" if name in shown else "missed", *(f"false: {other}" for other in others)])


MODELS = CORRECT | {odd.__name__.replace("_", " "): odd for odd in ODD + PUBLISHED}


def line_of_exhibit(name):
    return f"{name:<32}" + "".join(f"{of_exhibit(name, kind):<16}" for kind in NETWORKS).rstrip()


def line_of_model(name):
    """The alarms that a correct model raises, and how many exhibits could be examined."""
    torch.manual_seed(0)
    report = checkup(*MODELS[name]())
    examined = len(report.findings) - len(report.with_verdict("not examined"))
    return f"{name:<42}{', '.join(report.shown) or 'none':<16}{examined}"


if __name__ == "__main__":
    print("Measured by checkup_table.py.\n", f"{'exhibit':<32}" + "".join(f"{kind:<16}" for kind in NETWORKS).rstrip(),
          *map(line_of_exhibit, EXHIBITS), f"\n{'correct model':<42}{'alarms':<16}examined, of {len(EXHIBITS)}",
          *map(line_of_model, MODELS), sep="\n", file=TABLE.open("w"))
