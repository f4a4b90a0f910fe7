"""Convolutional net for images."""

from torch import nn

from slm_lab.agent.net.build import activation_layers, flat_width, init_layer, linear_layers, renorm_layers
from slm_lab.spec.errors import SpecError
from slm_lab.spec.net import Convolutional

_CONV_DEFAULTS = (1, 0, 1)  # stride, padding, dilation


def conv_body(spec: Convolutional, obs_shape: tuple[int, ...]) -> tuple[nn.Module, int]:
    """Build the body of a ConvNet: convolutions, flattened, then fully connected layers.

    Args:
        spec: reads conv_hid_layers (`[out_channels, kernel, stride, padding, dilation]` each; the last three
            may be left out),
            fc_hid_layers, hid_layers_activation, init_fn, batch_norm (of the convolutions) and batch_renorm.
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
    activation, init_fn = spec.hid_layers_activation, spec.init_fn
    layers: list[nn.Module] = []
    channels = obs_shape[0]
    for given in spec.conv_hid_layers:
        out_channels, kernel, stride, padding, dilation = [*given, *_CONV_DEFAULTS[len(given) - 2 :]]
        conv = nn.Conv2d(channels, out_channels, kernel, stride, padding, dilation)
        layers.append(init_layer(conv, init_fn, activation))
        layers += [nn.BatchNorm2d(out_channels)] if spec.batch_norm else []
        layers += renorm_layers(spec.batch_renorm, out_channels)
        layers += activation_layers(activation)
        channels = out_channels
    layers.append(nn.Flatten())
    try:
        width = flat_width(nn.Sequential(*layers), obs_shape)
    except RuntimeError as error:
        raise SpecError(
            f"agent.net.conv_hid_layers: {spec.conv_hid_layers} does not fit an image of {obs_shape}: {error}"
        ) from error
    sizes = [width, *spec.fc_hid_layers]
    layers += linear_layers(sizes, activation, init_fn, batch_renorm=spec.batch_renorm)
    return nn.Sequential(*layers), sizes[-1]
