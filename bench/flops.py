"""How much arithmetic the works are, and how much the machine could do."""

import json
import subprocess
import sys
from itertools import pairwise

from bench.works import Work

SHAPES = {"CartPole-v1": (4, 2), "HalfCheetah-v5": (17, 6), "ALE/Pong-v5": (4 * 84 * 84, 6)}
"""Numbers of an observation, and of an action or of actions."""
NATURE = (20 * 20 * 32 * 4 * 8 * 8, 9 * 9 * 64 * 32 * 4 * 4, 7 * 7 * 64 * 64 * 3 * 3)
"""Multiplications of the convolutions of Mnih et al. 2015, for one image."""
NATURE_OUT = 7 * 7 * 64

_MATRIX = """
import json, time, torch
def rate(dtype, precision):
    torch.set_float32_matmul_precision(precision)
    a = torch.randn(1024, 1024).to(dtype)
    (a @ a), (a @ a)
    count, begun = 0, time.perf_counter()
    while time.perf_counter() - begun < 1.0:
        a @ a
        count += 1
    return count * 2 * 1024**3 / (time.perf_counter() - begun)
float32 = max(rate(torch.float32, precision) for precision in ("highest", "medium"))
print(json.dumps({"float32": float32, "bfloat16": rate(torch.bfloat16, "highest")}))
"""


def matrix_rates() -> dict[str, float] | None:
    """Return the floating-point operations per second of large matrix products on all cores; None without torch."""
    done = subprocess.run([sys.executable, "-c", _MATRIX], capture_output=True, text=True, check=False)  # noqa: S603
    return json.loads(done.stdout) if done.returncode == 0 else None


def layers(*sizes: int) -> list[int]:
    """Return the multiplications of each layer, for one row."""
    return [inputs * outputs for inputs, outputs in pairwise(sizes)]


def trained(net: list[int]) -> int:
    """Return the multiplications of forward and backward; the first layer needs no gradient of its input."""
    return 3 * sum(net) - net[0]


def flops_per_step(work: Work) -> int:
    """Return the floating-point operations of the matrix products of one gradient step."""
    obs, actions = SHAPES[work.env]
    if work.algorithm == "dqn":
        net = layers(obs, *work.hidden, actions)
        row = trained(net) + sum(net)
    elif work.algorithm == "sac":
        policy, critic = layers(obs, *work.hidden, 2 * actions), layers(obs + actions, *work.hidden, 1)
        of_critics = sum(policy) + 2 * sum(critic) + 2 * trained(critic)
        row = of_critics + trained(policy) + 2 * 2 * sum(critic)
    elif work.images:
        row = trained([*NATURE, *layers(NATURE_OUT, *work.hidden, actions + 1)])
    else:
        row = trained(layers(obs, *work.hidden, actions)) + trained(layers(obs, *work.hidden, 1))
    return 2 * row * work.batch_size
