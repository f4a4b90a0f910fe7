import math

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from slm_lab.agent.net import count_parameters, make_net
from slm_lab.agent.net.build import ACTIVATIONS, INITIALISERS, init_layer
from slm_lab.spec.errors import SpecError
from slm_lab.spec.net import MLPNet


def singular_values(linear):
    return torch.linalg.svdvals(linear.weight.detach())


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_every_activation_is_elementwise(name):
    x = torch.randn(3, 4)
    activation = ACTIVATIONS[name]()
    assert_close(activation(x)[:, :2], activation(x[:, :2]))


@pytest.mark.parametrize("name", ["relu", "ReLU", "LeakyReLU", "leakyrelu", "leaky_relu", "SiLU"])
def test_activations_are_found_in_any_spelling(name):
    net = make_net(MLPNet(hid_layers=[8], hid_layers_activation=name), (4,), [2])
    assert type(net.body[1]).__name__.lower() == name.lower().replace("_", "")


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        (
            {"hid_layers_activation": "rellu"},
            r"agent\.net\.hid_layers_activation: unknown name 'rellu'; did you mean .*'relu'",
        ),
        (
            {"out_layer_activation": "thanh"},
            r"agent\.net\.out_layer_activation: unknown name 'thanh'; did you mean 'tanh'",
        ),
        ({"init_fn": "ortogonal_"}, r"agent\.net\.init_fn: unknown name 'ortogonal_'; did you mean 'orthogonal_'"),
        ({"hid_layers_activation": "zzz"}, r"unknown name 'zzz'; known: relu, "),
        ({"out_layer_activation": ["tanh"]}, r"1 activations for 2 heads \(of widths 2, 1\)"),
    ],
)
def test_a_wrong_name_is_an_error(keys, message):
    with pytest.raises(SpecError, match=message):
        make_net(MLPNet(**({"hid_layers": [8], "hid_layers_activation": "relu"} | keys)), (4,), [2, 1])


@pytest.mark.parametrize(
    ("activation", "gain"),
    [
        ("tanh", 5 / 3),
        ("relu", math.sqrt(2)),
        ("ReLU", math.sqrt(2)),
        ("leaky_relu", math.sqrt(2 / 1.0001)),
        ("silu", math.sqrt(2)),
        (None, 1.0),
    ],
)
def test_orthogonal_takes_the_gain_of_the_activation(activation, gain):
    layer = init_layer(nn.Linear(20, 10), "orthogonal_", activation)
    assert_close(singular_values(layer), torch.full((10,), gain))
    assert layer.bias.tolist() == [0.0] * 10


@pytest.mark.parametrize(
    ("init_fn", "std"),
    [
        ("xavier_uniform_", 5 / 3 * math.sqrt(2 / (400 + 100))),
        ("xavier_normal_", 5 / 3 * math.sqrt(2 / (400 + 100))),
        ("kaiming_normal_", 5 / 3 / math.sqrt(400)),
        ("normal_", 1.0),
        ("zeros_", 0.0),
    ],
)
def test_initialisers_have_the_spread_that_they_promise(init_fn, std):
    layer = init_layer(nn.Linear(400, 100), init_fn, "tanh")
    assert abs(layer.weight.std().item() - std) <= 0.02 * std  # 40,000 weights: 0.35 % is one standard deviation


@pytest.mark.parametrize("init_fn", INITIALISERS)
def test_every_initialiser_works_on_layers_of_both_kinds(init_fn):
    for layer in (nn.Linear(3, 4), nn.Conv2d(3, 4, 2)):
        assert init_layer(layer, init_fn, "gelu").weight.isfinite().all()


def test_without_init_fn_torchs_own_initialisation_stays():
    torch.manual_seed(0)
    expected = nn.Linear(4, 3).state_dict()
    torch.manual_seed(0)
    assert_close(init_layer(nn.Linear(4, 3), None, "relu").state_dict(), expected)


def test_init_stds_reach_the_heads_they_are_meant_for():
    spec = MLPNet(hid_layers=[16], hid_layers_activation="tanh", init_fn="orthogonal_")
    net = make_net(spec, (4,), [3, 1, 2], init_stds=[0.01, None, 2.0])
    policy, value, other = net.heads
    assert_close(singular_values(policy), torch.full((3,), 0.01))
    assert_close(singular_values(value), torch.ones(1))  # from init_fn, linear gain
    assert_close(singular_values(other), torch.full((2,), 2.0))
    assert policy.bias.tolist() == [0.0] * 3


def test_an_init_std_needs_no_init_fn():
    net = make_net(MLPNet(hid_layers=[16], hid_layers_activation="tanh"), (4,), [3], init_stds=[0.5])
    assert_close(singular_values(net.heads[0]), torch.full((3,), 0.5))
    assert net.heads[0].bias.tolist() == [0.0] * 3


def test_each_head_has_its_own_activation():
    spec = MLPNet(hid_layers=[16], hid_layers_activation="tanh", out_layer_activation=["sigmoid", None])
    net = make_net(spec, (4,), [50, 50])
    squashed, free = net(100 * torch.randn(20, 4))
    assert squashed.min() >= 0
    assert free.min() < 0
    (everywhere,) = make_net(spec.model_copy(update={"out_layer_activation": "sigmoid"}), (4,), [50])(
        torch.randn(20, 4)
    )
    assert everywhere.min() >= 0


def test_count_parameters_counts_what_is_trained():
    net = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3), nn.Linear(3, 1).requires_grad_(False))
    assert count_parameters(net) == (4 * 3 + 3) + (3 + 3)


def test_with_bfloat16_products_are_rounded_and_outputs_are_float32():
    net = make_net(MLPNet(hid_layers=[], hid_layers_activation="relu"), (64,), [3])
    obs = torch.rand(5, 64)
    (exact,) = net(obs)
    net.precision = torch.bfloat16
    (rounded,) = net(obs)
    (head,) = net.heads
    by_hand = nn.functional.linear(obs.bfloat16(), head.weight.bfloat16(), head.bias.bfloat16())
    assert_close(rounded, by_hand.float(), rtol=0, atol=0)
    assert not torch.allclose(rounded, exact, rtol=1e-4, atol=1e-5)
    with torch.inference_mode():  # what is judged is what is trained
        assert_close(net(obs), [rounded], rtol=0, atol=0)
    (acting,) = net(obs.numpy())  # where rounding gains nothing
    assert_close(torch.from_numpy(acting), exact)
