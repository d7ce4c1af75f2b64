"""The project holds together: one set of versions everywhere, and run.py does what the README says."""

import ast
import importlib.metadata
import importlib.util
import os
import re
import runpy
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
import torch
import yaml
from nbval.plugin import get_sanitize_patterns
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version

import run
from vae_lib.data import load

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
LIBRARY = [Requirement(line) for line in PROJECT["dependencies"]]
EXTRA = [Requirement(line) for line in PROJECT["optional-dependencies"]["test"]]
PYTHON = sys.executable
PINS = re.findall(r"(?m)^([^#\s=]+)==(\S+)$", (ROOT / "constraints.txt").read_text())
CUDA = re.compile(r"nvidia-|cuda-|triton")


# One source of truth for versions

@pytest.mark.parametrize("requirement", LIBRARY + EXTRA, ids=str)
def test_each_direct_dependency_has_one_pin_in_its_range(requirement):
    wanted = canonicalize_name(requirement.name)
    versions = [version for name, version in PINS if canonicalize_name(name) == wanted]
    assert len(versions) == 1
    assert Version(versions[0]) in requirement.specifier
    assert not requirement.specifier.contains("999"), "a range has an upper end"
    assert run.pins()[requirement.name] == versions[0], "run.py reads what pip reads"


def test_constraints_are_plain_pins_that_suit_a_cpu_build():
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pinned = [line for line in lines if not line.startswith("#")]
    assert pinned == [f"{name}=={version}" for name, version in PINS]
    assert len({canonicalize_name(name) for name, _ in PINS}) == len(PINS)
    assert not [name for name, version in PINS if CUDA.match(name) or "+" in version]


def test_installed_versions_equal_the_pins():
    pins = {canonicalize_name(name): version for name, version in PINS}
    installed = {canonicalize_name(found.name): found.version.split("+")[0]
                 for found in importlib.metadata.distributions()}
    assert {canonicalize_name(requirement.name) for requirement in LIBRARY + EXTRA} <= installed.keys()
    assert {name: installed[name] for name in pins.keys() & installed.keys()
            if installed[name] != pins[name]} == {}


def test_every_pin_serves_the_oldest_python_that_the_project_promises():
    oldest = PROJECT["requires-python"].removeprefix(">=") + ".0"
    pinned = {canonicalize_name(name) for name, _ in PINS}
    wanted = {found.name: found.metadata["Requires-Python"] or ""
              for found in importlib.metadata.distributions() if canonicalize_name(found.name) in pinned}
    assert {name: text for name, text in wanted.items() if not SpecifierSet(text).contains(oldest)} == {}


@pytest.mark.skipif(sys.platform != "linux", reason="the pins were made on Linux")
def test_everything_that_an_install_brings_is_pinned():
    needed, todo = set(), [Requirement("vae-lib[test]")]
    while todo:
        requirement = todo.pop()
        for line in importlib.metadata.requires(requirement.name) or []:
            found = Requirement(line)
            extras = requirement.extras or {""}
            if found.marker is None or any(found.marker.evaluate({"extra": extra}) for extra in extras):
                name = canonicalize_name(found.name)
                if name not in needed and not CUDA.match(name):
                    needed.add(name)
                    todo.append(found)
    assert {"torch", "tornado", "pandas"} <= needed
    assert needed - {canonicalize_name(name) for name, _ in PINS} == set()


def test_what_the_library_imports_is_declared():
    providers = importlib.metadata.packages_distributions()
    library = {canonicalize_name(requirement.name) for requirement in LIBRARY}
    tools = library | {canonicalize_name(requirement.name) for requirement in EXTRA}
    for path in sorted([*(ROOT / "vae_lib").glob("*.py"), *(ROOT / "course").glob("*.py")]):
        nodes = list(ast.walk(ast.parse(path.read_text())))
        names = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
        names |= {node.module for node in nodes if isinstance(node, ast.ImportFrom)}
        tops = {name.split(".")[0] for name in names} - set(sys.stdlib_module_names) - {"vae_lib", "course"}
        for top in tops:
            declared = tools if path.parent.name == "course" else library
            packages = {canonicalize_name(name) for name in providers[top]}
            assert declared & packages, f"{path.name} imports {top}"


