import torch
from torch import nn
from torch.testing import assert_close

from slm_lab.agent.net import count_parameters, make_net
from slm_lab.agent.net.batch_renorm import BatchRenorm
from slm_lab.agent.net.numpy_net import Tanh
from slm_lab.spec.net import MLPNet


def test_parameters_and_shapes_by_hand():
    net = make_net(MLPNet(hid_layers=[64, 32], hid_layers_activation="relu"), (4,), [2, 1])
    assert count_parameters(net) == (4 * 64 + 64) + (64 * 32 + 32) + (32 * 2 + 2) + (32 * 1 + 1)
    first, second = net(torch.randn(7, 4))
    assert first.shape == (7, 2)
    assert second.shape == (7, 1)


def test_a_forward_pass_by_hand():
    net = make_net(MLPNet(hid_layers=[1], hid_layers_activation="relu", init_fn="ones_"), (2,), [1])
    (out,) = net(torch.tensor([[1.0, 2.0], [1.0, -2.0]]))
    assert out.tolist() == [[3.0], [0.0]]


def test_no_hidden_layers_is_a_linear_map():
    net = make_net(MLPNet(hid_layers=[], hid_layers_activation="relu"), (4,), [2])
    x = torch.randn(3, 4)
    assert_close(net(x)[0], net.heads[0](x))
    assert count_parameters(net) == 4 * 2 + 2


def test_layers_stand_in_order_norm_before_activation():
    spec = MLPNet(hid_layers=[8, 6], hid_layers_activation="tanh", batch_norm=True, layer_norm=True)
    block = [nn.Linear, nn.BatchNorm1d, nn.LayerNorm, Tanh]
    assert [type(layer) for layer in make_net(spec, (4,), [2]).body] == block + block


def test_batch_renormalisation_takes_the_place_of_batch_norm():
    net = make_net(MLPNet(hid_layers=[8], batch_renorm=True), (4,), [2])
    assert [type(layer) for layer in net.body] == [nn.Linear, BatchRenorm, nn.ReLU]
    assert net.body[1].warmup_steps == 10_000


def test_observations_of_any_shape_and_dtype():
    net = make_net(MLPNet(hid_layers=[8], hid_layers_activation="relu"), (2, 3), [2])
    whole = torch.arange(12).reshape(2, 2, 3)
    (expected,) = net(whole.float())
    for dtype in (torch.uint8, torch.int64, torch.float64):
        assert_close(net(whole.to(dtype))[0], expected)


def test_the_same_seed_gives_the_same_net():
    def build(seed):
        torch.manual_seed(seed)
        spec = MLPNet(hid_layers=[8], hid_layers_activation="relu", init_fn="orthogonal_")
        return make_net(spec, (4,), [2])(torch.ones(1, 4))[0]

    assert torch.equal(build(1), build(1))
    assert not torch.equal(build(1), build(2))


def test_spectral_norm_keeps_the_last_layers_largest_singular_value_at_one():
    net = make_net(MLPNet(hid_layers=[8, 6], init_fn="orthogonal_", spectral_norm=True), (4,), [2])
    first, last = net.body[0], net.body[2]
    assert_close(torch.linalg.matrix_norm(first.weight.detach(), 2), torch.tensor(2**0.5))
    assert_close(torch.linalg.matrix_norm(last.weight.detach(), 2), torch.tensor(1.0))
    assert count_parameters(net) == (4 * 8 + 8) + (8 * 6 + 6) + (6 * 2 + 2)
