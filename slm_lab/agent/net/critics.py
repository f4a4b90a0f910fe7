"""Action values: of every discrete action at once, or of one action that is an input."""

import math

import torch
from torch import Tensor, nn

from slm_lab.agent.net import Net, make_net
from slm_lab.agent.net.build import linear_layers, output_heads, spectral_norm_last
from slm_lab.agent.net.conv import conv_body
from slm_lab.spec import NetSpec
from slm_lab.spec.net import ConvNet


class Critics(nn.Module):
    """Action-value functions of one form, which differ in their first weights.

    Args:
        spec: the critics' net spec.
        obs_shape: shape of one observation.
        action_width: numbers in an action that is an input; 0 where it is none, and there is a value for each action.
        outputs: values; one, or as many as there are actions.
        count: of value functions; twins, by default.
    """

    def __init__(
        self, spec: NetSpec, obs_shape: tuple[int, ...], action_width: int = 0, outputs: int = 1, count: int = 2
    ) -> None:
        super().__init__()
        make = [ActionValue(spec, obs_shape, action_width, outputs) for _ in range(count)]
        self.nets = nn.ModuleList(make)

    def forward(self, obs: Tensor, action: Tensor) -> Tensor:
        """Return the values `[count, B, outputs]` of observations `[B, *obs]` and actions `[B, action_width]`."""
        return torch.stack([net(obs, action) for net in self.nets])


class ActionValue(nn.Module):
    """One action-value function; an action that is an input joins the observation, or what convolutions made of it."""

    def __init__(self, spec: NetSpec, obs_shape: tuple[int, ...], action_width: int, outputs: int) -> None:
        super().__init__()
        self.encoder: Net | None = None
        if not action_width:
            self.net = make_net(spec, obs_shape, [outputs], [spec.critic_init_std])
        elif isinstance(spec, ConvNet):
            last = not spec.fc_hid_layers  # a convolution is the last hidden layer
            update = {"fc_hid_layers": [], "spectral_norm": spec.spectral_norm and last}
            body, features = conv_body(spec.model_copy(update=update), obs_shape)
            self.encoder = Net(body, [], normalize=spec.normalize)
            sizes = [features + action_width, *spec.fc_hid_layers]
            layers = linear_layers(sizes, spec.hid_layers_activation, spec.init_fn, batch_renorm=spec.batch_renorm)
            heads = output_heads(sizes[-1], [outputs], spec.out_layer_activation, spec.init_fn, [spec.critic_init_std])
            self.net = Net(nn.Sequential(*layers), heads)
            if spec.spectral_norm and not last:
                spectral_norm_last(self.net.body)
        else:
            self.net = make_net(spec, (math.prod(obs_shape) + action_width,), [outputs], [spec.critic_init_std])
            self.encoder = Net(nn.Flatten(), [], normalize=self.net.normalize)
            self.net.normalize = False  # actions are no pixels

    def forward(self, obs: Tensor, action: Tensor) -> Tensor:
        """Return the values `[B, outputs]`; `action` is not looked at where it is no input."""
        if self.encoder is None:
            return self.net(obs)[0]
        return self.net(torch.cat([self.encoder.features(obs), action], -1))[0]
