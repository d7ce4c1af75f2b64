"""Faults of saving and loading: a killed process, a full disk, missing rights, damaged and hostile files.

What a user reads is one line that names the file; what was on disk before is there afterwards. Faults of the data are
in test_data, those of the set-up in test_run; CONTRIBUTING.md has the table of all.
"""

import errno
import multiprocessing
import os
import pickle
import re
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
import torch
from rights import as_nobody
from small_runs import GREY, assert_same_bits, quiet, small_vae, weights_of

from vae_lib import files, recipes
from vae_lib.checkpoints import load_weights, save_weights, write_tensors


def go_on(model, path, steps=3):
    """Train a model from a checkpoint on, or from the start if there is none."""
    return quiet(model, GREY, steps=steps, batch_size=8, checkpoint=path, resume=True)


@pytest.fixture(params=[go_on, load_weights])
def load(request):
    """What reads a file: load(model, path)."""
    return request.param


@pytest.fixture
def saved(load, tmp_path):
    """A checkpoint or weights, as small as they come."""
    path = tmp_path / "saved.safetensors"
    go_on(small_vae(), path, steps=2) if load is go_on else save_weights(small_vae(), path)
    return path


def assert_refused(load, path, message, error=ValueError, model=None):
    """The message is one line and begins so; model and file stay as they were."""
    model, content = model or small_vae(seed=1), path.stat()
    before = weights_of(model)
    with pytest.raises(error) as raised:
        load(model, path)
    assert str(raised.value).startswith(message) and "\n" not in str(raised.value)
    assert_same_bits(weights_of(model), before)
    assert path.stat().st_mtime_ns == content.st_mtime_ns and path.stat().st_size == content.st_size


# Damaged and hostile files


def test_a_file_that_is_cut_at_any_tenth_byte_is_refused(load, saved):
    whole, model = saved.read_bytes(), small_vae(seed=1)
    for length in range(0, len(whole), 10):
        saved.write_bytes(whole[:length])
        assert_refused(load, saved, f"{saved} is truncated or no safetensors file: ", model=model)
    saved.write_bytes(whole)
    load(model, saved)


class Payload:
    """Leaves a file behind when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


PICKLES = {
    "pickle": lambda payload, path: path.write_bytes(pickle.dumps(payload)),
    "zip": torch.save,
    "old": lambda payload, path: torch.save(payload, path, _use_new_zipfile_serialization=False),
}


@pytest.mark.parametrize("write", PICKLES.values(), ids=PICKLES)
def test_a_pickle_is_refused_and_its_payload_does_not_run(load, saved, tmp_path, write):
    ran = tmp_path / "ran"
    write(Payload(ran), saved)
    assert_refused(load, saved, f"{saved} is truncated or no safetensors file: ")
    assert not ran.exists()
    with open(saved, "rb") as file:
        (pickle.load if write is PICKLES["pickle"] else lambda file: torch.load(file, weights_only=False))(file)
    assert ran.exists(), "loaded as others load it, it runs"


def test_a_pickle_within_a_safetensors_file_stays_bytes(load, saved, tmp_path):
    ran = tmp_path / "ran"
    content = pickle.dumps(Payload(ran))
    write_tensors(saved, {"weights": torch.tensor(list(content), dtype=torch.uint8)}, {"pickle": content.hex()})
    message = "checkpoint: wanted a 'checkpoint of" if load is go_on else f"{saved} does not fit this model"
    assert_refused(load, saved, message)
    assert not ran.exists()


def test_a_web_page_in_place_of_weights_is_refused(load, saved):
    saved.write_bytes(b"<!DOCTYPE html><title>Log in to the network</title>")
    assert_refused(load, saved, f"{saved} is truncated or no safetensors file: ")


def test_a_damaged_log_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(recipes, "WEIGHTS", tmp_path)
    log = tmp_path / "conv_mnist.json"
    for content in b'{"stages": [', b"", b"\xff":
        log.write_bytes(content)
        for read in recipes.recorded_runs, lambda: recipes.training_log("conv_mnist"):
            with pytest.raises(ValueError, match=f"^{log} is truncated or no JSON: [^\n]+$"):
                read()


# Rights, and room


def test_a_file_that_may_not_be_read_is_not_said_to_be_missing(load, saved, tmp_path):
    with as_nobody(tmp_path, saved, 0) as path:
        assert_refused(load, path, f"[Errno 13] Permission denied: '{path}'", PermissionError)
    load(small_vae(), saved)


@pytest.fixture
def run(tmp_path):
    """A checkpoint of two steps, in a folder of its own."""
    path = tmp_path / "runs/run.safetensors"
    go_on(small_vae(), path, steps=2)
    return path


SAVES = [partial(go_on, small_vae()), partial(save_weights, small_vae()), files.refuse_unwritable]


@pytest.mark.parametrize("save", SAVES, ids=["checkpoint", "weights", "beforehand"])
def test_a_folder_that_may_not_be_written_keeps_what_it_has(run, tmp_path, save):
    before = run.read_bytes()
    with as_nobody(tmp_path, run.parent, 0o555), pytest.raises(PermissionError) as error:
        save("runs/run.safetensors")
    assert str(error.value) == "[Errno 13] Permission denied: 'runs/run.safetensors'"
    assert [path.read_bytes() for path in run.parent.iterdir()] == [before]


@pytest.mark.parametrize("save", SAVES, ids=["checkpoint", "weights", "beforehand"])
@pytest.mark.parametrize("name", ["run.safetensors", "inner/run.safetensors"])
def test_a_folder_that_cannot_be_made_is_named_with_the_file(run, save, name):
    path = run / name  # a file stands where the folder should be
    with pytest.raises(NotADirectoryError, match=f"Not a directory: '{path}'"):
        save(path)


def test_a_fit_finds_out_before_its_first_step(run, tmp_path):
    with as_nobody(tmp_path, run.parent, 0o555), pytest.raises(PermissionError, match="denied: 'runs/new'$"):
        quiet(small_vae(), GREY, steps=2, objective=never, batch_size=8, checkpoint="runs/new")


def never(model, x):
    pytest.fail("the objective was called")


@pytest.mark.parametrize("call", ["open", "fsync", "replace"])
def test_a_full_disk_is_named_with_the_file_and_keeps_the_earlier_one(run, monkeypatch, call):
    before = run.read_bytes()

    def full(*_, **__):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(*((files, call) if call == "open" else (files.os, call)), full, raising=False)
        for save in SAVES[:2]:
            with pytest.raises(OSError, match=f"^.Errno 28. No space left on device: '{run}'$"):
                save(run)
    assert [path.read_bytes() for path in run.parent.iterdir()] == [before]
    assert len(go_on(small_vae(), run)["elbo"]) == 3


# Killed processes, and several at once

KILLED = """
import importlib.util, os, signal, sys
source, path, content, left = sys.argv[1:]
spec = importlib.util.spec_from_file_location("files", source)
files = importlib.util.module_from_spec(spec)
spec.loader.exec_module(files)
left = int(left)

