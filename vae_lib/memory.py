"""What large tensors free, kept by the process while a loop runs that wants it again at once."""

import ctypes
import sys
from contextlib import contextmanager

TRIM_THRESHOLD, MMAP_THRESHOLD, MMAP_MAX = -1, -3, -4  # as glibc's malloc.h numbers them


@contextmanager
def keeping_memory():
    """Inside, memory that is freed stays with the process; at the end it goes back to the system.

    On Linux, glibc gets each block above 32 MB from the system and gives it back when it is freed. So each step of a
    loop finds its large tensors unmapped, and every 4 kB of them costs a page fault; with the article's network
    (page 09) that is a quarter of the time of a step. The price is gaps between what is kept: the most memory that is
    held may rise by a few of the largest tensors. Without glibc nothing changes.
    """
    libc = ctypes.CDLL(None) if sys.platform == "linux" else None
    if not hasattr(libc, "mallopt"):
        yield
        return
    libc.mallopt(MMAP_MAX, 0)
    libc.mallopt(TRIM_THRESHOLD, -1)  # never
    try:
        yield
    finally:
        libc.mallopt(MMAP_MAX, 65_536)  # the default
        libc.mallopt(MMAP_THRESHOLD, 32 << 20)  # this and the next: as far as glibc goes by itself
        libc.mallopt(TRIM_THRESHOLD, 64 << 20)
        libc.malloc_trim(0)
