"""Freed memory is kept inside `keeping_freed_memory` and handed back afterwards, where glibc serves the tensors."""

import ctypes
import json
import os
import platform
import subprocess
import sys
from types import SimpleNamespace

import pytest

from vae_lib.memory import MMAP_MAX, MMAP_THRESHOLD, TRIM_THRESHOLD, keeping_freed_memory

MEASURE = """
import json, resource
import torch
from vae_lib.memory import keeping_freed_memory

torch.set_num_threads(1)  # a kernel counts what one thread has in memory without delay

def use_memory():
    torch.ones(48 << 20, dtype=torch.uint8)

def page_faults():
    for _ in range(20):  # the process finds room for what it keeps: glibc before 2.38 leaves gaps
        use_memory()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(10):
        use_memory()
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

def resident():
    return int(open("/proc/self/statm").read().split()[1]) * resource.getpagesize() >> 20

found = {"faults outside": page_faults(), "resident before": resident()}
try:
    with keeping_freed_memory():
        found |= {"faults inside": page_faults(), "resident inside": resident()}
        raise KeyError
except KeyError:
    found["resident after"] = resident()
print(json.dumps(found))
"""
TUNING = ("MALLOC_", "GLIBC_TUNABLES", "LD_PRELOAD", "THP_")
KEEP = [("mallopt", MMAP_MAX, 0), ("mallopt", TRIM_THRESHOLD, -1)]
HAND_BACK = [("mallopt", MMAP_MAX, 65_536), ("mallopt", MMAP_THRESHOLD, 32 << 20),
             ("mallopt", TRIM_THRESHOLD, 64 << 20), ("malloc_trim", 0)]


@pytest.mark.skipif(platform.machine() != "x86_64" or platform.libc_ver()[0] != "glibc",
                    reason="tensors come from glibc's malloc only there")
def test_memory_is_kept_inside_and_goes_back_even_after_an_error():
    """In a process of its own: what earlier tests freed would serve the tensors here."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(TUNING)}
    run = subprocess.run([sys.executable, "-c", MEASURE], capture_output=True, text=True, env=environment)
    assert run.returncode == 0, run.stderr
    found = json.loads(run.stdout)
    assert found["faults outside"] >= 10 * 48 // 2, found  # a fault for each page, even if pages are huge
    assert found["faults inside"] < found["faults outside"] / 10, found
    assert 44 < found["resident inside"] - found["resident before"] < 12 * 48, found  # freed, and still here
    assert found["resident after"] < found["resident before"] + 20, found


@pytest.fixture
def calls(monkeypatch):
    """What a C library that looks like glibc is asked to do."""
    made = []
    libc = SimpleNamespace(gnu_get_libc_version=None, mallopt=lambda *given: made.append(("mallopt", *given)),
                           malloc_trim=lambda *given: made.append(("malloc_trim", *given)))
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(ctypes, "CDLL", lambda name: libc)
    for name in os.environ:
        if name.startswith(TUNING):
            monkeypatch.delenv(name)
    return made


def test_settings_change_inside_and_change_back(calls):
    with keeping_freed_memory():
        assert calls == KEEP
    assert calls == KEEP + HAND_BACK


def test_settings_change_back_after_an_error(calls):
    with pytest.raises(KeyError), keeping_freed_memory():
        raise KeyError
    assert calls == KEEP + HAND_BACK


@pytest.mark.parametrize("name", ["MALLOC_MMAP_MAX_", "GLIBC_TUNABLES"])
def test_settings_of_the_environment_stay(calls, monkeypatch, name):
    monkeypatch.setenv(name, "0")
    with keeping_freed_memory():
        pass
    assert calls == []


def test_another_c_library_is_left_alone(monkeypatch):
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(ctypes, "CDLL", lambda name: SimpleNamespace(mallopt=None))
    with pytest.raises(KeyError), keeping_freed_memory():
        raise KeyError


@pytest.mark.parametrize("system", ["darwin", "win32"])
def test_other_systems_are_asked_for_no_library(monkeypatch, system):
    monkeypatch.setattr(sys, "platform", system)
    monkeypatch.setattr(ctypes, "CDLL", None)
    with keeping_freed_memory():
        pass
