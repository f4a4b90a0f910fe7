"""What maximises reward and entropy: a policy, a temperature, and with twin critics all the nets of an algorithm."""

import copy
import math
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor, nn

from slm_lab.agent.net.actor_critic import ActorCritic
from slm_lab.agent.net.critics import Critics
from slm_lab.agent.net.distribution import gumbel_softmax, one_hot, squashed_sample
from slm_lab.agent.net.learner import ParameterGroup
from slm_lab.spec import AgentSpec, NetSpec, SpecError


class SoftPolicy(nn.Module):
    """A policy for the maximum-entropy algorithms, in three forms with one interface.

    For observations `[B, *obs]` it gives the actions that the critics are asked about, and for each of the K values
    that these answer with (`critics(obs, action)` is `[..., B, K]`) a probability and a log-probability, so that always

        E_a[Q(s, a) - alpha log pi(a|s)] = sum_K prob (q - alpha log_prob)

    - continuous actions in [-1, 1]: tanh of a Gaussian; one sample stands for the expectation, K = 1;
    - discrete actions: the expectation is exact, K is their number, and the critics take no action as an input;
    - discrete actions with `GumbelSoftmax`: one one-hot sample, an input of the critics, whose gradient is that of its
      relaxation, K = 1. Its log-probability is the exact mean, minus the entropy, which needs no sample.

    Attributes:
        action_width: numbers of an action that is an input of the critics; 0 where it is none.
        outputs: K.

    Raises:
        SpecError: the actions are neither discrete nor bounded, or `pdtype` does not suit them.
    """

    def __init__(
        self, spec: NetSpec, obs_space: spaces.Space, action_space: spaces.Space, pdtype: str = "default"
    ) -> None:
        super().__init__()
        self.relaxed = pdtype == "GumbelSoftmax"
        self.discrete = isinstance(action_space, spaces.Discrete)
        if self.relaxed and not self.discrete:
            raise SpecError(
                f"agent.algorithm.action_pdtype: GumbelSoftmax is for discrete actions, but these are {action_space}; "
                "use Normal"
            )
        self.net = ActorCritic(spec, obs_space, action_space, "Categorical" if self.relaxed else pdtype, critic=False)
        width = int(action_space.n) if isinstance(action_space, spaces.Discrete) else bounded_width(action_space)
        exact = self.discrete and not self.relaxed
        self.action_width, self.outputs = (0, width) if exact else (width, 1)
        self.width = width

    def noise(self, count: int, generator: torch.Generator) -> Tensor:
        """Return what the actions for `count` observations are made of, `[count, action_width]`."""
        noise = torch.empty(count, self.action_width, device=generator.device)
        if self.relaxed:
            return -noise.exponential_(generator=generator).log()
        return noise.normal_(generator=generator)

    def forward(self, obs: Tensor, noise: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return actions `[B, action_width]`, probabilities and log-probabilities `[B, K]`, all with gradient."""
        policy: Any = self.net.policy(obs)
        if not self.discrete:
            action, log_prob = squashed_sample(policy, noise)
            return action, torch.ones_like(log_prob).unsqueeze(-1), log_prob.unsqueeze(-1)
        if self.relaxed:
            log_prob = -policy.entropy().unsqueeze(-1)
            return gumbel_softmax(policy, noise), torch.ones_like(log_prob), log_prob
        return noise, policy.log_p.exp(), policy.log_p

    def taken(self, action: Tensor) -> tuple[Tensor, Tensor]:
        """Return actions `[B]` or `[B, k]` of the environment as the critics take them, and their share in K values."""
        if not self.discrete:
            return action, torch.ones_like(action[:, :1])
        hot = one_hot(action, self.width)
        return (hot, torch.ones_like(hot[:, :1])) if self.relaxed else (hot[:, :0], hot)

    def act(self, obs: np.ndarray, rng: np.random.Generator | None = None) -> np.ndarray:
        """Return actions for the environment: a sample, or the mode (of a Gaussian: its tanh) without `rng`."""
        policy = self.net.policy(obs)
        action = policy.mode() if rng is None else policy.sample(rng)
        return action if self.discrete else np.tanh(action)

    def target_entropy(self, ratio: float) -> float:
        """Return the entropy to hold, in nats: -k of k-dimensional actions, `ratio` log n of n discrete ones."""
        return ratio * math.log(self.width) if self.discrete else -float(self.width)


class Temperature(nn.Module):
    """alpha = exp(log_alpha), which begins at `alpha` and stays in [exp(low), exp(high)]."""

    def __init__(self, alpha: float, low: float, high: float) -> None:
        super().__init__()
        self.low, self.high = low, high
        self.log_alpha = nn.Parameter(torch.tensor(math.log(alpha)))

    def forward(self) -> Tensor:
        """Return alpha, without gradient."""
        return self.log_alpha.detach().exp()

    @torch.no_grad()
    def clamp(self) -> None:
        """Take log_alpha back to its bounds."""
        self.log_alpha.clamp_(self.low, self.high)


class SoftNets(nn.Module):
    """Policy, twin critics and temperature, and with `targets` target critics, which begin as the critics.

    Args:
        spec: the agent's; reads the algorithm's `action_pdtype`, `target_entropy`, `target_entropy_ratio`,
            `fixed_alpha`, `log_alpha_min` and `log_alpha_max`, and the policy's `net`.
        critic_spec: the critics' net spec.
        obs_space: of a single environment.
        action_space: of a single environment.
        targets: whether there are target critics.
    """

    def __init__(
        self,
        spec: AgentSpec,
        critic_spec: NetSpec,
        obs_space: spaces.Space,
        action_space: spaces.Space,
        targets: bool = False,
    ) -> None:
        super().__init__()
        algorithm = spec.algorithm
        self.policy = SoftPolicy(spec.net, obs_space, action_space, algorithm.action_pdtype)
        self.critics = Critics(critic_spec, obs_space.shape or (), self.policy.action_width, self.policy.outputs)
        bounds = algorithm.log_alpha_min, algorithm.log_alpha_max
        fixed = algorithm.fixed_alpha
        self.temperature = Temperature(1.0, *bounds) if fixed is None else Temperature(fixed, -math.inf, math.inf)
        if targets:
            self.target_critics = copy.deepcopy(self.critics).requires_grad_(False)
        if algorithm.changed(["target_entropy_ratio"]) and not self.policy.discrete:
            raise SpecError(
                "agent.algorithm.target_entropy_ratio: only for discrete actions, but these are "
                f"{action_space}; give target_entropy, or remove it"
            )
        target_entropy = algorithm.target_entropy
        if target_entropy == "auto":
            target_entropy = self.policy.target_entropy(algorithm.target_entropy_ratio)
        self.target_entropy = float(target_entropy)

    def policy_groups(self, spec: AgentSpec) -> list[ParameterGroup]:
        """Return the policy's parameters, trained as its net spec says; and the temperature, if it is learned."""
        actor = spec.net.for_role("actor")
        groups = [ParameterGroup(self.policy.parameters(), actor)]
        if spec.algorithm.fixed_alpha is None:
            lr = spec.algorithm.alpha_lr or actor.optim_spec.get("lr")
            optim_spec = {"name": "Adam"} | ({} if lr is None else {"lr": lr})
            changes = {"optim_spec": optim_spec, "clip_grad_val": None, "lr_scheduler_spec": None}
            groups.append(ParameterGroup(self.temperature.parameters(), actor.model_copy(update=changes)))
        return groups


def bounded_width(space: spaces.Space) -> int:
    """Return the numbers of a continuous action in [-1, 1]; an error where it is another."""
    if not (isinstance(space, spaces.Box) and len(space.shape) == 1 and space.is_bounded("both")):
        raise SpecError(
            f"env.name: {space} are no bounded continuous actions, which this algorithm needs; use "
            "another algorithm, e.g. PPO, or another environment"
        )
    return space.shape[0]
