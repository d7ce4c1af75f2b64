"""run.py does what the README says: it makes an environment, or takes the one there is, and runs its tasks there."""

import ast
import http.server
import importlib.metadata
import importlib.util
import os
import re
import runpy
import shutil
import socket
import subprocess
import sys
import threading
import time
import zipfile
from functools import partial
from pathlib import Path

import pytest

import run

ROOT = Path(__file__).parent.parent
PYTHON = sys.executable

FAKE_PYTHON = """#!/bin/sh
echo "$*" >> "$FAKE_LOG"
if [ "$2" = "$FAKE_FAILS" ]; then exit 1; fi
if [ "$2" = venv ]; then mkdir -p "$3/bin" "$3/lib/python3.11/site-packages" && cp "$0" "$3/bin/python"; fi
"""
FAKE_UV = """#!/bin/sh
echo "uv $*" >> "$FAKE_LOG"
if [ "$1" = venv ]; then mkdir -p "$6/bin" && cp "$5" "$6/bin/python"; fi
"""


@pytest.fixture
def course(tmp_path, monkeypatch):
    """run.py as a module of a folder of its own, and a Python that only notes what it is asked to do."""
    root = tmp_path / "course"
    (root / "notebooks/exercises").mkdir(parents=True)
    pages = {"04_gaussian_kl": "", "exercises/04_gaussian_kl": "", "09_conv": 'load("MNIST")', "A_the_article": ""}
    for name, text in pages.items():
        (root / f"notebooks/{name}.ipynb").write_text(text)
    (root / "tests").mkdir()
    for name in ("run.py", "pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, root / name)
    fake = tmp_path / "python"
    fake.write_text(FAKE_PYTHON)
    fake.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(fake))
    monkeypatch.setenv("FAKE_LOG", str(tmp_path / "log"))
    monkeypatch.setenv("FAKE_FAILS", "nothing")
    monkeypatch.setenv("VAE_TORCH", "cuda")
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/usr/bin:/bin")  # without the uv of whoever runs the tests
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


PIP = "-m pip install --no-compile -c constraints.txt -e .[test]"


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
    with monkeypatch.context() as context:
        context.setattr(sys, "prefix", str(course.VENV))
        course.find_python()
    assert asked() == [PIP], "its own Python mends it, and cannot make it anew"
    course.STAMP.write_text(course.UNFINISHED)
    course.find_python()
    assert asked() == [f"-m venv {course.VENV}", PIP]


def test_an_update_that_fails_after_torch_was_replaced_does_not_pass_for_the_old_one(course, asked, index, monkeypatch):
    monkeypatch.setenv("VAE_TORCH", index[0])
    course.find_python()
    pins, call = (course.ROOT / "constraints.txt").read_text(), course.subprocess.call
    (course.ROOT / "constraints.txt").write_text(pins + "# changed\n")
    with monkeypatch.context() as context, pytest.raises(SystemExit, match="Is the network up"):
        context.setattr(course.subprocess, "call", lambda argv, cwd: call(argv, cwd=cwd) or "--no-deps" not in argv)
        course.find_python()
    (course.ROOT / "constraints.txt").write_text(pins)
    asked()
    course.find_python()
    assert asked()[-1] == PIP, "pip is asked again, also for the old versions"


def test_a_moved_folder_works_on_without_an_installation(course, asked):
    course.find_python()
    asked()
    moved = course.ROOT.rename(course.ROOT.parent / "moved here")
    done = start(moved, "ledger")
    assert done.returncode == 0, done.stderr
    assert asked() == ["-m course.pages ledger"]
    code = f"import site, sys; site.addsitedir({str(moved / '.venv/lib/python3.11/site-packages')!r}); print(sys.path)"
    path = subprocess.run([PYTHON, "-c", code], capture_output=True, text=True, cwd=course.ROOT.parent).stdout
    assert str(moved) in ast.literal_eval(path), "where kernels find vae_lib"


def test_uv_installs_where_it_is_found(course, asked, tmp_path):
    (tmp_path / "bin").mkdir()
    uv = tmp_path / "bin/uv"
    uv.write_text(FAKE_UV)
    uv.chmod(0o755)
    assert course.find_python() == str(course.PYTHON)
    assert asked() == [f"uv venv --seed --allow-existing --python {sys.executable} {course.VENV}",
                       f"uv pip install --python {course.PYTHON} -c constraints.txt -e .[test]"]
    uv.unlink()
    with (course.ROOT / "constraints.txt").open("a") as file:
        file.write("# changed\n")
    course.find_python()
    assert asked() == [PIP], "pip updates what uv has made"


# A build of torch without CUDA

@pytest.fixture
def index(tmp_path):
    """A package index on this machine, with small stand-ins for the CPU builds: its URL, and its folder."""
    folder = tmp_path / "index"
    for name, version in ((name, run.pins()[name] + "+cpu") for name in ("torch", "torchvision")):
        wheel = f"{name}-{version}-py3-none-any.whl"
        (folder / name).mkdir(parents=True)
        (folder / name / "index.html").write_text(f'<a href="{wheel.replace("+", "%2B")}">{wheel}</a>')
        with zipfile.ZipFile(folder / name / wheel, "w") as file:
            info = f"{name}-{version}.dist-info"
            file.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
                                              "Requires-Dist: no-such-package\n")
            file.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
            file.writestr(f"{info}/RECORD", "")
    handler = partial(http.server.SimpleHTTPRequestHandler, directory=folder)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}", folder
    server.shutdown()
    server.server_close()


