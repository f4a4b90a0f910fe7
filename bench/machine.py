"""What it was measured on."""

import os
import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from bench.flops import matrix_rates

PACKAGES = ("slm-lab", "torch", "numpy", "gymnasium", "ale-py", "mujoco")
PEERS = ("stable-baselines3", "tianshou", "torchrl", "tensordict")


def describe() -> dict[str, Any]:
    """Return machine, cores, memory, versions and git commit."""
    return {
        "load": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
        "system": platform.platform(),
        "processor": processor(),
        "cores": os.cpu_count(),
        "memory": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") if hasattr(os, "sysconf") else None,
        "python": platform.python_version(),
        "versions": {name: found for name in (*PACKAGES, *PEERS) if (found := installed_version(name))},
        "git_commit": git_commit(),
        "matrix": matrix_rates(),
    }


def installed_version(package: str) -> str | None:
    """Return the version of an installed package; None where it is not installed."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def processor() -> str:
    """Return the name of the processor."""
    cpuinfo = Path("/proc/cpuinfo")
    names = [line for line in cpuinfo.read_text().splitlines() if "model name" in line] if cpuinfo.exists() else []
    return names[0].partition(":")[2].strip() if names else platform.processor() or platform.machine()


def git_commit() -> str | None:
    """Return the commit of this checkout, with "+" if tracked files have changes; None outside of one."""
    here = Path(__file__).parent
    commands = (["git", "rev-parse", "HEAD"], ["git", "status", "--porcelain", "--untracked-files=no"])
    try:
        done = [subprocess.run(command, cwd=here, capture_output=True, text=True, timeout=10) for command in commands]  # noqa: S603
    except (OSError, subprocess.TimeoutExpired):
        return None
    commit, status = (result.stdout.strip() for result in done)
    return commit + ("+" if status else "") if done[0].returncode == 0 else None
