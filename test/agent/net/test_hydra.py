import pytest
import torch
from torch.testing import assert_close

from slm_lab.agent.net import count_parameters, make_net
from slm_lab.spec.errors import SpecError
from slm_lab.spec.net import HydraMLPNet


def net_of(hid_layers, out_dims=(2, 1), **keys):
    torch.manual_seed(0)
    return make_net(HydraMLPNet(hid_layers=hid_layers, hid_layers_activation="tanh", **keys), (3,), list(out_dims))


def test_heads_body_and_tails_by_hand():
    net = net_of([[[4], [5, 6]], [7], [[8], []]])
    heads = (3 * 4 + 4) + (3 * 5 + 5) + (5 * 6 + 6)
    assert count_parameters(net) == heads + (10 * 7 + 7) + (7 * 8 + 8) + (8 * 2 + 2) + (7 * 1 + 1)
    x = torch.randn(5, 3)
    joined, *body = net.body
    both = torch.cat([head(x) for head in joined.heads], 1)
    features = body[1](body[0](both))
    policy, value = net(x)
    first, second = net.heads
    assert_close(policy, first[2](first[1](first[0](features))))
    assert_close(value, second[0](features))


@pytest.mark.parametrize("hid_layers", [[[4], [7], [8]], [[[4]], [7], [[8]]]])
def test_one_list_is_a_single_head_and_every_tail(hid_layers):
    net = net_of(hid_layers)
    assert count_parameters(net) == (3 * 4 + 4) + (4 * 7 + 7) + 2 * (7 * 8 + 8) + (8 * 2 + 2) + (8 * 1 + 1)


def test_nothing_but_a_body():
    net = net_of([[], [7], []])
    assert count_parameters(net) == (3 * 7 + 7) + (7 * 2 + 2) + (7 * 1 + 1)


def test_norms_and_init_fn_reach_every_part():
    net = net_of([[[4]], [4], [[4]]], init_fn="orthogonal_", layer_norm=True)
    linear = [net.body[0].heads[0][1], net.body[1], net.heads[0][0]]
    for layer in linear:
        gain = torch.linalg.svdvals(layer.weight.detach())
        assert_close(gain, torch.full_like(gain, 5 / 3))
    assert sum(isinstance(module, torch.nn.LayerNorm) for module in net.modules()) == 4


def test_a_tail_for_each_output():
    with pytest.raises(
        SpecError, match=r"^agent\.net\.hid_layers\.2: 3 tails for 2 outputs; give one for each, or one"
    ):
        net_of([[], [7], [[8], [8], [8]]])
