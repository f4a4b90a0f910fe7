"""How this process gets its memory."""

import ctypes
import os

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
LARGE = 2**28


def keep_freed_memory() -> None:
    """Keep memory that was freed for what is allocated next, in place of giving it back to the system.

    glibc gives back arrays of 32 MiB and more at once, and the next one is made of pages that the system fills with
    zeros, 4 KiB at a time: that takes ten times as long as to compute what is written into them. From now on, this
    process keeps arrays of up to 256 MiB, and may hold more memory in all, as an array must find a hole of its size.
    Where the C library is another one, or an older glibc, nothing happens.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if os.name == "posix" else None
    if mallopt is not None and mallopt(M_MMAP_THRESHOLD, LARGE):  # an older one refuses
        mallopt(M_TRIM_THRESHOLD, 2**31 - 1)