def test_the_cpu_build_comes_first_and_the_rest_from_the_ordinary_index(course, asked, index, monkeypatch, capsys):
    url, _ = index
    monkeypatch.setenv("VAE_TORCH", url + "/")
    course.find_python()
    builds = " ".join(f"{name}=={course.pins()[name]}+cpu" for name in ("torch", "torchvision"))
    assert asked() == [f"-m venv {course.VENV}", f"{PIP.partition(' -c')[0]} --no-deps --index-url {url} {builds}", PIP]
    assert "CUDA from" not in capsys.readouterr().out


def test_pip_installs_the_cpu_build_that_run_py_asks_for(index, tmp_path, capfd):
    target = tmp_path / "site"
    run.install_cpu_torch([PYTHON, "-m", "pip", "install", "--target", str(target)], index[0])
    found = {path.name for path in target.glob("*.dist-info")}
    assert found == {f"{name}-{run.pins()[name]}+cpu.dist-info" for name in ("torch", "torchvision")}


def test_an_index_that_fails_costs_one_line_and_the_ordinary_one_serves(course, asked, index, monkeypatch, capsys):
    url, folder = index
    (folder / "torch/index.html").write_text("torch-1.0+cpu")
    silent = socket.create_server(("127.0.0.1", 0))  # takes the call and never answers
    hanging = f"http://127.0.0.1:{silent.getsockname()[1]}"
    monkeypatch.setattr(course, "PATIENCE", 0.5)
    nobody = socket.create_server(("127.0.0.1", 0))
    refused = f"http://127.0.0.1:{nobody.getsockname()[1]}"
    nobody.close()
    for bad, why in (url, "it has no torch"), (hanging, "no answer|timed out"), (refused, "refused"):
        monkeypatch.setenv("VAE_TORCH", bad)
        started = time.monotonic()
        course.install()
        assert time.monotonic() - started < 5
        assert asked()[-1] == PIP
        lines = [line for line in capsys.readouterr().out.splitlines() if "CUDA from the ordinary" in line]
        assert len(lines) == 1 and bad in lines[0]
        assert re.search(why, lines[0]), lines
    silent.close()


def test_a_build_that_pip_cannot_get_is_replaced_by_the_ordinary_one(course, asked, index, monkeypatch, capsys):
    monkeypatch.setenv("VAE_TORCH", index[0])
    monkeypatch.setattr(course.subprocess, "call", lambda argv, cwd: int("--no-deps" in argv))
    course.install_cpu_torch(["pip", "install"], index[0])
    assert "it failed to serve torch==" in capsys.readouterr().out


@pytest.mark.parametrize("wish, driver, platform, wanted", [
    (None, False, "linux", "the index"), (None, True, "linux", None), (None, False, "darwin", None),
    ("cpu", True, "linux", "the index"), ("cuda", False, "linux", None), ("http://x/cpu/", True, "win32", "http://x/cpu"),
])
def test_who_gets_the_cpu_build(monkeypatch, wish, driver, platform, wanted):
    monkeypatch.delenv("VAE_TORCH", raising=False)
    if wish:
        monkeypatch.setenv("VAE_TORCH", wish)
    monkeypatch.setattr(run, "has_nvidia_driver", lambda: driver)
    monkeypatch.setattr(sys, "platform", platform)
    assert run.cpu_index() == (run.CPU_INDEX if wanted == "the index" else wanted)


def test_another_wish_for_torch_is_refused_by_name(monkeypatch):
    monkeypatch.setenv("VAE_TORCH", "gpu")
    with pytest.raises(SystemExit, match="VAE_TORCH: wanted cpu, cuda or the URL of an index, got gpu"):
        run.cpu_index()


# The environment, whole or marked as unfinished

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
    assert {path.name for path in course.VENV.iterdir()} == {"bin", "lib", course.STAMP.name, course.OURS.name}


def test_a_folder_that_may_not_be_written_costs_one_line(course, monkeypatch):
    def denied(path, *_):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(os, "mkdir", denied)
    monkeypatch.setattr(sys, "argv", ["run.py", "ledger"])
    with pytest.raises(SystemExit) as stop:
        runpy.run_path(str(course.ROOT / "run.py"), run_name="__main__")
    assert stop.value.code == f"run.py: [Errno 13] Permission denied: '{course.VENV}'"


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
    with pytest.raises(SystemExit, match="no mark that run.py made it. Remove it"):
        course.find_python()
    shutil.copy(tmp_path / "python", course.PYTHON)
    (course.VENV / "theirs").touch()
    course.find_python()
    assert asked() == [PIP]
    assert (course.VENV / "theirs").exists()


