"""A gradient step as a library that another process compiles: torch's compiler takes seconds to import, and 200 MB."""

import hashlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch
from filelock import FileLock
from torch import Tensor, fx, nn
from torch.utils._pytree import tree_leaves, tree_map_only

from slm_lab.agent.net.adam import AdamInGraph
from slm_lab.agent.net.fallback import NotRecorded
from slm_lab.agent.net.graph_text import as_plain
from slm_lab.agent.net.learner import Loss, ParameterGroup
from slm_lab.agent.net.recorder import NetTensors, record
from slm_lab.agent.net.whole_step import step_others, whole_step
from slm_lab.lib.files import atomic_write

Program = Callable[[list[Tensor]], Sequence[Tensor]]
"""What a graph comes to: of tensors, some of which it changes in place, to others."""
COMPILER = "slm_lab.agent.net.ahead_compiler"
"""What the other process runs."""
_SOURCES = [Path(__file__).with_name(name) for name in ("ahead_compiler.py", "simpler_products.py")]
MAX_SHAPES = 4
"""Of a batch; one takes ten seconds to compile for."""


class _Graph(NamedTuple):
    run: Program
    metrics: list[str]
    """Names of the first results."""
    left: list[list[bool]]
    """Of each group that is stepped after the graph, which of its gradients are among the other results."""


class AheadStep:
    """Loss, gradient, clipping and Adam as one graph for every shape of a batch; another optimiser steps after it.

    The first step of all must be a plain one: in it, optimisers make their state.

    Plain numbers that the loss reads besides the batch are taken as they are at the first step of a shape.

    Args:
        loss: the loss function.
        nets: what it is a function of, besides the batch; in the memory of the CPU.
        groups: the parameters to train.
    """

    def __init__(self, loss: Loss, nets: nn.Module, groups: list[ParameterGroup]) -> None:
        self.loss, self.nets, self.groups = loss, nets, groups
        self._tensors = NetTensors(nets, groups)
        self._adams = [AdamInGraph(group) for group in groups]
        self._states: list[Any] = []
        self._fixed: list[Tensor] = []
        self._graphs: dict[Any, _Graph] = {}

    def __call__(self, *batch: Tensor) -> dict[str, Tensor]:
        """Take one step on `batch`; return the loss, its metrics, and the largest norm of the clipped gradients.

        Raises:
            NotRecorded: it cannot be a graph; nothing has been changed.
            Exception: of any kind, where it cannot be compiled; nothing has been changed.
        """
        states = [adam.now() for adam in self._adams]
        if [*map(id, states)] != [*map(id, self._states)]:  # a loaded one may be laid out in another way
            self._states, self._fixed = states, _leaves([self._tensors.all, states])
            self._graphs.clear()
        layout = tuple([(x.shape, x.stride(), x.dtype) for x in batch])
        if layout not in self._graphs:
            self._graphs[layout] = self._write(batch)
        graph = self._graphs[layout]
        with torch.no_grad():
            rest = iter(graph.run([*self._fixed, *batch]))
        metrics = {name: next(rest) for name in graph.metrics}
        left = [[next(rest) if reached else None for reached in own] for own in graph.left]
        return step_others(self.groups, metrics, left)

    def _write(self, batch: Sequence[Tensor]) -> _Graph:
        inputs = [*self._fixed, *batch]
        if len(self._graphs) == MAX_SHAPES:
            raise NotRecorded("batches of many shapes")
        if any(torch.empty_like(x).stride() != x.stride() for x in inputs):
            raise NotRecorded("a part of a tensor, of which a copy would lie in another way")
        metrics, left = list[str](), list[list[bool]]()

        def step(*inputs: Tensor) -> list[Tensor]:
            rest = iter(inputs)
            # as `_leaves` has them
            tensors, states = tree_map_only(Tensor, lambda _: next(rest), [self._tensors.all, self._states])
            with self._tensors.replaced_by(tensors):
                trained = tensors[: len(self._tensors.trained)]
                known, others = whole_step(self.loss, self.nets, self.groups, trained, states, list(rest))
            metrics[:], left[:] = known, [[gradient is not None for gradient in own] for own in others]
            return [*known.values(), *(gradient for own in others for gradient in own if gradient is not None)]

        with _compiling():
            graph = record(step, inputs, len(self._tensors.trained))
        return _Graph(library_of(graph, inputs), metrics, left)


def _leaves(tree: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(tree) if leaf is not None]


@contextmanager
def _compiling() -> Generator[None]:
    """Have everything done as for a compiler: Adam takes tensors for its numbers, and nets join their products."""
    module: Any = torch.compiler
    module._is_compiling_flag = True
    try:
        yield
    finally:
        module._is_compiling_flag = False


def library_of(graph: fx.GraphModule, inputs: Sequence[Tensor]) -> Program:
    """Return what `graph` does, as a library; another process compiles it, if none has before.

    Args:
        graph: of torch's operations.
        inputs: examples. The library is for tensors that lie in memory as these do, and does not look whether they do.

    Raises:
        RuntimeError: it cannot be compiled.
        OSError: it cannot be kept.
    """
    folder = _folder()
    told = json.dumps(
        {
            "graph": as_plain(graph),
            "inputs": [[list(x.shape), x.stride(), str(x.dtype).removeprefix("torch.")] for x in inputs],
            "threads": torch.get_num_threads(),
        }
    )
    name = _name(told)
    with FileLock(folder / f"{name}.lock"):  # sessions that begin together compile the same
        library = _whole(folder, name)
        if library is None:
            made = _compile(told)
            library = folder / f"{name}-{_digest(made)}.so"
            atomic_write(library, made)
    runners: Any = torch._C._aoti
    return runners.AOTIModelContainerRunnerCpu(str(library), 1).run


def _whole(folder: Path, name: str) -> Path | None:
    """Return a library that is there: its name tells what is in it, as a damaged one would end the process."""
    for library in folder.glob(f"{name}-*.so"):
        if library.stem == f"{name}-{_digest(library.read_bytes())}":
            return library
        library.unlink()
    return None


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:32]


def _folder() -> Path:
    """Return where libraries are kept: in no folder that others share, as whoever can write there has them run."""
    told = os.environ.get("TORCHINDUCTOR_CACHE_DIR")
    folder = Path(told) / "slm_lab" if told else Path.home() / ".cache" / "slm_lab"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    return folder


def _name(told: str) -> str:
    """Return a name that differs wherever the library would."""
    cpu = getattr(torch.cpu, "get_capabilities", torch.backends.cpu.get_cpu_capability)()
    sources = [path.read_text(encoding="utf-8") for path in _SOURCES]
    return _digest(repr((told, torch.__version__, cpu, sources)).encode())


def _compile(told: str) -> bytes:
    with tempfile.TemporaryDirectory() as aside:  # torch's compiler minds spaces, which other folders may have
        source, made = Path(aside) / "graph.json", Path(aside) / "step.so"
        source.write_text(told, encoding="utf-8")
        # what this process found, beside a script or from a notebook, the other is to find too
        path = os.pathsep.join(entry or "." for entry in sys.path)
        ran = subprocess.run(  # noqa: S603 - no shell is asked
            [sys.executable, "-P", "-m", COMPILER, str(source), str(made)],
            capture_output=True,
            text=True,
            check=False,
            env={**os.environ, "PYTHONPATH": path},
            start_new_session=True,  # or Ctrl-C would end it, and the run would go on without
        )
        if ran.returncode:
            (*_, said) = ["nothing", *ran.stderr.strip().splitlines()]
            raise RuntimeError(f"{said} (exit code {ran.returncode})")
        return made.read_bytes()
