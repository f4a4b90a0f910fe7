"""Action values: of every discrete action at once, or of one action that is an input."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from slm_lab.agent.net import Net, make_net
from slm_lab.agent.net.build import is_elementwise, linear_layers, output_heads, spectral_norm_last
from slm_lab.agent.net.conv import conv_body
from slm_lab.spec import NetSpec
from slm_lab.spec.net import ConvNet, MLPNet


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
        nets = [ActionValue(spec, obs_shape, action_width, outputs) for _ in range(count)]
        self.nets = nn.ModuleList(nets)
        # other nets have parameters in other places as well
        self._layers = _perceptrons([net.net for net in nets]) if isinstance(spec, MLPNet) else []

    def forward(self, obs: Tensor, action: Tensor) -> Tensor:
        """Return the values `[count, B, outputs]` of observations `[B, *obs]` and actions `[B, action_width]`."""
        if self._layers and torch.compiler.is_compiling():
            return self._as_batch(obs, action)
        return torch.stack([net(obs, action) for net in self.nets])

    def _as_batch(self, obs: Tensor, action: Tensor) -> Tensor:
        """Return the values, a layer of all nets as one batch of products.

        On a CPU each net then stays on a core of its own: numbers that go from core to core can take longer than the
        products. What is between layers is `[count, width, B]`: so gradients come out laid out as the weights.
        """
        first: Any = self.nets[0]
        with first.net.rounding(obs):
            x = first.joined(obs, action).float().mT.expand(len(self.nets), -1, -1)
            for layers in self._layers:
                if isinstance(layers[0], nn.Linear):
                    bias = torch.stack([layer.bias for layer in layers]).unsqueeze(-1)
                    x = torch.baddbmm(bias, torch.stack([layer.weight for layer in layers]), x)
                else:
                    x = layers[0](x)
        return x.mT.float()


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
        return self.net(self.joined(obs, action))[0]

    def joined(self, obs: Tensor, action: Tensor) -> Tensor:
        """Return what the net takes: the observation, and beside it an action that is an input."""
        return obs if self.encoder is None else torch.cat([self.encoder.features(obs), action], -1)


def _perceptrons(nets: Sequence[Net]) -> list[tuple[Any, ...]]:
    """Return the layers of nets that are linear and elementwise ones after one another, those of a place together.

    Of other nets, nothing.
    """
    layers = [
        [layer for part in (net.body, *net.heads) for layer in (part if type(part) is nn.Sequential else [part])]
        for net in nets
    ]
    plain = all(type(layer) is nn.Linear or is_elementwise(layer) for layer in layers[0])
    return list(zip(*layers, strict=True)) if plain else []
