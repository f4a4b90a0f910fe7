import pytest
import torch
from torch import nn
from torch.testing import assert_close

from slm_lab.agent.net import count_parameters, make_net
from slm_lab.agent.net.batch_renorm import BatchRenorm
from slm_lab.agent.net.build import ConvBody, Net
from slm_lab.agent.net.conv import Residual, conv_layers, flat_width
from slm_lab.agent.net.learner import Learner, ParameterGroup
from slm_lab.spec.errors import SpecError
from slm_lab.spec.net import ConvNet

NATURE = {
    "conv_hid_layers": [[32, 8, 4, 0, 1], [64, 4, 2, 0, 1], [64, 3, 1, 0, 1]],
    "fc_hid_layers": [512],
    "hid_layers_activation": "relu",
}
SMALL = {"conv_hid_layers": [[2, 3, 1, 0, 1]], "hid_layers_activation": "relu"}


def test_parameters_and_shapes_by_hand():
    net = make_net(ConvNet(**NATURE), (4, 84, 84), [6, 1])
    convs = (4 * 32 * 8 * 8 + 32) + (32 * 64 * 4 * 4 + 64) + (64 * 64 * 3 * 3 + 64)
    fc = 7 * 7 * 64 * 512 + 512  # 84 -> 20 -> 9 -> 7
    assert count_parameters(net) == convs + fc + (512 * 6 + 6) + (512 * 1 + 1)
    policy, value = net(torch.randint(256, (3, 4, 84, 84), dtype=torch.uint8))
    assert policy.shape == (3, 6)
    assert value.shape == (3, 1)


def test_padding_dilation_and_no_fc_layers():
    net = make_net(ConvNet(**SMALL | {"conv_hid_layers": [[5, 3, 2, 1, 2]]}), (1, 11, 9), [2])
    # (n + 2 - 2 * 2 - 1) // 2 + 1: 11 -> 5, 9 -> 4
    assert net.heads[0].in_features == 5 * 5 * 4


def test_stride_padding_and_dilation_may_be_left_out():
    short, full = (
        make_net(ConvNet(**SMALL | {"conv_hid_layers": [layer]}), (1, 8, 8), [2]).body[0]
        for layer in ([5, 3, 2], [5, 3, 2, 0, 1])
    )
    assert short.extra_repr() == full.extra_repr()


def test_normalize_divides_by_255():
    torch.manual_seed(0)
    plain = make_net(ConvNet(**SMALL), (1, 8, 8), [2])
    torch.manual_seed(0)
    scaled = make_net(ConvNet(**SMALL, normalize=True), (1, 8, 8), [2])
    image = torch.randint(256, (3, 1, 8, 8), dtype=torch.uint8)
    assert_close(scaled(image)[0], plain(image.float() / 255)[0])


def test_pixels_are_divided_in_the_precision_of_the_products_to_the_same_numbers():
    net, divided = make_net(ConvNet(**SMALL, normalize=True), (1, 16, 16), [2]), []
    net.precision = torch.bfloat16
    net.body.register_forward_hook(lambda _body, inputs, _features: divided.append(inputs[0]))
    every = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16)
    net(every)
    assert divided[0].dtype == torch.bfloat16  # half as much to move as in float32
    assert torch.equal(divided[0], (every / 255).bfloat16())
    other = Net(nn.Identity(), [], normalize=True)  # its first layer may be none that rounds
    other.precision = torch.bfloat16
    assert torch.equal(other.features(every), every / 255)


def test_init_fn_reaches_convolutions_and_fc_layers():
    spec = ConvNet(**SMALL | {"fc_hid_layers": [10]}, init_fn="orthogonal_")
    net = make_net(spec, (1, 8, 8), [2])
    for layer in (net.body[0], net.body[3]):
        gain = torch.linalg.svdvals(layer.weight.detach().flatten(1))
        assert_close(gain, torch.full_like(gain, 2**0.5))
        assert not layer.bias.any()


def test_batch_norm_stands_between_convolution_and_activation():
    net = make_net(ConvNet(**SMALL, batch_norm=True), (1, 8, 8), [2])
    assert [type(layer) for layer in net.body] == [nn.Conv2d, nn.BatchNorm2d, nn.ReLU, nn.Flatten]
    assert net.body[1].num_batches_tracked == 0  # sizing the net must not leave a trace in its statistics


def test_batch_renormalisation_stands_there_and_between_the_layers_after():
    net = make_net(ConvNet(**SMALL, fc_hid_layers=[5], batch_renorm={"warmup_steps": 7}), (1, 8, 8), [2])
    block = [BatchRenorm, nn.ReLU]
    assert [type(layer) for layer in net.body] == [nn.Conv2d, *block, nn.Flatten, nn.Linear, *block]
    assert net.body[1].warmup_steps == 7
    assert net.body[1].steps == 0


def test_a_vector_is_no_image():
    with pytest.raises(SpecError, match=r"agent\.net\.type: ConvNet needs images .* is \(4,\); use MLPNet"):
        make_net(ConvNet(**SMALL), (4,), [2])


