"""The agent: an algorithm between an environment that speaks numpy and nets that speak torch."""

import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import nn

from slm_lab.agent.algorithm import Setting, make_algorithm
from slm_lab.agent.algorithm.base import OF_EPISODES
from slm_lab.agent.algorithm.recurrence import HiddenState
from slm_lab.agent.net import BODIES, Net
from slm_lab.agent.net.numpy_net import LARGEST_LAYER
from slm_lab.env import Step, VecEnv
from slm_lab.lib.rng import derive_seed, set_stream_state, stream_state
from slm_lab.spec import Spec


class DivergenceError(RuntimeError):
    """Training went to infinity or to no number: the run has failed, and its last score is not a score."""


class Agent:
    """Acts, remembers and learns, for `num_envs` environments at once.

    Args:
        spec: the spec.
        env: the environment; its spaces, number and frame stack are read.
        seed: seed of everything random in the agent.
        device: where the nets live.
    """

    def __init__(self, spec: Spec, env: VecEnv, seed: int, device: torch.device | None = None) -> None:
        self.device = device or torch.device("cpu")
        setting = Setting(
            obs_space=env.obs_space,
            action_space=env.action_space,
            num_envs=env.num_envs,
            frame_stack=env.frame_stack,
            seed=seed,
            device=self.device,
        )
        with torch.random.fork_rng(devices=[]):  # the nets draw their first weights from torch's global stream
            torch.manual_seed(derive_seed(seed, "net"))
            self.algorithm = make_algorithm(spec.agent, setting)
        for net in self._nets():
            net.precision = getattr(torch, spec.meta.precision)
        hidden: HiddenState | None = getattr(self.algorithm, "hidden", None)
        self._hidden = hidden if hidden is not None and hidden.size else None
        small = 0 < self._largest_layer <= LARGEST_LAYER and spec.meta.precision == "float32"
        # batches of any length would need a graph each, and what a net from outside looks at is not known
        known = {net.type for net in (spec.agent.net, spec.agent.critic_net) if net is not None} <= BODIES.keys()
        of_steps = spec.agent.memory is not None and spec.agent.memory.name not in OF_EPISODES
        self._suits_graph = known and of_steps and not self.recurrent
        self._suits_numpy = small and self._suits_graph
        self._rows = getattr(spec.agent.algorithm, "minibatch_size", getattr(self.algorithm.memory, "batch_size", 1))

    def _nets(self) -> list[Net]:
        modules = self.algorithm.modules.values()
        return [net for module in modules for net in module.modules() if isinstance(net, Net)]

    def act(self, obs: np.ndarray, frame: int = 0, explore: bool = True) -> np.ndarray:
        """Choose actions in the environments that are learned from.

        Args:
            obs: observations [N, ...].
            frame: frames so far; schedules of the exploration read it.
            explore: False for the best known action.

        Returns:
            actions [N, ...].
        """
        return self._act(obs, frame, explore, self._hidden)

    def _act(self, obs: np.ndarray, frame: int, explore: bool, hidden: HiddenState | None) -> np.ndarray:
        if hidden is None:
            return self.algorithm.act(obs, frame, explore)
        with torch.inference_mode():
            return self.algorithm.act(hidden.see(torch.from_numpy(obs).to(self.device)), frame, explore)

    def play(self, env: VecEnv) -> Iterator[None]:
        """Play by the best known actions where nothing is learned; stops after the reset and after every step."""
        hidden = None
        if self._hidden is not None:
            hidden = HiddenState(self._hidden.size, env.num_envs, None, self.device)
        obs = env.reset()
        while True:
            yield
            step = env.step(self._act(obs, 0, explore=False, hidden=hidden))
            obs = step.obs
            if hidden is not None:
                hidden.follow(step)

    def observe(self, obs: np.ndarray, action: np.ndarray, step: Step) -> None:
        """Remember what `action` led to."""
        if self.algorithm.memory is not None:
            self.algorithm.memory.add(obs, action, step)
        if self._hidden is not None:
            self._hidden.follow(step)

    def interrupt(self) -> None:
        """Forget that the last step was to be followed by another: what comes next belongs to new episodes."""
        if self.algorithm.memory is not None:
            self.algorithm.memory.interrupt()
        if self._hidden is not None:
            self._hidden.reset()

    def ready(self, frame: int) -> bool:
        """Tell whether it is time to learn."""
        return self.algorithm.ready(frame)

    def update(self, frame: int) -> dict[str, float]:
        """Learn from memory.

        Returns:
            means of loss and other metrics over the gradient steps taken.

        Raises:
            DivergenceError: one of them is not finite.
        """
        metrics = self.algorithm.update(frame)
        if bad := {name: value for name, value in metrics.items() if not math.isfinite(value)}:
            raise DivergenceError(
                f"training diverged at frame {frame}: "
                + ", ".join(f"{name} = {value}" for name, value in bad.items())
                + "; try a lower learning rate, clip_grad_val, or normalised observations and rewards"
            )
        return metrics

    def use_numpy(self) -> None:
        """Hand the gradient steps to numpy, if they are of small nets on a CPU."""
        if self._suits_numpy and self.device.type == "cpu":
            for learner in self.algorithm.learners.values():
                learner.use_numpy()

    @property
    def in_numpy(self) -> bool:
        """Whether numpy does the gradient steps of every learner, so far as it has tried."""
        return all(learner.in_numpy for learner in self.algorithm.learners.values())

    def compile(self) -> None:
        """Hand the gradient steps to torch's compiler, and on a GPU the nets' part in acting."""
        for learner in self.algorithm.learners.values():
            if self._suits_graph and self.device.type == "cpu":
                learner.compile_ahead()
            else:
                learner.compile()
        if self.device.type == "cuda":
            for net in self._nets():
                net.capture()

    @property
    def recurrent(self) -> bool:
        """Whether it carries a hidden state."""
        return self._hidden is not None

    @property
    def convolves(self) -> bool:
        """Whether there are convolutions in its nets."""
        return any(isinstance(layer, nn.Conv2d) for net in self._nets() for layer in net.modules())

    @property
    def largest_product(self) -> int:
        """Rows of a batch times weights of the largest layer; as of one row where batches are of any size."""
        return self._rows * self._largest_layer

    @property
    def _largest_layer(self) -> int:
        weights = (p.numel() for module in self.algorithm.modules.values() for p in module.parameters() if p.dim() == 2)
        return max(weights, default=0)

    @property
    def opt_steps(self) -> int:
        """Optimiser steps taken."""
        return sum(learner.opt_steps for learner in self.algorithm.learners.values())

    @property
    def gradient_steps(self) -> int:
        """Gradient steps of the learner that has taken most; each steps one optimiser or several."""
        return max(
            (learner.opt_steps // len(learner.groups) for learner in self.algorithm.learners.values()), default=0
        )

    @property
    def lr(self) -> float:
        """Learning rate of the first optimiser; nan without one."""
        return next((learner.lr for learner in self.algorithm.learners.values()), math.nan)

    def nets_state(self) -> dict[str, Any]:
        """Return the weights of every net, by net."""
        return {name: module.state_dict() for name, module in self.algorithm.modules.items()}

    def load_nets(self, state: Mapping[str, Any]) -> None:
        """Take over weights."""
        for name, module in self.algorithm.modules.items():
            module.load_state_dict(state[name])

    def state_dict(self) -> dict[str, Any]:
        """Return everything that changes besides the weights: optimisers, memory, hidden state, random streams."""
        algorithm = self.algorithm
        return {
            "optim": {name: learner.state_dict() for name, learner in algorithm.learners.items()},
            "memory": algorithm.memory.state_dict() if algorithm.memory is not None else {},
            "hidden": self._hidden.state_dict() if self._hidden is not None else {},
            "streams": {name: stream_state(generator) for name, generator in algorithm.generators.items()},
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from `state`."""
        algorithm = self.algorithm
        for name, learner in algorithm.learners.items():
            learner.load_state_dict(state["optim"][name])
        if algorithm.memory is not None:
            algorithm.memory.load_state_dict(state["memory"])
        if self._hidden is not None:
            self._hidden.load_state_dict(state["hidden"])
        for name, generator in algorithm.generators.items():
            set_stream_state(generator, state["streams"][name])


__all__ = ["Agent", "DivergenceError"]