def test_an_environment_that_others_made_is_kept_after_a_stop_too(course, asked, tmp_path, monkeypatch):
    course.PYTHON.parent.mkdir(parents=True)
    shutil.copy(tmp_path / "python", course.PYTHON)
    (course.VENV / "theirs").touch()

    def stopped(argv, cwd):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(course.subprocess, "call", stopped)
        course.find_python()
    course.find_python()
    assert asked() == [PIP]
    assert (course.VENV / "theirs").exists()
    assert course.STAMP.read_text() == course.fingerprint()


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


FOUR = ["notebooks/04_gaussian_kl.ipynb", "notebooks/exercises/04_gaussian_kl.ipynb"]
WHOLE = ["tests", "notebooks", "-n", "2", "--dist", "loadfile", "--no-loadscope-reorder"]


@pytest.mark.parametrize("args, expected", [
    ([], [*WHOLE, "--cov=vae_lib"]),
    (["-x"], [*WHOLE, "-x"]),
    (["-k", "kl"], [*WHOLE, "-k", "kl"]),
    (["04"], FOUR),
    (["04", "-x"], [*FOUR, "-x"]),
    (["A"], ["notebooks/A_the_article.ipynb"]),
    (["04", "tests::name", "-k", "04"], [*FOUR, "tests::name", "-k", "04"]),
])
def test_what_pytest_is_asked(course, args, expected):
    assert course.test_arguments(args) == expected


@pytest.mark.parametrize("place", ["05", "4", "tests/none.py"])
def test_a_page_that_is_not_there_is_named(course, place):
    with pytest.raises(SystemExit, match=f"no page or path {place}"):
        course.test_arguments([place])


@pytest.mark.parametrize("args, expected", [
    (["test", "04", "-x"], f"-m pytest --nbval {' '.join(FOUR)} -x"),
    (["train", "conv", "--seed", "1"], "-m vae_lib.recording train conv --seed 1"),
    (["measure", "conv", "500"], "-m vae_lib.recording measure conv 500"),
    (["benchmark", "--rounds", "1"], "tests/benchmarks/speed.py --rounds 1"),
    (["refresh", "04"], "-m course.pages refresh 04"),
    (["sample", "-x"], "-m pytest --nbval -n 2 --dist loadfile notebooks/09_conv.ipynb -x"),
    (["browser", "04", "-x"], "-m course.browser 04 -x"),
    (["figures"], "figures/draw.py"),
    (["ledger"], "-m course.pages ledger"),
    (["exam", "--seed", "7"], "-m course.exam --seed 7"),
])
def test_tasks_run_in_the_environment(course, asked, args, expected):
    course.find_python()
    asked()
    done = start(course.ROOT, *args)
    assert done.returncode == 0, done.stderr
    assert asked() == [expected]
    assert done.stdout == f"run.py: {course.PYTHON} {expected}\n"


def test_tasks_keep_freed_memory_unless_their_user_settled_that(course, monkeypatch):
    course.find_python()
    monkeypatch.chdir(course.ROOT)
    kept = []
    monkeypatch.setattr(os, "execv", lambda path, argv: kept.append(os.environ.get("MALLOC_MMAP_MAX_")))
    for task in "lab", "test", "train":
        with monkeypatch.context() as context:
            context.delenv("MALLOC_MMAP_MAX_", raising=False)
            context.delenv("MALLOC_TRIM_THRESHOLD_", raising=False)
            course.main([task])
    monkeypatch.setenv("MALLOC_MMAP_MAX_", "7")
    course.main(["train"])
    assert kept == ["0", "0", "0", "7"]


def test_without_a_task_the_course_opens_in_jupyterlab(course, asked, monkeypatch):
    course.find_python()
    started = []
    monkeypatch.setattr(os, "execv", lambda path, argv: started.append(argv))
    monkeypatch.chdir(course.ROOT)
    for user in 0, 1000:
        monkeypatch.setattr(os, "geteuid", lambda user=user: user)
        course.main([])
    lab = [str(course.PYTHON), "-m", "jupyterlab", f"--ServerApp.root_dir={course.ROOT}",
           "--LabApp.default_url=/lab/tree/notebooks/00_start_here.ipynb",
           f"--LabApp.app_settings_dir={course.ROOT / 'course/jupyterlab'}",
           f"--LabApp.extra_labextensions_path={course.ROOT / 'course/jupyterlab/extensions'}"]
    assert started == [[*lab, "--allow-root"], lab]


def test_the_exit_status_is_that_of_the_task(course, monkeypatch):
    course.find_python()
    monkeypatch.setenv("FAKE_FAILS", "vae_lib.recording")
    assert start(course.ROOT, "train", "x").returncode == 1
    assert start(course.ROOT, "ledger").returncode == 0


def test_help_and_unknown_tasks_print_the_usage(course, asked):
    for args, status, message in (["--help"], 0, ""), (["tset"], 1, "run.py: there is no task tset\n"):
        done = start(course.ROOT, *args)
        assert (done.returncode, done.stderr) == (status, message)
        assert all(f"python3 run.py {task}" in done.stdout for task in course.TASKS if task != "lab")
    assert asked() == []
    assert not course.VENV.exists()
