"""The project holds together: one set of versions everywhere, a whole wheel, and clean code."""

import ast
import importlib.metadata
import os
import re
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
    wanted = {found.name: found.metadata.get("Requires-Python") or ""
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
    for path in sorted([*(ROOT / "vae_lib").rglob("*.py"), *(ROOT / "course").glob("*.py")]):
        nodes = list(ast.walk(ast.parse(path.read_text())))
        names = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
        names |= {node.module for node in nodes if isinstance(node, ast.ImportFrom)}
        tops = {name.split(".")[0] for name in names} - set(sys.stdlib_module_names) - {"vae_lib", "course"}
        for top in tops:
            declared = tools if path.is_relative_to(ROOT / "course") else library
            packages = {canonicalize_name(name) for name in providers[top]}
            assert declared & packages, f"{path.name} imports {top}"


def test_conda_gives_python_and_pip_and_pip_the_rest():
    python, pip, rest = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]
    assert (python, pip) == ("python" + PROJECT["requires-python"], "pip")
    assert rest == {"pip": ["-c constraints.txt", "-e .[test]"]}
    assert run.INSTALL == " ".join(rest["pip"]).split()


def test_the_workflow_only_calls_run_py():
    workflow = yaml.safe_load((ROOT / ".github/workflows/test.yml").read_text())
    steps = workflow["jobs"]["test"]["steps"]
    assert [step["run"] for step in steps if "run" in step] == ["python3 run.py test", "python3 run.py browser"]
    versions = [step["with"]["python-version"] for step in steps if "python-version" in step.get("with", {})]
    assert [f">={version}" for version in versions] == [PROJECT["requires-python"]]


@pytest.mark.parametrize("chromium, can_install, then", [
    (True, False, "browser"), (False, True, "browser"), (False, False, "sample")])
def test_ci_runs_the_tests_with_the_data_beside_the_repository_and_then_the_sample(
        tmp_path, chromium, can_install, then):
    (tmp_path / ".ci").mkdir()
    tools = tmp_path / "bin"
    tools.mkdir()
    for name in "bash", "dirname":
        (tools / name).symlink_to(shutil.which(name))
    install = f"{shutil.which('ln')} -sf python3 {tools}/chromium"
    scripts = {"python3": f'exec {PYTHON} "$@"', "id": "echo 0", "apt-get": install if can_install else "exit 100"}
    for name, script in (scripts | ({"chromium": ""} if chromium else {})).items():
        (tools / name).write_text(f"#!/bin/sh\n{script}\n")
        (tools / name).chmod(0o755)
    shutil.copy(ROOT / ".ci/run", tmp_path / ".ci/run")
    (tmp_path / "run.py").write_text("import os, sys\n"
                                     "print(sys.argv[1:], repr(os.environ.get('VAE_DATA')))\n"
                                     "sys.exit(7 if sys.argv[1] == os.environ['FAILS'] else 0)\n")
    unset = {name: value for name, value in os.environ.items() if name != "VAE_DATA"}
    unset["PATH"] = str(tools)
    both = ["test", then]
    for given, seen in ({}, "../shared/data"), ({"VAE_DATA": ""}, ""), ({"VAE_DATA": "sample"}, "sample"):
        for fails, status, tasks in ("test", 7, both[:1]), (then, 7, both), ("", 0, both):
            done = subprocess.run([shutil.which("bash"), tmp_path / ".ci/run"], env=unset | given | {"FAILS": fails},
                                  cwd="/", capture_output=True, text=True)
            assert (done.returncode, done.stdout.splitlines()[0]) == (status, f"['test'] {seen!r}")
            assert [line.split("'")[1] for line in done.stdout.splitlines()] == tasks
            assert ("no browser: none is installed" in done.stderr) == (tasks[1:] == ["sample"])


def test_only_run_py_names_an_index_and_only_that_of_the_cpu_build():
    found = {}
    for name in ("run.py", "pyproject.toml", "constraints.txt", "environment.yml", ".ci/run", "conftest.py",
                 ".github/workflows/test.yml"):
        for url in re.findall(r"https?://[^\s\"']+|find-links\S*", (ROOT / name).read_text()):
            found.setdefault(name, set()).add(url)
    assert found == {"run.py": {"https://download.pytorch.org/whl/cpu"}}


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
    files = [*tmp_path.glob("vae_lib/**/*.py"), *tmp_path.glob("vae_lib/weights/*.*")]
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
    ("data", "{cwd}/data"), ("../data", "{parent}/data"), ("/x", "/x"), ("~/data", "{cwd}/home/data"),
    ("sample", "sample"), ("", ""), (None, None)])
def test_the_data_folder_holds_in_any_folder(given, settled, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
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
