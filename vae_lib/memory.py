"""What large tensors free, kept by the process while a loop runs that wants it again at once."""

import ctypes
import os
import sys
from contextlib import contextmanager

TRIM_THRESHOLD, MMAP_THRESHOLD, MMAP_MAX = -1, -3, -4  # as glibc's malloc.h numbers them


@contextmanager
def keeping_freed_memory():
    """Inside, memory that is freed stays with the process; at the end, what is free goes back to the system.

    By itself, glibc asks the system for each large block and returns it when it is freed. So each step of a loop
    pays a page fault for each 4 kB of its large tensors: in a step of the article's network (page 09) a fifth to a
    third of the time, as measured on x86 with glibc 2.36. The price is memory, as what is kept has gaps: with that
    network the peak rose from 1.4 to 1.6 GB. The settings are those of the whole process, so the first of two that
    overlap ends it for both. Nothing happens without glibc, or where the environment says how glibc shall work.
    """
    libc = ctypes.CDLL(None) if sys.platform == "linux" else None
    if not hasattr(libc, "gnu_get_libc_version") or any(
            name.startswith(("MALLOC_", "GLIBC_TUNABLES")) for name in os.environ):
        yield
        return
    try:
        libc.mallopt(MMAP_MAX, 0)
        libc.mallopt(TRIM_THRESHOLD, -1)  # never
        yield
    finally:  # glibc does not tell its settings: these are the default, and where its own adaptation stops
        libc.mallopt(MMAP_MAX, 65_536)
        libc.mallopt(MMAP_THRESHOLD, 32 << 20)
        libc.mallopt(TRIM_THRESHOLD, 64 << 20)
        libc.malloc_trim(0)
