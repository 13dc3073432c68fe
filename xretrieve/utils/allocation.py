"""How a process that encodes or trains on a CPU handles memory that it frees."""

from __future__ import annotations

import ctypes
import os
import platform

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # of glibc's malloc.h
MOST = 2**31 - 1  # mallopt takes an int


def keep_freed_memory() -> bool:
    """Let this process use freed memory again, where glibc would give each large block back to the system at once.

    Every step of a model asks for blocks of many MB and frees them; mapped anew each time, all their pages are
    cleared by the kernel again. MobileNetV2 in batches of 64 encoded 28 pictures per CPU second by default and 68 so
    (a virtual machine, where pages cost most). What was needed at once is then held until the process ends, so this
    is for commands and not for importing a library.

    Returns:
        Whether it was done: not without glibc, nor where ``MALLOC_`` variables already say how memory is to be handled.
    """
    if platform.libc_ver()[0] != "glibc" or any(name.startswith("MALLOC_") for name in os.environ):
        return False
    mallopt = ctypes.CDLL(None).mallopt
    return bool(mallopt(M_MMAP_MAX, 0)) and bool(mallopt(M_TRIM_THRESHOLD, MOST))


def give_back_memory() -> bool:
    """Give what this process has freed back to the system, where that is glibc's to do; whether it was done."""
    if platform.libc_ver()[0] != "glibc":
        return False
    return bool(ctypes.CDLL(None).malloc_trim(0))
