"""Small nets in numpy."""

import copy

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from slm_lab.agent.net import make_net
from slm_lab.agent.net.numpy_net import Tanh
from slm_lab.spec.net import ConvNet, MLPNet


def mlp(obs_shape=(4,), **keys):
    spec = MLPNet(**({"hid_layers": [64, 32], "hid_layers_activation": "relu"} | keys))
    return make_net(spec, obs_shape, [3, 1])


def forbid_torch(net):
    """Let no layer of `net` be run by torch."""

    def refuse(*_):
        raise AssertionError("run by torch")

    for layer in [*net.body, *net.heads]:
        layer.forward = refuse


def act(net, obs, *heads):
    outputs = net(obs.numpy(), *heads)
    assert all(isinstance(out, np.ndarray) for out in outputs)
    return [torch.from_numpy(out).clone() for out in outputs]


def hooked(net):
    """A net whose first layer does more than its weights tell, as `weight_norm` and users' hooks make it do."""
    net.body[0].register_forward_hook(lambda _layer, _inputs, out: out * 2)
    return net


@pytest.mark.parametrize("activation", ["tanh", "relu"])
@pytest.mark.parametrize("shape", [(4,), (2, 3)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.uint8])
def test_to_act_a_small_net_is_not_run_by_torch_and_says_the_same(activation, shape, dtype):
    net = mlp(shape, hid_layers_activation=activation, out_layer_activation=["tanh", None])
    obs = (torch.rand(500, *shape) * 3).to(dtype)
    expected = net(obs)
    forbid_torch(net)
    assert_close(act(net, obs), expected)
    assert_close(act(net, obs, slice(-1)), expected[:1])
    assert_close(act(net, obs, slice(-1, None)), expected[1:])
    with torch.no_grad():
        assert_close(net(obs), expected)
    with pytest.raises(AssertionError, match="run by torch"):
        net(obs)


def test_tanh_is_torchs_with_a_gradient_or_without(monkeypatch):
    x = torch.linspace(-9, 9, 101)
    expected = torch.tanh(x)
    assert_close(Tanh()(x.half()), expected.half(), rtol=0, atol=1e-2)
    leaf = x.clone().requires_grad_()
    Tanh()(leaf).sum().backward()
    assert_close(leaf.grad, 1 - expected.square())
    monkeypatch.setattr(torch, "tanh", None)
    assert_close(Tanh()(x), expected, rtol=1e-6, atol=1e-7)


def test_it_follows_the_weights():
    net, obs = mlp(), torch.rand(2, 4)
    before = act(net, obs)
    (net(obs)[0].square().sum() + net(obs)[1].sum()).backward()
    torch.optim.Adam(net.parameters(), lr=0.1, fused=True).step()
    stepped = net(obs)
    assert not torch.allclose(before[0], stepped[0])
    assert_close(act(net, obs), stepped)
    net.load_state_dict(mlp().state_dict())
    assert_close(act(net, obs), net(obs))


def test_it_follows_weights_that_move():
    net, obs = mlp(), torch.rand(2, 4)
    act(net, obs)
    twin = copy.deepcopy(net)
    for parameter in net.parameters():
        parameter.data = parameter.data * 2
    assert_close(act(net, obs), net(obs))
    for parameter in twin.parameters():
        parameter.data += 1
    assert_close(act(twin, obs), twin(obs))


@pytest.mark.parametrize(
    ("net", "obs"),
    [
        (mlp(hid_layers=[256, 256]), torch.rand(5, 4)),
        (mlp(hid_layers=[600, 600]), torch.rand(1, 4)),
        (mlp(layer_norm=True), torch.rand(1, 4)),
        (mlp(spectral_norm=True), torch.rand(1, 4)),
        (hooked(mlp()), torch.rand(1, 4)),
        (
            make_net(ConvNet(conv_hid_layers=[[4, 3, 1, 0, 1]], fc_hid_layers=[]), (1, 8, 8), [2]),
            torch.rand(1, 1, 8, 8),
        ),
    ],
)
def test_all_others_are_run_by_torch(net, obs):
    net.eval()  # in training, a spectral norm moves with every pass
    assert_close(act(net, obs), net(obs))
    forbid_torch(net)
    with pytest.raises(AssertionError, match="run by torch"):
        act(net, obs)
    with torch.no_grad(), pytest.raises(AssertionError, match="run by torch"):
        net(obs)
