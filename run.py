"""The course's one command. It needs Python 3.11 or newer and nothing else.

    python3 run.py                    open the course in JupyterLab; options after `lab` reach JupyterLab
    python3 run.py test               run all unit tests and pages, and measure what the tests cover of vae_lib
    python3 run.py test 04 -x         run page 04 and its exercises: pages or paths first, then options
    python3 run.py test -k kl         options alone: every test and page that they select
    python3 run.py sample             run the pages that use MNIST once more, on the sample that needs no network
    python3 run.py browser [04 ...]   see pages work in JupyterLab, driven through Chromium if that is installed
    python3 run.py train RECIPE       train a recorded recipe; --seed 1 for another run of it
    python3 run.py measure RECIPE 500 add the test set's likelihood, from 500 importance samples, to its log
    python3 run.py benchmark          compare the speed of training with other ways to train (ten minutes)
    python3 run.py refresh [04 ...]   execute pages (default: all) and store what they print
    python3 run.py site [--pdf]       build the pages as a web site, with slides and the live VAE, into build/site
    python3 run.py slides [04 ...]    build a deck of slides for each page into build/slides
    python3 run.py figures [NAME ...] draw the figures for lecturers and the README into figures/, or those named
    python3 run.py ledger             print the table of equations and their checks
    python3 run.py exam --seed 7      write a sheet for an exam, and its key; --pages 02,04 --questions 8

The first run makes .venv with the versions in constraints.txt, unless the running Python has them already. On Linux
it asks for torch without CUDA where it finds no NVIDIA driver: VAE_TORCH=cpu or VAE_TORCH=cuda decides otherwise, and
VAE_TORCH=URL names the index that serves the CPU build.
"""
import sys

if sys.version_info < (3, 11):  # an old Python must be able to read the whole file: no f-strings here
    sys.exit("run.py: the course needs Python 3.11 or newer, and this is {}.{}. Start run.py with a newer "
             "one, for example: python3.11 run.py".format(*sys.version_info[:2]))

import hashlib
import importlib.metadata
import importlib.util
import itertools
import os
import pathlib
import queue
import re
import shutil
import subprocess
import threading
import tomllib
import urllib.parse
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parent
VENV = ROOT / ".venv"
PYTHON = VENV / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
STAMP = VENV / "vae-lib-stamp"  # fingerprint() of what run.py installed in .venv, or UNFINISHED
UNFINISHED = "unfinished"
OURS = VENV / "made-by-run.py"  # an environment without it is never emptied
SIZE = "1.9 GB of disk with a CPU build of torch, 6.4 GB with one for CUDA"
INSTALL = ["-c", "constraints.txt", "-e", ".[test]"]
CPU_INDEX = "https://download.pytorch.org/whl/cpu"
PATIENCE = 5  # seconds that an index may take to say whether it has the CPU build
FOLDERS = ("notebooks/", "notebooks/exercises/", "notebooks/solutions/")
TASKS = {
    "lab": ["-m", "jupyterlab", "--ServerApp.root_dir=" + str(ROOT),
            "--LabApp.default_url=/lab/tree/notebooks/00_start_here.ipynb",
            "--LabApp.app_settings_dir=" + str(ROOT / "course/jupyterlab"),  # no question about news, no updates
            "--LabApp.extra_labextensions_path=" + str(ROOT / "course/jupyterlab/extensions")],
    "test": ["-m", "pytest", "--nbval"],
    "browser": ["-m", "course.browser"],
    "train": ["-m", "vae_lib.recording", "train"],
    "measure": ["-m", "vae_lib.recording", "measure"],
    "benchmark": ["tests/benchmarks/speed.py"],
    "sample": ["-m", "pytest", "--nbval", "-n", "2", "--dist", "loadfile"],
    "refresh": ["-m", "course.pages", "refresh"],
    "site": ["-m", "course.site"],
    "slides": ["-m", "course.slides"],
    "figures": ["figures/draw.py"],
    "ledger": ["-m", "course.pages", "ledger"],
    "exam": ["-m", "course.exam"],
}


def say(text):
    sys.stdout.write("run.py: {}\n".format(text))
    sys.stdout.flush()


def pins():
    """The version of each package in constraints.txt."""
    return dict(re.findall(r"(?m)^([\w.-]+)==(\S+)$", (ROOT / "constraints.txt").read_text(encoding="utf-8")))


