"""Nets: a body found by the spec's `type`, and heads that fit what is to be learned."""

from collections.abc import Callable, Sequence
from typing import Any

from torch import nn

from slm_lab.agent.net.build import Net, count_parameters, output_heads
from slm_lab.agent.net.conv import conv_body
from slm_lab.agent.net.dueling import DuelingHead
from slm_lab.agent.net.mlp import mlp_body
from slm_lab.agent.net.noisy import make_noisy
from slm_lab.agent.net.recurrent import recurrent_body
from slm_lab.spec import NetSpec

BODIES: dict[str, Callable[[Any, tuple[int, ...]], tuple[nn.Module, int]]] = {
    "MLPNet": mlp_body,
    "ConvNet": conv_body,
    "RecurrentNet": recurrent_body,
    "DuelingMLPNet": mlp_body,
    "DuelingConvNet": conv_body,
}
"""Builders of bodies, by `net.type`."""


def make_net(
    spec: NetSpec,
    obs_shape: tuple[int, ...],
    out_dims: Sequence[int],
    init_stds: Sequence[float | None] | None = None,
    atoms: int = 1,
) -> Net:
    """Build a net.

    The first weights come from torch's global random stream: seed it before, for the same seed to give the same net.

    Args:
        spec: the net's spec.
        obs_shape: shape of one observation.
        out_dims: width of each output.
        init_stds: orthogonal gain of each output layer; None leaves it to `init_fn`.
        atoms: numbers that make up one action value; dueling nets read it.

    Returns:
        A net from `[B, *obs_shape]`, or of a RecurrentNet from a `History`, to a list of `[B, out_dim]`.
    """
    body, features = BODIES[spec.type](spec, obs_shape)
    heads = output_heads(features, out_dims, spec.out_layer_activation, spec.init_fn, init_stds)
    if spec.type.startswith("Dueling"):
        value = output_heads(features, [atoms], spec.out_layer_activation, spec.init_fn, None)
        heads = [DuelingHead(*value, *heads)]
    net = Net(body, heads, normalize=getattr(spec, "normalize", False))
    if sigma := getattr(spec, "noisy_sigma", None):
        make_noisy(net, sigma)
    return net


__all__ = ["Net", "count_parameters", "make_net"]