def test_conda_gives_python_and_pip_and_pip_the_rest():
    python, pip, rest = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]
    assert (python, pip) == ("python" + PROJECT["requires-python"], "pip")
    assert rest == {"pip": ["-c constraints.txt", "-e .[test]"]}
    assert run.INSTALL == ["-m", "pip", "install", *" ".join(rest["pip"]).split()]


def test_the_workflow_only_calls_run_py():
    workflow = yaml.safe_load((ROOT / ".github/workflows/test.yml").read_text())
    steps = workflow["jobs"]["test"]["steps"]
    assert [step["run"] for step in steps if "run" in step] == ["python3 run.py test"]
    versions = [step["with"]["python-version"] for step in steps if "python-version" in step.get("with", {})]
    assert [f">={version}" for version in versions] == [PROJECT["requires-python"]]


def test_ci_only_calls_run_py_with_the_data_beside_the_repository(tmp_path):
    (tmp_path / ".ci").mkdir()
    shutil.copy(ROOT / ".ci/run", tmp_path / ".ci/run")
    (tmp_path / "run.py").write_text("import os, sys\n"
                                     "print(sys.argv[1:], repr(os.environ['VAE_DATA']))\nsys.exit(7)\n")
    unset = {name: value for name, value in os.environ.items() if name != "VAE_DATA"}
    for given, seen in ({}, "../shared/data"), ({"VAE_DATA": ""}, ""), ({"VAE_DATA": "sample"}, "sample"):
        done = subprocess.run([tmp_path / ".ci/run"], env=unset | given, cwd="/",
                              capture_output=True, text=True)
        assert (done.returncode, done.stdout) == (7, f"['test'] {seen!r}\n")
    lines = (ROOT / ".ci/run").read_text().splitlines()
    assert len([line for line in lines if not line.startswith("#")]) == 2


@pytest.mark.parametrize("name", ["run.py", "pyproject.toml", "constraints.txt", "environment.yml", ".ci/run",
                                  ".github/workflows/test.yml", "conftest.py"])
def test_no_package_index_is_hard_coded(name):
    assert not re.search(r"https?://|--(extra-)?index-url|find-links", (ROOT / name).read_text())


def test_the_wheel_holds_every_module_weight_and_licence(tmp_path):
    for name in ("pyproject.toml", "README.md", "LICENSE", "LICENSE-text"):
        shutil.copy(ROOT / name, tmp_path / name)
    shutil.copytree(ROOT / "vae_lib", tmp_path / "vae_lib", ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "vae_lib/weights").mkdir(exist_ok=True)
    (tmp_path / "vae_lib/weights/probe.safetensors").write_bytes(b"")
    code = "from setuptools import build_meta; build_meta.build_wheel('out')"
    subprocess.run([PYTHON, "-c", code], cwd=tmp_path, check=True, capture_output=True)
    wheel, = (tmp_path / "out").glob("*.whl")
    held = set(zipfile.ZipFile(wheel).namelist())
    files = [*tmp_path.glob("vae_lib/*.py"), *tmp_path.glob("vae_lib/weights/*.safetensors")]
    assert {str(path.relative_to(tmp_path)) for path in files} <= held
    assert sorted(Path(name).name for name in held if "/licenses/" in name) == ["LICENSE", "LICENSE-text"]


