import pytest
import torch
from torch import nn
from torch.testing import assert_close

from slm_lab.agent.net import count_parameters, make_net
from slm_lab.agent.net.batch_renorm import BatchRenorm
from slm_lab.spec.errors import SpecError
from slm_lab.spec.net import TorchArcNet


def arc(*layers):
    return {
        "modules": {"body": {"Sequential": list(layers)}},
        "graph": {"input": "x", "modules": {"body": ["x"]}, "output": "body"},
    }


def net_of(*layers, obs_shape=(3,), **keys):
    return make_net(TorchArcNet(arc=arc(*layers), **keys), obs_shape, [2])


MLP = [{"LazyLinear": {"out_features": 8}}, {"LayerNorm": {"normalized_shape": [8]}}, {"SiLU": None}]
CONV = [
    {"LazyConv2d": {"out_channels": 4, "kernel_size": 3, "stride": 2}},
    {"ReLU": {}},
    {"Flatten": {}},
    {"LazyLinear": {"out_features": 16}},
    {"SELU": {}},
]


def test_a_vector_by_hand():
    net = net_of(*MLP)
    assert [type(layer) for layer in net.body.parts["body"]] == [nn.Linear, nn.LayerNorm, nn.SiLU]
    assert count_parameters(net) == (3 * 8 + 8) + (8 + 8) + (8 * 2 + 2)
    x = torch.randn(5, 3)
    linear, norm, _ = net.body.parts["body"]
    assert_close(net(x)[0], net.heads[0](nn.functional.silu(norm(linear(x)))))


def test_an_image_by_hand():
    net = net_of(*CONV, obs_shape=(1, 9, 9), normalize=True)
    assert count_parameters(net) == (4 * 9 + 4) + (4 * 4 * 4 * 16 + 16) + (16 * 2 + 2)
    image = torch.randint(256, (5, 1, 9, 9), dtype=torch.uint8)
    assert_close(net(image)[0], net.heads[0](net.body(image / 255)))


@pytest.mark.parametrize("layer", ["ReLU", "Tanh", "SiLU", "SELU", "GELU", "Identity"])
def test_layers_without_arguments(layer):
    for given in ({layer: {}}, {layer: None}, layer):
        assert isinstance(net_of(MLP[0], given).body.parts["body"][1], getattr(nn, layer))


def test_norms_are_sized_and_learn_nothing_from_it():
    options = {"momentum": 0.1, "eps": 0.001, "warmup_steps": 7}
    net = net_of(MLP[0], {"LazyBatchRenorm1d": options}, {"ReLU": {}}, MLP[0], {"LazyBatchNorm1d": {}})
    _, renorm, _, _, norm = net.body.parts["body"]
    assert isinstance(renorm, BatchRenorm)
    assert (renorm.momentum, renorm.eps, renorm.warmup_steps) == (0.1, 0.001, 7)
    assert renorm.weight.shape == norm.weight.shape == (8,)
    assert renorm.steps == norm.num_batches_tracked == 0
    assert norm.training


def test_modules_joined_by_a_graph():
    spec = {
        "modules": {
            "left": {"Linear": {"in_features": 3, "out_features": 4}},
            "right": {"LazyLinear": {"out_features": 5}},
            "both": {"Bilinear": [4, 5, 6]},
        },
        "graph": {
            "input": "obs",
            "modules": {"left": "obs", "right": ["left"], "both": ["left", "right"]},
            "output": "both",
        },
    }
    net = make_net(TorchArcNet(arc=spec), (3,), [2])
    x = torch.randn(5, 3)
    parts = net.body.parts
    left = parts["left"](x)
    assert_close(net(x)[0], net.heads[0](parts["both"](left, parts["right"](left))))
    assert parts["right"].in_features == 4


def test_init_fn_reaches_every_layer():
    net = net_of(*CONV, obs_shape=(1, 9, 9), init_fn="orthogonal_", hid_layers_activation="tanh")
    conv, _, _, linear, _ = net.body.parts["body"]
    for layer in (conv, linear):
        gain = torch.linalg.svdvals(layer.weight.detach().flatten(1))
        assert_close(gain, torch.full_like(gain, 5 / 3))
        assert not layer.bias.any()


def test_the_same_seed_gives_the_same_net():
    def build(seed):
        torch.manual_seed(seed)
        return net_of(*MLP)(torch.ones(1, 3))[0]

    assert torch.equal(build(1), build(1))
    assert not torch.equal(build(1), build(2))


@pytest.mark.parametrize(
    ("layers", "line"),
    [
        (
            [{"LazyLinaer": {"out_features": 4}}],
            r"Sequential\.0: 'LazyLinaer' is no layer that can stand here; did",
        ),
        (
            [MLP[0], {"BatchRenorm1d": {}}],
            r"Sequential\.1: 'BatchRenorm1d' is no .*; did you mean 'LazyBatchRenorm1d'",
        ),
        ([{"LazyLinear": {"units": 4}}], r"Sequential\.0\.LazyLinear: .*unexpected keyword argument 'units'"),
        ([MLP[0], {"Dropout": {}}], r"Sequential\.1: 'Dropout' is no layer that can stand here"),
        ([MLP[0], {"Linear": [9, 4]}], r"Sequential\.1\.Linear: does not take \(8,\): mat1 and mat2 shapes"),
    ],
)
def test_a_mistake_is_one_line(layers, line):
    with pytest.raises(SpecError, match=r"^agent\.net\.arc\.modules\.body\." + line) as error:
        net_of(*layers)
    assert "\n" not in str(error.value)


def test_features_must_be_a_row():
    with pytest.raises(SpecError, match=r"^agent\.net\.arc\.graph\.output: body puts out \(4, 4, 4\) .* end it"):
        net_of(*CONV[:2], obs_shape=(1, 9, 9))
