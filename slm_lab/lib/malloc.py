"""How this process gets its memory."""

import ctypes
import os

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
LARGE = 2**30


def keep_freed_memory() -> None:
    """Keep memory that was freed for what is allocated next, in place of giving it back to the system.

    glibc gives back large arrays at once, and the next one is made of pages that the system fills with zeros, 4 KiB at
    a time: that takes ten times as long as to compute what is written into them. How much memory a process has at its
    highest does not change. With other C libraries nothing happens.
    """
    if os.name == "posix" and (mallopt := getattr(ctypes.CDLL(None), "mallopt", None)):
        mallopt(M_MMAP_THRESHOLD, LARGE)
        mallopt(M_TRIM_THRESHOLD, 2**31 - 1)
