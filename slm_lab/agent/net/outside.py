"""Nets from outside of the lab."""

import torch
from torch import Tensor, nn

from slm_lab.agent.net.build import init_layers, put_out
from slm_lab.lib.named import import_callable, wrong_argument
from slm_lab.spec.errors import SpecError
from slm_lab.spec.net import OutsideNet


def outside_body(spec: OutsideNet, obs_shape: tuple[int, ...]) -> tuple[nn.Module, int]:
    """Build the body that `type` names: a class or function of `obs_shape` and the keys of its own.

    Args:
        spec: reads type, kwargs, and init_fn (with the gain of hid_layers_activation) for linear and convolutional
            layers.
        obs_shape: shape of one observation.

    Returns:
        The body, from `[B, *obs_shape]` float32 to `[B, features]`, and the number of its features.

    Raises:
        SpecError: there is no such class or function, it does not take these keys, or what it makes is no such module
            or does not take observations.
    """
    make = import_callable(spec.type, "agent.net.type")
    try:
        body = make(obs_shape, **spec.kwargs)
    except TypeError as error:
        wrong = wrong_argument(error, make, spec.type, "agent.net")
        if wrong is None:
            raise
        raise wrong from error
    if not isinstance(body, nn.Module):
        raise SpecError(f"agent.net.type: {spec.type} makes a {type(body).__name__}, not a torch.nn.Module")
    try:
        output = put_out(body, torch.zeros(2, *obs_shape))
    except (RuntimeError, ValueError, TypeError, IndexError) as error:
        text = " ".join(str(error).split())
        raise SpecError(f"agent.net.type: {spec.type} does not take {(2, *obs_shape)}: {text}") from error
    shape = tuple(output.shape) if isinstance(output, Tensor) else f"a {type(output).__name__}"
    if not isinstance(output, Tensor) or output.dim() != 2 or len(output) != 2:
        raise SpecError(f"agent.net.type: {spec.type} puts out {shape} for two observations, and must (2, features)")
    init_layers(body, spec.init_fn, spec.hid_layers_activation)
    return body, output.shape[1]
