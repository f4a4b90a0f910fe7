"""Named random streams: one seed, and an independent stream for every role that draws from it."""

import zlib
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:  # it takes a second to import
    import torch

    Stream = torch.Generator | np.random.Generator


def derive_seed(seed: int, *path: str | int) -> int:
    """Return a 63-bit seed for the stream that `path` names, e.g. `derive_seed(7, "session", 0, "env")`.

    Streams of different paths are independent (numpy's SeedSequence), and do not change when another one is added.
    """
    words = [zlib.crc32(part.encode()) if isinstance(part, str) else part for part in path]
    return int(np.random.SeedSequence([seed, *words]).generate_state(1, np.uint64)[0] >> 1)


def stream_state(stream: "Stream") -> Any:
    """Return where a stream is."""
    return stream.bit_generator.state if isinstance(stream, np.random.Generator) else stream.get_state()


def set_stream_state(stream: "Stream", state: Any) -> None:
    """Put a stream back where it was."""
    if isinstance(stream, np.random.Generator):
        stream.bit_generator.state = state
    else:
        stream.set_state(state)
