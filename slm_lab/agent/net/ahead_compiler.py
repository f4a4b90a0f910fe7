"""The process that compiles a gradient step: `python -m slm_lab.agent.net.ahead_compiler GRAPH LIBRARY`."""

import json
import sys
from pathlib import Path
from typing import Any

import torch
import torch._inductor

from slm_lab.agent.net.graph_text import from_plain
from slm_lab.agent.net.simpler_products import SimplerProducts


def main(source: str, library: str) -> None:
    """Make a library of what `ahead` has written."""
    told = json.loads(Path(source).read_text())
    torch.set_num_threads(told["threads"])
    options: dict[str, Any] = {
        "aot_inductor.output_path": library,
        "post_grad_custom_post_pass": SimplerProducts(),
        "cpp.use_decompose_tanh": True,  # by exp, to 2e-7, in a fourth of the time
        "unroll_reductions_threshold": 3,  # a sum over more is not vectorised where it is written out
    }
    examples = [
        torch.empty_strided(shape, stride, dtype=getattr(torch, dtype)) for shape, stride, dtype in told["inputs"]
    ]
    torch._inductor.aot_compile(from_plain(told["graph"]), tuple(x.zero_() for x in examples), options=options)


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except Exception as error:  # of a compiler everything may come
        cause = getattr(error, "inner_exception", error)
        sys.exit(f"{type(cause).__name__}: {' '.join(str(cause).split())}")