def test_an_image_may_be_too_small():
    with pytest.raises(SpecError, match=r"agent\.net\.conv_hid_layers: .* does not fit an image of \(4, 10, 10\)"):
        make_net(ConvNet(**NATURE), (4, 10, 10), [2])


@pytest.mark.parametrize("layers", [[], [[3, 4]], [[3, 4, 3, 2], [2, 3, 2, 1, 2]], "nature", "impala"])
@pytest.mark.parametrize("size", [(36, 45), (45, 37)])
def test_the_width_is_that_of_what_the_convolutions_make(layers, size):
    net = make_net(ConvNet(conv_hid_layers=layers, hid_layers_activation="relu"), (2, *size), [2])
    assert net.heads[0].in_features == net.body(torch.zeros(1, 2, *size)).shape[1]


def test_what_an_image_is_too_small_for_is_told_as_torch_tells_it():
    spec = ConvNet(conv_hid_layers=[[2, 3, 2, 1], [2, 4, 1, 0, 2]], hid_layers_activation="relu")
    layers = nn.Sequential(*conv_layers(spec, 1))
    with pytest.raises(RuntimeError, match="Calculated padded") as torchs:
        layers(torch.zeros(1, 1, 20, 12))
    with pytest.raises(ValueError, match="Calculated padded") as ours:
        flat_width(layers, (1, 20, 12))
    assert str(ours.value) == str(torchs.value)


def test_a_batch_norm_may_see_a_single_pixel():
    net = make_net(ConvNet(**SMALL | {"conv_hid_layers": [[5, 8]]}, batch_norm=True), (1, 8, 8), [2])
    assert net(torch.randint(256, (3, 1, 8, 8), dtype=torch.uint8))[0].shape == (3, 2)


def test_the_nature_preset_is_what_it_stands_for():
    preset, listed = (
        make_net(ConvNet(**NATURE | {"conv_hid_layers": layers}), (4, 84, 84), [6])
        for layers in ("nature", NATURE["conv_hid_layers"])
    )
    assert str(preset) == str(listed)


def test_the_impala_preset_by_hand():
    net = make_net(ConvNet(conv_hid_layers="impala", fc_hid_layers=[256]), (4, 84, 84), [6])
    convs = sum(fan_in * out * 9 + out + 4 * (out * out * 9 + out) for fan_in, out in ((4, 16), (16, 32), (32, 32)))
    fc = 11 * 11 * 32 * 256 + 256  # 84 -> 42 -> 21 -> 11
    assert count_parameters(net) == convs + fc + (256 * 6 + 6)
    assert net(torch.randint(256, (2, 4, 84, 84), dtype=torch.uint8))[0].shape == (2, 6)


def test_a_residual_block_by_hand():
    block = Residual(ConvNet(**SMALL), 3)
    x = torch.randn(2, 3, 5, 5)
    _, first, _, second = block.branch
    assert_close(block(x), x + second(first(x.relu()).relu()))


def test_init_fn_reaches_residual_blocks():
    net = make_net(ConvNet(conv_hid_layers="impala", init_fn="orthogonal_"), (1, 16, 16), [2])
    convs = [layer for layer in net.body.modules() if isinstance(layer, nn.Conv2d)]
    assert len(convs) == 15
    for conv in convs:
        gain = torch.linalg.svdvals(conv.weight.detach().flatten(1))
        assert_close(gain, torch.full_like(gain, 2**0.5))


@pytest.mark.parametrize("fc", [[10, 5], []])
def test_spectral_norm_is_of_the_last_layer(fc):
    net = make_net(ConvNet(**SMALL | {"fc_hid_layers": fc}, spectral_norm=True), (1, 8, 8), [2])
    layers = [layer for layer in net.body if isinstance(layer, (nn.Conv2d, nn.Linear))]
    assert [nn.utils.parametrize.is_parametrized(layer) for layer in layers] == [False] * (len(layers) - 1) + [True]


@pytest.mark.parametrize("optimizer", ["Adam", "AdamW", "SGD", "Adagrad", "RMSprop"])
def test_a_step_is_the_same_however_images_lie_in_memory(optimizer, monkeypatch):
    """Gradients come in the layout of the images, and fused optimisers do not look at it."""
    images, ends = torch.randint(256, (5, 3, 12, 12), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)), []
    for body in (ConvBody, type(None)):
        monkeypatch.setattr("slm_lab.agent.net.build.ConvBody", body)
        torch.manual_seed(0)
        spec = ConvNet(
            conv_hid_layers=[[8, 4, 2], [8, 3, 1]], normalize=True, optim_spec={"name": optimizer, "lr": 0.01}
        )
        net = make_net(spec, (3, 12, 12), [2])
        learner = Learner(lambda net, x: (net(x)[0].square().mean(), {}), net, [ParameterGroup(net.parameters(), spec)])
        for _ in range(3):
            learner.step(images)
        ends.append(net.state_dict())
    assert_close(*ends, rtol=1e-3, atol=1e-5)
