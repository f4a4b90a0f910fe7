"""Named random streams: one seed, and an independent stream for every role that draws from it."""

import zlib

import numpy as np


def derive_seed(seed: int, *path: str | int) -> int:
    """Return a 63-bit seed for the stream that `path` names, e.g. `derive_seed(7, "session", 0, "env")`.

    Streams of different paths are independent (numpy's SeedSequence), and do not change when another one is added.
    """
    words = [zlib.crc32(part.encode()) if isinstance(part, str) else part for part in path]
    return int(np.random.SeedSequence([seed, *words]).generate_state(1, np.uint64)[0] >> 1)