def lacking():
    """What keeps the running Python from serving, in words, or "" for nothing."""
    wanted = pins()
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    for requirement in project["dependencies"] + project["optional-dependencies"]["test"]:
        name = re.match(r"[\w.-]+", requirement).group()
        try:
            version = importlib.metadata.version(name).split("+")[0]  # a CPU build of torch is 2.14.1+cpu
        except importlib.metadata.PackageNotFoundError:
            return "no " + name
        if version != wanted[name]:
            return "{} {}, not {}".format(name, version, wanted[name])
    path = sys.path[:]
    if pathlib.Path(path[0]).resolve() == ROOT:  # run.py's own folder, which a notebook's kernel does not have
        del sys.path[0]
    spec = importlib.util.find_spec("vae_lib")
    sys.path[:] = path
    ours = spec and spec.origin and pathlib.Path(spec.origin).resolve().parent == ROOT / "vae_lib"
    return "" if ours else "no vae_lib of this folder"


def fingerprint():
    """Hash of what .venv must hold. The folder's place is no part of it: a moved course works on."""
    files = [(ROOT / name).read_bytes() for name in ("pyproject.toml", "constraints.txt")]
    return hashlib.sha256(b"\0".join(files)).hexdigest()


def has_nvidia_driver():
    return os.path.exists("/proc/driver/nvidia/version") or shutil.which("nvidia-smi") is not None


def cpu_index():
    """The index to ask for a CPU build of torch, or None: where CUDA can be used, or pip's own index has one."""
    wish = os.environ.get("VAE_TORCH") or ("cuda" if has_nvidia_driver() else "cpu")
    if wish == "cuda" or (wish == "cpu" and sys.platform != "linux"):
        return None
    if wish == "cpu":
        return CPU_INDEX
    if urllib.parse.urlsplit(wish).scheme not in ("http", "https", "file"):
        sys.exit("run.py: VAE_TORCH: wanted cpu, cuda or the URL of an index, got " + wish)
    return wish.rstrip("/")


def cannot_serve(index, version):
    """Why the index cannot serve the CPU build of torch, in words, or "". The name look-up may hang: PATIENCE."""
    answers = queue.Queue()

    def ask():
        try:
            url = index + "/torch/" + ("index.html" if index.startswith("file:") else "")
            with urllib.request.urlopen(url, timeout=PATIENCE) as response:
                page = urllib.parse.unquote(response.read().decode("utf-8", "replace"))
            answers.put("" if "torch-{}+cpu".format(version) in page else "it has no torch {}+cpu".format(version))
        except Exception as error:  # whatever is wrong with it, there is another index
            answers.put(str(error))

    threading.Thread(target=ask, daemon=True).start()
    try:
        return answers.get(timeout=PATIENCE)
    except queue.Empty:
        return "no answer within {} seconds".format(PATIENCE)


def install_cpu_torch(installer, index):
    """Put CPU builds of torch and torchvision into .venv: True; or say in one line why the ordinary index serves."""
    wanted = pins()
    problem = cannot_serve(index, wanted["torch"])
    if not problem:
        packages = ["{}=={}+cpu".format(name, wanted[name]) for name in ("torch", "torchvision")]
        if not subprocess.call(installer + ["--no-deps", "--index-url", index] + packages, cwd=str(ROOT)):
            return True
        problem = "it failed to serve " + " and ".join(packages)
    say("{} cannot be used ({}): torch comes with CUDA from the ordinary index".format(index, problem))
    return False


def step(argv, hint):
    if subprocess.call(argv, cwd=str(ROOT)):
        sys.exit("run.py: this step failed: {}\nrun.py: {}".format(" ".join(argv), hint))


def install():
    """Make .venv, or bring it to the pins. One that run.py made, and was stopped, is made anew from outside of it."""
    before = STAMP.read_text() if STAMP.exists() else ""
    uv = shutil.which("uv")
    if PYTHON.exists() and (inside() or not (before == UNFINISHED and OURS.exists())):
        say("bringing .venv to the versions in constraints.txt")
    elif VENV.exists() and any(VENV.iterdir()) and not OURS.exists():
        sys.exit("run.py: .venv has no working Python, and no mark that run.py made it. Remove it, then try again")
    else:
        say("making .venv with the versions in constraints.txt: 2 to 5 minutes, " + SIZE)
        before = UNFINISHED
        VENV.mkdir(exist_ok=True)
        OURS.touch()
        STAMP.write_text(UNFINISHED)
        for path in set(VENV.iterdir()) - {STAMP, OURS}:
            shutil.rmtree(str(path)) if path.is_dir() and not path.is_symlink() else path.unlink()
        make = [uv, "venv", "--seed", "--allow-existing", "--python"] if uv else []
        step(make + [sys.executable] + ([] if uv else ["-m", "venv"]) + [str(VENV)], "this Python cannot make "
             "environments. On Debian or Ubuntu: apt install python3-venv. Then try again")
    installer = [str(PYTHON), "-m", "pip", "install", "--no-compile"]  # as uv: what is imported is compiled then
    if uv:
        installer = [uv, "pip", "install", "--python", str(PYTHON)]
    STAMP.write_text(UNFINISHED)
    try:
        index = cpu_index()
        if index and install_cpu_torch(installer, index) and before != UNFINISHED:
            before = ""  # the old torch is gone
        step(installer + INSTALL, "the last lines above say why. Is the network up, and is there "
             "room: {}? Then try again; if it fails again, remove .venv first".format(SIZE))
    except SystemExit:
        STAMP.write_text(before)  # pip said no: an older .venv is whole, if not marked otherwise
        raise
    for packages in itertools.chain(VENV.glob("lib/python*/site-packages"), VENV.glob("Lib/site-packages")):
        (packages / "vae_lib_here.pth").write_text(os.path.relpath(str(ROOT), str(packages)) + "\n")  # moves along
    STAMP.write_text(fingerprint())


