"""Nets: a body found by the spec's `type`, and heads that fit what is to be learned."""

from collections.abc import Callable, Sequence
from typing import Any

from torch import nn

from slm_lab.agent.net.build import Net, count_parameters, output_heads
from slm_lab.agent.net.conv import conv_body
from slm_lab.agent.net.dueling import DuelingHead
from slm_lab.agent.net.hydra import hydra_body, hydra_tails
from slm_lab.agent.net.mlp import mlp_body
from slm_lab.agent.net.noisy import make_noisy
from slm_lab.agent.net.outside import outside_body
from slm_lab.agent.net.recurrent import recurrent_body
from slm_lab.agent.net.torcharc import arc_body
from slm_lab.spec import NetSpec
from slm_lab.spec.net import HydraMLPNet

BODIES: dict[str, Callable[[Any, tuple[int, ...]], tuple[nn.Module, int]]] = {
    "MLPNet": mlp_body,
    "ConvNet": conv_body,
    "RecurrentNet": recurrent_body,
    "DuelingMLPNet": mlp_body,
    "DuelingConvNet": conv_body,
    "HydraMLPNet": hydra_body,
    "TorchArcNet": arc_body,
}
"""Builders of bodies, by `net.type`; those from outside are not among them."""


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
    body, features = BODIES.get(spec.type, outside_body)(spec, obs_shape)
    tails, widths = hydra_tails(spec, features, len(out_dims)) if isinstance(spec, HydraMLPNet) else ([], features)
    heads = output_heads(widths, out_dims, spec.out_layer_activation, spec.init_fn, init_stds)
    heads = [nn.Sequential(*tail, head) for tail, head in zip(tails, heads, strict=True)] if tails else heads
    if spec.type in ("DuelingMLPNet", "DuelingConvNet"):
        value = output_heads(features, [atoms], spec.out_layer_activation, spec.init_fn, None)
        heads = [DuelingHead(*value, *heads)]
    net = Net(body, heads, normalize=bool(spec.declared("normalize")))
    if sigma := spec.declared("noisy_sigma"):
        make_noisy(net, sigma)
    return net


__all__ = ["Net", "count_parameters", "make_net"]
