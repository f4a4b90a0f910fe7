"""The process that compiles a gradient step: `python -m slm_lab.agent.net.ahead_compiler GRAPH LIBRARY`."""

import sys
from typing import Any

import torch
import torch._inductor

from slm_lab.agent.net.simpler_products import SimplerProducts


def main(source: str, library: str) -> None:
    """Make a library of the graph that `ahead` has saved."""
    graph, layouts, threads = torch.load(source, weights_only=False)
    torch.set_num_threads(threads)
    options: dict[str, Any] = {
        "aot_inductor.output_path": library,
        "post_grad_custom_post_pass": SimplerProducts(),
        "cpp.use_decompose_tanh": True,  # by exp, to 2e-7, in a fourth of the time
        "unroll_reductions_threshold": 3,  # a sum over more is not vectorised where it is written out
    }
    inputs = tuple(torch.empty_strided(shape, stride, dtype=dtype).zero_() for shape, stride, dtype in layouts)
    torch._inductor.aot_compile(graph, inputs, options=options)


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except Exception as error:  # of a compiler everything may come
        cause = getattr(error, "inner_exception", error)
        sys.exit(f"{type(cause).__name__}: {' '.join(str(cause).split())}")
