"""A gradient step as a library that another process compiles: torch's compiler takes seconds to import, and 200 MB."""

import getpass
import hashlib
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
from torch.nn.utils import stateless
from torch.utils._pytree import tree_leaves, tree_map_only

from slm_lab.agent.net.adam import AdamInGraph
from slm_lab.agent.net.learner import Loss, ParameterGroup
from slm_lab.agent.net.recorder import record
from slm_lab.agent.net.whole_step import step_others, whole_step

Program = Callable[[list[Tensor]], Sequence[Tensor]]
"""What a graph comes to: of tensors, some of which it changes in place, to others."""
Build = Callable[[fx.GraphModule, Sequence[Tensor]], Program]
"""Makes a program of a graph and examples of its inputs."""
COMPILER = "slm_lab.agent.net.ahead_compiler"
"""What the other process runs."""
_SOURCES = [Path(__file__).with_name(name) for name in ("ahead_compiler.py", "simpler_products.py")]


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
        build: `library_of`, by default.
    """

    def __init__(self, loss: Loss, nets: nn.Module, groups: list[ParameterGroup], build: Build | None = None) -> None:
        self.loss, self.nets, self.groups, self._build = loss, nets, groups, build or library_of
        trained = [parameter for group in groups for parameter in group.parameters]
        self._tensors: list[Tensor] = list(dict.fromkeys([*trained, *nets.parameters(), *nets.buffers()]))
        self._trained = len(trained)
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
            self._states, self._fixed = states, [x for x in tree_leaves([self._tensors, states]) if x is not None]
            self._graphs.clear()
        layout = tuple([_layout(x) for x in batch])
        if layout not in self._graphs:
            self._graphs[layout] = self._write(batch)
        graph = self._graphs[layout]
        with torch.no_grad():
            rest = iter(graph.run([*self._fixed, *batch]))
        metrics = {name: next(rest) for name in graph.metrics}
        left = [[next(rest) if reached else None for reached in own] for own in graph.left]
        return step_others(self.groups, metrics, left)

    def _write(self, batch: Sequence[Tensor]) -> _Graph:
        index = {id(tensor): position for position, tensor in enumerate(self._tensors)}
        named = [*self.nets.named_parameters(), *self.nets.named_buffers()]
        places = {name: index[id(tensor)] for name, tensor in named}
        metrics, left = list[str](), list[list[bool]]()

        def step(*inputs: Tensor) -> list[Tensor]:
            rest = iter(inputs)
            tensors, states = tree_map_only(Tensor, lambda _: next(rest), [self._tensors, self._states])
            with stateless._reparametrize_module(self.nets, {name: tensors[at] for name, at in places.items()}):
                trained = tensors[: self._trained]
                known, others = whole_step(self.loss, self.nets, self.groups, trained, states, list(rest))
            metrics[:], left[:] = known, [[gradient is not None for gradient in own] for own in others]
            return [*known.values(), *(gradient for own in others for gradient in own if gradient is not None)]

        inputs = [*self._fixed, *batch]
        with _compiling():
            graph = record(step, inputs, self._trained)
        return _Graph(self._build(graph, inputs), metrics, left)


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
    """Return what `graph` does, as a library, which is kept beside what torch keeps of compiled graphs.

    Args:
        graph: of torch's operations.
        inputs: examples; the library takes none that lie in memory in another way.

    Raises:
        RuntimeError: it cannot be compiled.
        OSError: it cannot be kept.
    """
    folder = _folder()
    library = folder / f"{_name(graph, inputs)}.so"
    with FileLock(library.with_suffix(".lock")):  # sessions that begin together compile the same
        if not library.exists():
            _compile(graph, inputs, library)
    runners: Any = torch._C._aoti
    return runners.AOTIModelContainerRunnerCpu(str(library), 1).run


def _folder() -> Path:
    default = Path(tempfile.gettempdir()) / f"torchinductor_{getpass.getuser()}"
    folder = Path(os.environ.get("TORCHINDUCTOR_CACHE_DIR", default)) / "slm_lab"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if os.name != "nt" and folder.stat().st_uid != os.getuid():  # what lies there is run
        raise PermissionError(f"{folder} is another user's; set TORCHINDUCTOR_CACHE_DIR to a folder of your own")
    return folder


def _name(graph: fx.GraphModule, inputs: Sequence[Tensor]) -> str:
    """Return a name that differs wherever the library would."""
    constants = {name: tensor.tolist() for name, tensor in graph.named_buffers()}
    machine = torch.__version__, torch.backends.cpu.get_cpu_capability(), torch.get_num_threads()
    parts = graph.code, constants, [_layout(x) for x in inputs], machine, [path.read_text() for path in _SOURCES]
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:32]


def _layout(x: Tensor) -> tuple[Any, ...]:
    return x.shape, x.stride(), x.dtype


def _compile(graph: fx.GraphModule, inputs: Sequence[Tensor], library: Path) -> None:
    with tempfile.TemporaryDirectory(dir=library.parent) as aside:
        source, made = Path(aside) / "graph.pt", Path(aside) / library.name
        torch.save((graph, [_layout(x) for x in inputs], torch.get_num_threads()), source)
        # of its own session, or Ctrl-C would end it, and the run would go on without
        ran = subprocess.run(  # noqa: S603 - no shell is asked
            [sys.executable, "-m", COMPILER, str(source), str(made)],
            capture_output=True,
            text=True,
            check=False,
            start_new_session=True,
        )
        if ran.returncode:
            raise RuntimeError((ran.stderr.strip() or f"the compiler ended with {ran.returncode}").splitlines()[-1])
        made.replace(library)