def test_ruff_has_nothing_to_say():
    done = subprocess.run([PYTHON, "-m", "ruff", "check", "--output-format=concise"], cwd=ROOT,
                          capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


# What every test run settles

def test_workers_have_one_thread():
    assert os.environ["OMP_NUM_THREADS"] == "1"
    assert torch.get_num_threads() == 1


@pytest.mark.parametrize("given, settled", [
    ("data", "{cwd}/data"), ("../data", "{parent}/data"), ("/x", "/x"),
    ("sample", "sample"), ("", ""), (None, None)])
def test_the_data_folder_holds_in_any_folder(given, settled, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("VAE_DATA", raising=False)
    if given is not None:
        monkeypatch.setenv("VAE_DATA", given)
    run.settle_environment(one_thread=False)
    assert os.environ.get("VAE_DATA") == (settled and settled.format(cwd=tmp_path, parent=tmp_path.parent))


def test_measured_results_are_masked_to_the_end_of_the_line(pytestconfig):
    path = Path(pytestconfig.option.nbval_sanitize_with)
    assert path == ROOT / "notebooks/sanitize.cfg"
    (pattern, replacement), = get_sanitize_patterns(path.read_text())
    text = "exact = 1\nELBO ≈ -97.3 nats, 128 images\nexact = 2\n"
    assert re.sub(pattern, replacement, text) == "exact = 1\nELBO (measured)\nexact = 2\n"


# run.py

FAKE_PYTHON = """#!/bin/sh
echo "$*" >> "$FAKE_LOG"
if [ "$2" = "$FAKE_FAILS" ]; then exit 1; fi
if [ "$2" = venv ]; then mkdir -p "$3/bin" && cp "$0" "$3/bin/python"; fi
"""


@pytest.fixture
def course(tmp_path, monkeypatch):
    """run.py as a module of a folder of its own, and a Python that only notes what it is asked to do."""
    root = tmp_path / "course"
    (root / "notebooks").mkdir(parents=True)
    (root / "notebooks/04_gaussian_kl.ipynb").touch()
    (root / "tests").mkdir()
    for name in ("run.py", "pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, root / name)
    fake = tmp_path / "python"
    fake.write_text(FAKE_PYTHON)
    fake.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(fake))
    monkeypatch.setenv("FAKE_LOG", str(tmp_path / "log"))
    monkeypatch.setenv("FAKE_FAILS", "nothing")
    spec = importlib.util.spec_from_file_location("course_run", root / "run.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def asked(tmp_path):
    """What the fake Python was asked to do since the last call."""
    def read():
        log = tmp_path / "log"
        lines = log.read_text().splitlines() if log.exists() else []
        log.unlink(missing_ok=True)
        return lines
    return read


PIP = "-m pip install -c constraints.txt -e .[test]"


def start(root, *args):
    """run.py as a user starts it, with the Python that runs the tests."""
    return subprocess.run([PYTHON, root / "run.py", *args], capture_output=True, text=True, cwd=root.parent)


def test_old_pythons_can_read_run_py_and_are_told(monkeypatch):
    with pytest.raises(SyntaxError):
        ast.parse("f'{1}'", feature_version=(3, 5))
    ast.parse((ROOT / "run.py").read_text(), feature_version=(3, 5))
    monkeypatch.setattr(sys, "version_info", (3, 9, 1))
    with pytest.raises(SystemExit, match="needs Python 3.11 or newer, and this is 3.9"):
        runpy.run_path(str(ROOT / "run.py"))


def test_the_first_run_makes_the_environment_and_the_second_reuses_it(course, asked, capsys):
    assert course.find_python() == str(course.PYTHON)
    assert asked() == [f"-m venv {course.VENV}", PIP]
    assert course.STAMP.read_text() == course.fingerprint()
    assert "making .venv" in capsys.readouterr().out
    assert course.find_python() == str(course.PYTHON)
    assert (asked(), capsys.readouterr().out) == ([], "")


@pytest.mark.parametrize("name", ["pyproject.toml", "constraints.txt"])
def test_changed_pins_are_installed(course, asked, name):
    course.find_python()
    asked()
    with (course.ROOT / name).open("a") as file:
        file.write("# changed\n")
    course.find_python()
    assert asked() == [PIP]
    course.find_python()
    assert asked() == []


def test_an_update_that_pip_refuses_keeps_the_old_environment(course, asked, monkeypatch):
    course.find_python()
    stamp = course.STAMP.read_text()
    (course.VENV / "package").touch()
    with (course.ROOT / "constraints.txt").open("a") as file:
        file.write("# changed\n")
    monkeypatch.setenv("FAKE_FAILS", "pip")
    with pytest.raises(SystemExit, match="Is the network up"):
        course.find_python()
    assert course.STAMP.read_text() == stamp
    monkeypatch.setenv("FAKE_FAILS", "nothing")
    asked()
    course.find_python()
    assert asked() == [PIP]
    assert (course.VENV / "package").exists()


def test_an_update_that_is_killed_makes_the_environment_anew(course, asked, monkeypatch):
    course.find_python()
    with (course.ROOT / "constraints.txt").open("a") as file:
        file.write("# changed\n")

    def killed(argv, hint):
        raise KeyboardInterrupt

    with monkeypatch.context() as context:
        context.setattr(course, "step", killed)
        with pytest.raises(KeyboardInterrupt):
            course.find_python()
    asked()
    course.find_python()
    assert asked() == [f"-m venv {course.VENV}", PIP]


def test_a_moved_folder_is_installed_again(course, asked):
    before = course.fingerprint()
    course.ROOT = course.ROOT.parent / "moved"
    (course.ROOT.parent / "course").rename(course.ROOT)
    assert course.fingerprint() != before


def test_a_first_install_that_fails_is_made_anew(course, asked, monkeypatch):
    monkeypatch.setenv("FAKE_FAILS", "pip")
    with pytest.raises(SystemExit, match="(?s)step failed: .*pip install.*Is the network up"):
        course.find_python()
    assert course.STAMP.read_text() == course.UNFINISHED
    (course.VENV / "half/lib").mkdir(parents=True)
    (course.VENV / "lib64").symlink_to("half")
    monkeypatch.setenv("FAKE_FAILS", "nothing")
    asked()
    course.find_python()
    assert asked() == [f"-m venv {course.VENV}", PIP]
    assert {path.name for path in course.VENV.iterdir()} == {"bin", course.STAMP.name}


def test_a_python_without_venv_names_the_package(course, asked, monkeypatch):
    monkeypatch.setenv("FAKE_FAILS", "venv")
    with pytest.raises(SystemExit, match="(?s)step failed: .*-m venv.*apt install python3-venv"):
        course.find_python()
    monkeypatch.setenv("FAKE_FAILS", "nothing")
    asked()
    course.find_python()
    assert asked() == [f"-m venv {course.VENV}", PIP]


def test_an_environment_that_others_made_is_kept(course, asked, tmp_path):
    course.PYTHON.parent.mkdir(parents=True)
    with pytest.raises(SystemExit, match="not made by run.py. Remove it"):
        course.find_python()
    shutil.copy(tmp_path / "python", course.PYTHON)
    (course.VENV / "theirs").touch()
    course.find_python()
    assert asked() == [PIP]
    assert (course.VENV / "theirs").exists()


def test_the_running_python_serves_when_it_has_everything(course, asked, monkeypatch):
    monkeypatch.setattr(course, "lacking", lambda: "")
    assert course.find_python() == sys.executable
    assert asked() == []
    code = "import run; print(repr(run.lacking()))"
    done = subprocess.run([PYTHON, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout == "''\n", done.stderr


def test_the_running_python_serves_only_with_the_pinned_versions_of_this_folder(course, monkeypatch):
    assert course.lacking() == "no vae_lib of this folder"
    versions = course.pins()
    monkeypatch.setattr(importlib.metadata, "version", versions.__getitem__)
    versions["torch"] += "+cpu"
    assert course.lacking() == "no vae_lib of this folder"
    versions["torch"] = "2.13.0"
    assert course.lacking() == f"torch 2.13.0, not {course.pins()['torch']}"
    monkeypatch.undo()
    text = (course.ROOT / "pyproject.toml").read_text()
    (course.ROOT / "pyproject.toml").write_text(text.replace('"ipython>', '"no-such-package>'))
    assert course.lacking() == "no no-such-package"


def test_a_changed_package_in_the_running_venv_is_put_right(course, asked, monkeypatch):
    course.find_python()
    asked()
    monkeypatch.setattr(sys, "prefix", str(course.VENV))
    course.find_python()
    assert asked() == [PIP]


WHOLE = ["tests", "notebooks", "-n", "2", "--dist", "loadfile", "--no-loadscope-reorder"]


@pytest.mark.parametrize("args, expected", [
    ([], [*WHOLE, "--cov=vae_lib"]),
    (["-x"], [*WHOLE, "-x"]),
    (["-k", "kl"], [*WHOLE, "-k", "kl"]),
    (["04"], ["notebooks/04_gaussian_kl.ipynb"]),
    (["04", "-x"], ["notebooks/04_gaussian_kl.ipynb", "-x"]),
    (["04", "tests::name", "-k", "04"], ["notebooks/04_gaussian_kl.ipynb", "tests::name", "-k", "04"]),
])
def test_what_pytest_is_asked(course, args, expected):
    assert course.test_arguments(args) == expected


@pytest.mark.parametrize("place", ["05", "4", "tests/none.py"])
def test_a_page_that_is_not_there_is_named(course, place):
    with pytest.raises(SystemExit, match=f"no page or path {place}"):
        course.test_arguments([place])


@pytest.mark.parametrize("args, expected", [
    (["test", "04", "-x"], "-m pytest --nbval notebooks/04_gaussian_kl.ipynb -x"),
    (["train", "conv", "--seed", "1"], "-m vae_lib.recipes train conv --seed 1"),
    (["measure", "conv", "500"], "-m vae_lib.recipes measure conv 500"),
    (["benchmark", "--rounds", "1"], "tests/benchmarks/speed.py --rounds 1"),
    (["refresh", "04"], "-m course.pages refresh 04"),
    (["figures"], "figures/draw.py"),
    (["ledger"], "-m course.pages ledger"),
])
def test_tasks_run_in_the_environment(course, asked, args, expected):
    course.find_python()
    asked()
    done = start(course.ROOT, *args)
    assert done.returncode == 0, done.stderr
    assert asked() == [expected]
    assert done.stdout == f"run.py: {course.PYTHON} {expected}\n"


def test_without_a_task_the_course_opens_in_jupyterlab(course, asked, monkeypatch):
    course.find_python()
    started = []
    monkeypatch.setattr(os, "execv", lambda path, argv: started.append(argv))
    monkeypatch.chdir(course.ROOT)
    for user in 0, 1000:
        monkeypatch.setattr(os, "geteuid", lambda user=user: user)
        course.main([])
    lab = [str(course.PYTHON), "-m", "jupyterlab", f"--ServerApp.root_dir={course.ROOT}",
           "--LabApp.default_url=/lab/tree/notebooks/00_start_here.ipynb"]
    assert started == [[*lab, "--allow-root"], lab]


def test_the_exit_status_is_that_of_the_task(course, monkeypatch):
    course.find_python()
    monkeypatch.setenv("FAKE_FAILS", "vae_lib.recipes")
    assert start(course.ROOT, "train", "x").returncode == 1
    assert start(course.ROOT, "ledger").returncode == 0


def test_help_and_unknown_tasks_print_the_usage(course, asked):
    for args, status, message in (["--help"], 0, ""), (["tset"], 1, "run.py: there is no task tset\n"):
        done = start(course.ROOT, *args)
        assert (done.returncode, done.stderr) == (status, message)
        assert all(f"python3 run.py {task}" in done.stdout for task in course.TASKS if task != "lab")
    assert asked() == []
    assert not course.VENV.exists()


@pytest.mark.filterwarnings("ignore:This DataLoader will create 4 worker processes")  # as the article has it
def test_the_benchmark_trains_what_it_times(monkeypatch):
    """Its ways on a few images, but for pythae's, which need not be installed."""
    monkeypatch.syspath_prepend(ROOT / "tests/benchmarks")  # worker processes import it too
    speed = importlib.import_module("speed")
    images = load("MNIST", root="sample").train[:256]
    (taken, loss), (bare, _), (stock, of_stock) = (
        way(images) for way in (speed.fit_epoch, speed.bare_epoch, speed.stock_epoch))
    assert 0 < taken < 60 and 0 < bare < 60 and 0 < stock < 60 and 400 < loss < 600
    assert of_stock == pytest.approx(loss, rel=0.03)
    set_precision, asked = torch.set_float32_matmul_precision, []
    monkeypatch.setattr(torch, "set_float32_matmul_precision",
                        lambda precision: asked.append(precision) or set_precision(precision))
    assert speed.fit_epoch(images, "medium")[1] == pytest.approx(loss, rel=0.01)
    assert asked == ["medium", "highest"]  # the others are timed without it
    x = speed.to_article(images[:128])
    first = [speed.article_loss(x, *speed.article_vae(seed)(x)).mean().item() for seed in (1, 2)]
    for way in speed.article_fit, speed.article_loop:
        found = [way(images, steps=2, seed=seed) for seed in (1, 2)]
        assert all(taken > 0 and len(losses) == 2 for taken, losses in found)
        assert [losses[0] for _, losses in found] == pytest.approx(first, rel=0.05)
        assert found[0][1] != found[1][1]
