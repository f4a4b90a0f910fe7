"""Policy and value function on one net, or on two."""

from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor, nn

from slm_lab.agent.net import make_net
from slm_lab.agent.net.build import ALL
from slm_lab.agent.net.distribution import Distribution, Normal, policy_heads, to_numpy
from slm_lab.agent.net.history import History
from slm_lab.spec import NetSpec, SpecError


class ActorCritic(nn.Module):
    """A policy, and with it a value function.

    Recurrent nets take a `History` in place of observations. The columns of its state are the policy's net, then the
    value's.

    With `spec.shared` they are heads on one body; otherwise two nets, each by the spec of its role (`actor_X`,
    `critic_X`). `actor_init_std` and `critic_init_std` are the orthogonal gains of the output layers. With
    `log_std_init`, the net puts out the means alone, and the log standard deviations are parameters of their own.

    Args:
        spec: the net's spec.
        obs_space: of a single environment.
        action_space: of a single environment.
        pdtype: name of the action distribution, or `default`.
        critic: whether there is a value function.

    Raises:
        SpecError: the distribution does not suit the action space, or `log_std_init` not the distribution.
    """

    def __init__(
        self,
        spec: NetSpec,
        obs_space: spaces.Space,
        action_space: spaces.Space,
        pdtype: str = "default",
        critic: bool = True,
    ) -> None:
        super().__init__()
        obs_shape = tuple(obs_space.shape or ())
        self._distribution, dims = policy_heads(action_space, pdtype)
        self.log_std: nn.Parameter | None = None
        if spec.log_std_init is not None:
            if self._distribution != Normal.from_net:
                raise SpecError(
                    f"agent.net.log_std_init: only for Normal actions, but these are {action_space}; remove it"
                )
            self._distribution, dims = Normal, dims[:1]
            self.log_std = nn.Parameter(torch.full((dims[0],), float(spec.log_std_init)))
        actor_stds = [spec.actor_init_std] * len(dims)
        self.has_critic, self.shared = critic, critic and bool(spec.shared)
        if self.shared:
            self.net = make_net(spec, obs_shape, [*dims, 1], [*actor_stds, spec.critic_init_std])
            self.state_size = self.net.state_size
            return
        self.actor = make_net(spec.for_role("actor"), obs_shape, dims, actor_stds)
        self.state_size = self.actor.state_size
        if critic:
            self.critic = make_net(spec.for_role("critic"), obs_shape, [1], [spec.critic_init_std])
            self.state_size += self.critic.state_size

    def policy(self, obs: Tensor | History | np.ndarray) -> Distribution:
        """Return the distribution of actions for observations `[B, *obs]`; from an array, it can only be acted on."""
        net = self.net if self.shared else self.actor
        if isinstance(obs, History):
            obs = obs.of_net(0, net.state_size)
        return self._policy_of(net(obs, slice(-1) if self.shared else ALL))

    def value(self, obs: Tensor | History) -> Tensor:
        """Return the values `[B]` of observations `[B, *obs]`."""
        net = self.net if self.shared else self.critic
        if isinstance(obs, History):
            obs = obs.of_net(self.state_size - net.state_size, net.state_size)
        (value,) = net(obs, slice(-1, None))
        return value.squeeze(-1)

    def policy_value(self, obs: Tensor | History) -> tuple[Distribution, Tensor]:
        """Return both; a shared body is passed once."""
        if not self.shared:
            return self.policy(obs), self.value(obs)
        *outputs, value = self.net(obs)
        return self._policy_of(outputs), value.squeeze(-1)

    def forward(self, obs: Tensor | History) -> tuple[Distribution, Tensor | None]:
        """Return policy and value (None without a critic): the entry for `torch.func.functional_call`."""
        return self.policy_value(obs) if self.has_critic else (self.policy(obs), None)

    def actor_parameters(self) -> list[nn.Parameter]:
        """Return the policy's parameters; of a shared net, all there are."""
        return [p for name, p in self.named_parameters() if not name.startswith("critic.")]

    def critic_parameters(self) -> list[nn.Parameter]:
        """Return the parameters that only the value function has; of a shared net, none."""
        return [p for name, p in self.named_parameters() if name.startswith("critic.")]

    def _policy_of(self, outputs: list[Any]) -> Distribution:
        if self.log_std is None:
            return self._distribution(*outputs)
        to_act = isinstance(outputs[0], np.ndarray)
        return self._distribution(*outputs, to_numpy(self.log_std) if to_act else self.log_std)
