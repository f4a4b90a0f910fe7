"""Where the time of a session goes: a trace of its first updates, and its bottleneck in words."""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from functools import wraps
from pathlib import Path
from typing import Any

from slm_lab.experiment.paths import RunPaths

PHASES = {
    "act": "more environments at once (env.num_envs), or a smaller net for the policy",
    "env": "more environments at once (env.num_envs), or a backend with threads (env.backend)",
    "memory": "smaller observations (env.image_downsize), or more environments at once (env.num_envs)",
    "learn": "larger batches, fewer gradient steps per frame, --torch-compile true for wide linear layers, or a GPU "
    "(agent.net.gpu)",
}
"""What a vector step is made of, and what makes each part cheaper."""
FIRST_UPDATES = 4
"""Training events that are not in the trace: nothing is warm then, and something may be compiled."""


def profiler(what: str, paths: RunPaths, env: Any, agent: Any) -> AbstractContextManager[Any]:
    """Return a profiler that is to be told of every update, and writes a trace after some; of "false", nothing.

    Args:
        what: "cpu", "gpu", "true" for what there is of both, "false" for none.
        paths: where the trace goes.
        env: its steps are marked in the trace.
        agent: what it does is marked in the trace.
    """
    if what == "false":
        return nullcontext()
    import torch
    from torch.profiler import ProfilerActivity, profile, schedule

    for owner, method in ((agent, "act"), (env, "step"), (agent, "observe"), (agent, "update")):
        setattr(owner, method, _marked(getattr(owner, method), f"{type(owner).__name__}.{method}"))
    cpu, gpu = [ProfilerActivity.CPU], [ProfilerActivity.CUDA]
    wanted = {"cpu": cpu, "gpu": gpu, "true": cpu + gpu if torch.cuda.is_available() else cpu}
    trace = trace_of(paths)
    trace.parent.mkdir(exist_ok=True)
    return profile(
        activities=wanted[what],
        schedule=schedule(wait=FIRST_UPDATES - 1, warmup=1, active=20, repeat=1),
        on_trace_ready=lambda profiler: profiler.export_chrome_trace(str(trace)),
    )


def trace_of(paths: RunPaths) -> Path:
    """Return where the trace of a session is written."""
    return paths.log_dir / "profiler" / f"{paths.session_prefix}_trace.json"


def summary(spent: Mapping[str, float], paths: RunPaths) -> str:
    """Return in words what took most of the time, and where the trace is."""
    trace = trace_of(paths)
    where = trace if trace.exists() else f"none, as it begins after {FIRST_UPDATES} training events"
    return f"{bottleneck(spent)}; trace: {where}"


def bottleneck(spent: Mapping[str, float]) -> str:
    """Return in words what took most of the `spent` seconds, by the names of `PHASES`, and what makes it cheaper."""
    most = max(spent, key=lambda phase: spent[phase])
    return f"{100 * spent[most] / sum(spent.values()):.0f} % {most}: {PHASES[most]}"


def _marked(method: Callable[..., Any], name: str) -> Callable[..., Any]:
    from torch.profiler import record_function

    @wraps(method)
    def marked(*args: Any, **kwargs: Any) -> Any:
        with record_function(name):
            return method(*args, **kwargs)

    return marked