def inside():
    """Whether the running Python is that of .venv, which is then not to be emptied."""
    return pathlib.Path(sys.prefix).resolve() == VENV.resolve()


def find_python():
    """The Python that has the packages: the running one, or else that of .venv, installed if need be."""
    lack = lacking()
    if not lack:
        return sys.executable
    if inside() or not (PYTHON.exists() and STAMP.exists() and STAMP.read_text() == fingerprint()):
        say("{} has {}".format(sys.executable, lack))
        install()
    return str(PYTHON)


def test_arguments(args):
    """Arguments for pytest. Coverage is measured, and required, where nothing is selected or changed."""
    places = list(itertools.takewhile(lambda arg: not arg.startswith("-"), args))
    options = args[len(places):]
    if not places:
        whole = ["tests", "notebooks", "-n", "2", "--dist", "loadfile", "--no-loadscope-reorder"]
        return whole + (options or ["--cov=vae_lib"])
    targets = []
    for place in places:
        pages = notebooks(place + "_*") if re.fullmatch(r"\d\d|[A-Z]", place) else []
        if not pages and not (ROOT / place.split("::")[0]).exists():
            sys.exit("run.py: no page or path {}. A page is named by its two digits, 04, an appendix by its letter, "
                     "A".format(place))
        targets += pages or [place]
    return targets + options


def notebooks(name="*"):
    """The paths of the pages, exercises and solutions of a name."""
    found = [path for folder in FOLDERS for path in sorted(ROOT.glob(folder + name + ".ipynb"))]
    return [str(path.relative_to(ROOT)) for path in found]


def with_data():
    """The notebooks that load MNIST."""
    return [path for path in notebooks() if "load(" in (ROOT / path).read_text(encoding="utf-8")]


def settle_environment(one_thread):
    """Let VAE_DATA hold in any folder, as kernels start in the notebook's; pages are run with one thread."""
    data = os.environ.get("VAE_DATA")
    if data and data != "sample":
        os.environ["VAE_DATA"] = os.path.abspath(os.path.expanduser(data))
    if one_thread:
        os.environ["OMP_NUM_THREADS"] = "1"


def keep_freed_memory():
    """Let glibc keep the memory that large tensors free: a training step wants it again at once.

    Pages that train ran in 85 % of their time so, and the bound of 16 samples took 372 ms a step in place of 446, on
    two cores. A kernel may hold some hundred megabytes more. Settings of one's own stay.
    """
    os.environ.setdefault("MALLOC_MMAP_MAX_", "0")
    os.environ.setdefault("MALLOC_TRIM_THRESHOLD_", "100000000000")


def main(args):
    task, args = (args[0], args[1:]) if args else ("lab", [])
    if task not in TASKS:
        print(__doc__)
        sys.exit(0 if task in ("-h", "--help") else "run.py: there is no task " + task)
    if task == "test":
        args = test_arguments(args)
    elif task == "sample":
        args, os.environ["VAE_DATA"] = with_data() + args, "sample"
    elif task == "lab" and hasattr(os, "geteuid") and os.geteuid() == 0:
        args = ["--allow-root"] + args  # as in a container; JupyterLab refuses root otherwise
    settle_environment(one_thread=task in ("refresh", "figures"))
    keep_freed_memory()
    argv = [find_python()] + TASKS[task] + args
    say(" ".join(argv))
    os.chdir(str(ROOT))
    if os.name == "nt":  # where exec does not wait
        sys.exit(subprocess.call(argv))
    os.execv(argv[0], argv)


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except KeyboardInterrupt:
        sys.exit("run.py: stopped; start the same command again")
    except OSError as error:  # no room, or no right to write
        sys.exit("run.py: {}".format(error))