def die():
    os.kill(os.getpid(), signal.SIGKILL)

class Half:
    def __init__(self, *args):
        self.file = open(*args)
    def __enter__(self):
        return self
    def write(self, content):
        self.file.write(content[:len(content) // 2])
        self.file.flush()
        die()
    def __exit__(self, *_):
        pass

def trace(frame, event, _):
    global left
    if frame.f_code.co_filename == source:
        left -= event == "line"
        if left < 0:
            die()
        return trace

if left < 0:
    files.open = Half
else:
    sys.settrace(trace)
files.write_whole(path, open(content, "rb").read())
"""


def test_a_process_killed_anywhere_in_a_save_leaves_the_old_file_or_the_new_one(run, tmp_path):
    """Killed before each line of write_whole, so before and after each of its system calls, and half through the data.

    What it leaves beside the file stops neither the next save nor the next start.
    """
    old, new = run.read_bytes(), tmp_path / "new"
    go_on(small_vae(), new, steps=4)
    new_bytes, states = new.read_bytes(), []
    for left in range(-1, 100):
        run.write_bytes(old)
        child = subprocess.run([sys.executable, "-ISc", KILLED, files.__file__, run, new, str(left)])
        parts = [path.read_bytes() for path in run.parent.glob("run.safetensors.*.part")]
        states.append((run.read_bytes() == new_bytes, *map(len, parts)))
        assert run.read_bytes() in (old, new_bytes)
        if child.returncode == 0:
            break
        assert child.returncode == -signal.SIGKILL
        for path in run.parent.glob("*.part"):
            assert new_bytes.startswith(path.read_bytes())
            path.rename(path.with_suffix(".left"))
    whole = len(new_bytes)
    assert list(dict.fromkeys(states)) == [(False, whole // 2), (False,), (False, 0), (False, whole), (True,)]
    assert child.returncode == 0 and states[-2:] == [(True,)] * 2
    for path in run.parent.glob("*.left"):
        path.rename(path.with_suffix(".part"))
    assert len(go_on(small_vae(), run, steps=5)["elbo"]) == 5


def test_processes_that_save_one_file_leave_it_whole_at_any_time(tmp_path):
    path, fork = tmp_path / "weights.safetensors", multiprocessing.get_context("fork")
    models = [small_vae(seed) for seed in range(4)]
    wanted = []
    for model in models:
        save_weights(model, path)
        wanted.append(path.read_bytes())

    def save_often(model):
        for _ in range(50):
            save_weights(model, path)

    processes = [fork.Process(target=save_often, args=(model,)) for model in models[:3]]
    for process in processes:
        process.start()
    seen = set()
    while any(process.is_alive() for process in processes):
        seen.add(path.read_bytes())
        load_weights(small_vae(), path)
    assert [process.exitcode for process in processes] == [0] * 3
    assert seen <= set(wanted) and path.read_bytes() in wanted[:3]
    assert list(tmp_path.iterdir()) == [path]


def test_the_table_of_faults_names_tests_that_there_are():
    tests = Path(__file__).parent
    rows = [line for line in (tests.parent / "CONTRIBUTING.md").read_text().splitlines() if line.startswith("| ")]
    named = [re.findall(r"`(test_\w+) -k (\w+)`", row) for row in rows[1:]]
    assert len(rows) > 15 and all(named)
    for file, word in sum(named, []):
        assert re.search(rf"(?m)^def test_\w*{word}", (tests / f"{file}.py").read_text()), (file, word)
