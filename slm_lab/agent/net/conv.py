"""Convolutional net for images."""

from collections.abc import Iterable, Sequence

import numpy as np
from torch import Tensor, nn

from slm_lab.agent.net.build import (
    ConvBody,
    activation_layers,
    init_layer,
    linear_layers,
    renorm_layers,
    spectral_norm_last,
)
from slm_lab.spec.errors import SpecError
from slm_lab.spec.net import Convolutional

_CONV_DEFAULTS = (1, 0, 1)  # stride, padding, dilation
NATURE = ([32, 8, 4], [64, 4, 2], [64, 3, 1])
"""The convolutions of DQN, Mnih et al. 2015, Nature 518."""
IMPALA = (16, 32, 32)
"""Channels of the residual stages of IMPALA's deep net, Espeholt et al. 2018, arXiv:1802.01561, figure 3."""


def conv_body(spec: Convolutional, obs_shape: tuple[int, ...]) -> tuple[nn.Module, int]:
    """Build the body of a ConvNet: convolutions, flattened, then fully connected layers.

    Args:
        spec: reads conv_hid_layers (`[out_channels, kernel, stride, padding, dilation]` each; the last three
            may be left out; or "nature" or "impala"), fc_hid_layers, hid_layers_activation, init_fn, batch_norm (of the
            convolutions), batch_renorm and spectral_norm.
        obs_shape: `(C, H, W)`.

    Returns:
        The body and the number of its features.

    Raises:
        SpecError: the observation is no image, or too small for the kernels.
    """
    if len(obs_shape) != 3:
        raise SpecError(
            f"agent.net.type: ConvNet needs images (C, H, W), but an observation is {obs_shape}; use MLPNet"
        )
    convolutions = (
        impala_layers(spec, obs_shape[0]) if spec.conv_hid_layers == "impala" else conv_layers(spec, obs_shape[0])
    )
    try:
        width = flat_width(convolutions, obs_shape)
    except ValueError as error:
        raise SpecError(
            f"agent.net.conv_hid_layers: {spec.conv_hid_layers} does not fit an image of {obs_shape}: {error}"
        ) from error
    layers, sizes = [*convolutions, nn.Flatten()], [width, *spec.fc_hid_layers]
    layers += linear_layers(sizes, spec.hid_layers_activation, spec.init_fn, batch_renorm=spec.batch_renorm)
    body = ConvBody(*layers)
    if spec.spectral_norm:
        spectral_norm_last(body)
    return body, sizes[-1]


def conv_layers(spec: Convolutional, channels: int) -> list[nn.Module]:
    """Return the convolutions that `spec` lists, each followed by its norms and its activation."""
    listed: Sequence[Sequence[int]] = NATURE if isinstance(spec.conv_hid_layers, str) else spec.conv_hid_layers
    layers: list[nn.Module] = []
    for given in listed:
        out_channels, kernel, stride, padding, dilation = [*given, *_CONV_DEFAULTS[len(given) - 2 :]]
        conv = nn.Conv2d(channels, out_channels, kernel, stride, padding, dilation)
        layers.append(init_layer(conv, spec.init_fn, spec.hid_layers_activation))
        layers += [nn.BatchNorm2d(out_channels)] if spec.batch_norm else []
        layers += renorm_layers(spec.batch_renorm, out_channels)
        layers += activation_layers(spec.hid_layers_activation)
        channels = out_channels
    return layers


def impala_layers(spec: Convolutional, channels: int) -> list[nn.Module]:
    """Return IMPALA's three stages of a convolution, a pooling that halves the image and two residual blocks."""
    layers: list[nn.Module] = []
    for out_channels in IMPALA:
        layers += [_conv3(spec, channels, out_channels), nn.MaxPool2d(3, stride=2, padding=1)]
        layers += [Residual(spec, out_channels), Residual(spec, out_channels)]
        channels = out_channels
    return layers + activation_layers(spec.hid_layers_activation)


def flat_width(layers: Iterable[nn.Module], obs_shape: Sequence[int]) -> int:
    """Return how many numbers `layers`, convolutions and what stands between them, make of one image `(C, H, W)`.

    They are counted: to run them, even on torch's meta device, imports sympy and torch._dynamo, which takes a second.

    Raises:
        ValueError: a kernel is larger than what it is to see.
    """
    channels, size = obs_shape[0], np.array(obs_shape[1:])
    for layer in layers:
        if not isinstance(layer, nn.Conv2d | nn.MaxPool2d):
            continue  # keeps the shape
        padded = size + 2 * np.array(layer.padding)
        kernel = np.array(layer.dilation) * (np.array(layer.kernel_size) - 1) + 1
        if (kernel > padded).any():
            seen, wide = (" x ".join(map(str, np.broadcast_to(lengths, 2))) for lengths in (padded, kernel))
            raise ValueError(
                f"Calculated padded input size per channel: ({seen}). Kernel size: ({wide}). Kernel size can't be "
                "greater than actual input size"
            )
        size = (padded - kernel) // layer.stride + 1
        channels = getattr(layer, "out_channels", channels)
    return channels * int(size.prod())


class Residual(nn.Module):
    """x + conv(act(conv(act(x)))), with convolutions that keep the shape `[B, C, H, W]`."""

    def __init__(self, spec: Convolutional, channels: int) -> None:
        super().__init__()
        layers = [
            layer
            for _ in range(2)
            for layer in (*activation_layers(spec.hid_layers_activation), _conv3(spec, channels, channels))
        ]
        self.branch = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        """Return the sum, of the shape of `x`."""
        return x + self.branch(x)


def _conv3(spec: Convolutional, channels: int, out_channels: int) -> nn.Conv2d:
    conv = nn.Conv2d(channels, out_channels, 3, padding=1)
    return init_layer(conv, spec.init_fn, spec.hid_layers_activation)
