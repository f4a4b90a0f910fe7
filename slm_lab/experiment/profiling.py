"""Where the time of a session goes: a trace of its first updates, and its bottleneck in words."""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from functools import wraps
from typing import Any

from slm_lab.experiment.paths import RunPaths

PHASES = {
    "act": "more environments at once (env.num_envs), or a smaller net for the policy",
    "env": "more environments at once (env.num_envs), or a backend with threads (env.backend)",
    "memory": "smaller observations (env.image_downsize), or more environments at once (env.num_envs)",
    "learn": "larger batches, fewer gradient steps per frame, --torch-compile true for wide layers, or a GPU "
    "(agent.net.gpu)",
}
"""What a vector step is made of, and what makes each part cheaper."""


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
    folder = paths.log_dir / "profiler"
    folder.mkdir(exist_ok=True)

    def write(profiler: Any) -> None:
        profiler.export_chrome_trace(str(folder / f"{paths.session_prefix}_trace.json"))

    return profile(
        activities=wanted[what],
        schedule=schedule(wait=5, warmup=2, active=20, repeat=1),
        on_trace_ready=write,
    )


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
