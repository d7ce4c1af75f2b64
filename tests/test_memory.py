"""Memory kept inside `keeping_memory`, handed back afterwards, and nothing at all where glibc is not at work."""

import ctypes
import json
import subprocess
import sys

import pytest

from vae_lib.memory import keeping_memory

MEASURE = """
import json, resource
import torch
from vae_lib.memory import keeping_memory

def use_memory():
    torch.ones(64 << 20, dtype=torch.uint8)

def page_faults():
    for _ in range(20):  # the process finds room for what it keeps
        use_memory()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(10):
        use_memory()
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

def resident():
    return int(open("/proc/self/statm").read().split()[1]) * resource.getpagesize() >> 20

found = {"faults before": page_faults(), "resident before": resident()}
try:
    with keeping_memory():
        found |= {"faults inside": page_faults(), "resident inside": resident()}
        raise KeyError
except KeyError:
    found |= {"resident after": resident(), "faults after": page_faults()}
print(json.dumps(found))
"""


@pytest.mark.skipif(sys.platform != "linux" or not hasattr(ctypes.CDLL(None), "gnu_get_libc_version"),
                    reason="glibc is not at work")
def test_memory_is_kept_inside_and_goes_back_even_after_an_error():
    """In a process of its own: what earlier tests freed would serve the tensors here."""
    run = subprocess.run([sys.executable, "-c", MEASURE], capture_output=True, text=True, check=True)
    found = json.loads(run.stdout)
    pages = 10 * (64 << 20) // 4096
    assert found["faults before"] > pages / 1000 and found["faults after"] > pages / 1000, found  # pages may be huge
    assert found["faults inside"] < min(found["faults before"], found["faults after"]) / 10, found
    assert found["resident inside"] > found["resident before"] + 60, found  # freed, and still here
    assert found["resident after"] < found["resident before"] + 20, found


@pytest.mark.parametrize("platform", ["linux", "darwin", "win32"])
def test_nothing_happens_without_glibc(monkeypatch, platform):
    def cdll(name):
        assert platform == "linux", "asked for a library that this system may not have"
        return object()

    monkeypatch.setattr(sys, "platform", platform)
    monkeypatch.setattr(ctypes, "CDLL", cdll)
    with keeping_memory():
        pass
    with pytest.raises(KeyError), keeping_memory():
        raise KeyError
