import math

import torch
from torch import nn
from torch.testing import assert_close

from slm_lab.agent.net import make_net
from slm_lab.agent.net.noisy import Noise, NoisyLinear
from slm_lab.spec.net import ConvNet, DuelingMLPNet, MLPNet


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def noisy_layers(net):
    return [module for module in net.modules() if isinstance(module, NoisyLinear)]


def test_it_is_the_layer_whose_weights_are_noisy():
    layer = NoisyLinear(nn.Linear(3, 2), sigma=1.0)
    layer.weight_sigma.data.copy_(torch.randn(2, 3))
    layer.bias_sigma.data.copy_(torch.randn(2))
    Noise(nn.Sequential(layer)).draw(generator(), rows=5)
    x, (noise_in, noise_out) = torch.randn(5, 3), layer.noise
    for row in range(5):  # eq. 9 to 11 as they stand, each row with noise of its own
        weight = layer.weight + layer.weight_sigma * torch.outer(noise_out[row], noise_in[row])
        assert_close(layer(x)[row], weight @ x[row] + layer.bias + layer.bias_sigma * noise_out[row])


def test_without_noise_it_is_the_plain_layer():
    linear = nn.Linear(3, 2)
    layer, x = NoisyLinear(linear, sigma=0.5), torch.randn(5, 3)
    plain = linear(x)
    assert torch.equal(layer(x), plain)
    noise = Noise(nn.Sequential(layer))
    noise.draw(generator())
    assert not torch.equal(layer(x), plain)
    noise.clear()
    assert torch.equal(layer(x), plain)


def test_it_begins_as_the_spec_says():
    net = make_net(MLPNet(hid_layers=[64], noisy_sigma=0.5), (16,), [4])
    hidden, head = noisy_layers(net)
    assert_close(hidden.weight_sigma, torch.full((64, 16), 0.5 / 4))
    assert_close(hidden.bias_sigma, torch.full((64,), 0.5 / 4))
    assert_close(head.weight_sigma, torch.full((4, 64), 0.5 / 8))
    for layer in (hidden, head):
        assert 0.9 / math.sqrt(layer.in_features) < layer.weight.abs().max() <= 1 / math.sqrt(layer.in_features)


def test_every_linear_layer_is_noisy_and_no_other():
    image = ConvNet(conv_hid_layers=[[4, 3]], fc_hid_layers=[6], noisy_sigma=0.5)
    dueling = DuelingMLPNet(hid_layers=[6, 5], noisy_sigma=0.5)
    for spec, shape, count in ((image, (2, 5, 5), 2), (dueling, (3,), 4)):
        net = make_net(spec, shape, [2])
        assert len(noisy_layers(net)) == count
        assert not [module for module in net.modules() if isinstance(module, nn.Linear)]
        assert len(Noise(net).layers) == count
    assert not noisy_layers(make_net(MLPNet(hid_layers=[4]), (3,), [2]))


def test_noise_is_signed_roots_of_normal_numbers():
    net = make_net(MLPNet(hid_layers=[40], noisy_sigma=0.5), (30,), [20])
    Noise(net).draw(generator(), rows=1000)
    for layer in noisy_layers(net):
        for noise in layer.noise:
            normal = noise.sign() * noise.square()
            assert abs(normal.mean().item()) < 5 / math.sqrt(normal.numel())
            assert abs(normal.std().item() - 1) < 5 / math.sqrt(normal.numel())


def test_all_parts_of_the_noise_are_independent():
    net = make_net(MLPNet(hid_layers=[3], noisy_sigma=0.5), (3,), [3])
    Noise(net).draw(generator(), rows=10_000)
    numbers = torch.cat([part for layer in noisy_layers(net) for part in layer.noise], dim=1)
    assert (torch.corrcoef(numbers.T) - torch.eye(12)).abs().max() < 0.05


def test_the_generator_decides():
    net = make_net(MLPNet(hid_layers=[3], noisy_sigma=0.5), (3,), [2])
    noise, draws, stream = Noise(net), [], generator(1)
    for source in (stream, stream, generator(1)):
        noise.draw(source)
        draws.append(torch.cat([part for layer in noisy_layers(net) for part in layer.noise], dim=1))
    assert torch.equal(draws[0], draws[2])
    assert not torch.equal(draws[0], draws[1])


def test_a_plain_net_draws_nothing():
    stream = generator()
    before = stream.get_state()
    Noise(make_net(MLPNet(hid_layers=[3]), (3,), [2])).draw(stream)
    assert torch.equal(stream.get_state(), before)


def test_gradients_reach_weights_and_their_noise():
    net = make_net(MLPNet(hid_layers=[4], noisy_sigma=0.5), (3,), [2])
    Noise(net).draw(generator())
    net(torch.randn(5, 3))[0].square().sum().backward()
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in net.parameters())
