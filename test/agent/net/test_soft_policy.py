from math import log

import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Discrete
from torch.nn.utils.parametrize import is_parametrized
from torch.testing import assert_close

from slm_lab.agent.net.critics import Critics
from slm_lab.agent.net.soft_policy import SoftPolicy
from slm_lab.spec.net import ConvNet, MLPNet, TorchArcNet

OBS, BOX, DISCRETE = Box(-1.0, 1.0, (4,)), Box(-1.0, 1.0, (2,), np.float32), Discrete(3)
NET = MLPNet(hid_layers=[8], hid_layers_activation="tanh")
FORMS = {"continuous": (BOX, "default"), "exact": (DISCRETE, "default"), "relaxed": (DISCRETE, "GumbelSoftmax")}


def policy(form):
    torch.manual_seed(0)
    return SoftPolicy(NET, OBS, *FORMS[form])


def observations(n=5):
    return torch.randn(n, 4, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(("form", "width", "outputs"), [("continuous", 2, 1), ("exact", 0, 3), ("relaxed", 3, 1)])
def test_what_it_gives_fits_the_critics(form, width, outputs):
    soft = policy(form)
    assert (soft.action_width, soft.outputs) == (width, outputs)
    noise = soft.noise(5, torch.Generator().manual_seed(0))
    action, prob, log_prob = soft(observations(), noise)
    assert action.shape == noise.shape == (5, width)
    assert prob.shape == log_prob.shape == (5, outputs)
    assert_close(prob.sum(-1), torch.ones(5))
    critics = Critics(NET, (4,), width, outputs)
    assert critics(observations(), action).shape == (2, 5, outputs)
    taken, share = soft.taken(torch.zeros(5, 2) if form == "continuous" else torch.tensor([0, 1, 2, 2, 1]))
    assert taken.shape == (5, width)
    assert share.shape == (5, outputs)
    assert (share.sum(-1) == 1).all()


def test_share_and_one_hot_of_the_actions_taken():
    action = torch.tensor([2, 0])
    one_hot = [[0.0, 0.0, 1.0], [1.0, 0.0, 0.0]]
    assert policy("exact").taken(action)[1].tolist() == one_hot
    assert policy("relaxed").taken(action)[0].tolist() == one_hot


def test_samples_are_distributed_as_the_actions_that_are_acted_out():
    soft = policy("relaxed")
    obs, generator = observations(1).expand(20_000, 4), torch.Generator().manual_seed(0)
    action, _, log_prob = soft(obs, soft.noise(20_000, generator))
    assert ((action == 0) | (action == 1)).all()
    p = soft.net.policy(obs[:1]).log_p.exp()[0]
    assert_close(action.detach().mean(0), p.detach(), rtol=0, atol=0.02)
    rng = np.random.default_rng(0)
    assert np.bincount(soft.act(obs.numpy(), rng)) / 20_000 == pytest.approx(p.detach().numpy(), abs=0.02)
    assert_close(log_prob[0, 0], (p * p.log()).sum())
    squashed = policy("continuous")
    sampled = squashed(obs, squashed.noise(20_000, generator))[0]
    assert sampled.mean(0).tolist() == pytest.approx(squashed.act(obs.numpy(), rng).mean(0), abs=0.02)


@pytest.mark.parametrize("form", FORMS)
def test_gradients_reach_the_policy(form):
    soft = policy(form)
    action, prob, log_prob = soft(observations(), soft.noise(5, torch.Generator().manual_seed(0)))
    q = (action * torch.arange(1.0, 1 + soft.action_width)).sum(-1, keepdim=True) + torch.arange(1.0, 1 + soft.outputs)
    value = (prob * (q - 0 * log_prob)).sum()
    assert all(grad.abs().sum() > 0 for grad in torch.autograd.grad(value, list(soft.parameters()), allow_unused=False))


def test_mode():
    obs = observations()
    assert policy("continuous").act(obs.numpy()) == pytest.approx(
        policy("continuous").net.policy(obs).loc.tanh().detach()
    )
    assert policy("exact").act(obs.numpy()).tolist() == policy("exact").net.policy(obs).log_p.argmax(-1).tolist()


def test_target_entropy():
    assert policy("continuous").target_entropy(0.5) == -2.0
    assert policy("exact").target_entropy(0.5) == policy("relaxed").target_entropy(0.5) == 0.5 * log(3)


CONV = {"conv_hid_layers": [[2, 3, 1, 0, 1]], "fc_hid_layers": [6], "hid_layers_activation": "tanh", "normalize": True}


@pytest.mark.parametrize("batch_renorm", [False, True])
def test_an_action_joins_what_convolutions_made_of_an_image(batch_renorm):
    critics = Critics(ConvNet(**CONV, batch_renorm=batch_renorm), (1, 5, 5), action_width=2)
    first, second = critics.nets
    assert first.net.body[0].in_features == 2 * 3 * 3 + 2
    assert not torch.equal(first.net.body[0].weight, second.net.body[0].weight)
    image = torch.randint(256, (3, 1, 5, 5), dtype=torch.uint8)
    action = torch.randn(3, 2, requires_grad=True)
    features = first.encoder.body(image / 255)
    assert features.shape == (3, 18)
    critics.eval()
    q = critics(image, action)
    assert q.shape == (2, 3, 1)
    features = first.encoder.body(image / 255)
    assert_close(q[0], first.net.heads[0](first.net.body(torch.cat([features, action], -1))))
    assert torch.autograd.grad(q.sum(), action)[0].abs().sum() > 0


@pytest.mark.parametrize("fc", [[6, 5], []])
def test_spectral_norm_is_of_the_last_layer_after_the_action_has_joined(fc):
    critics = Critics(ConvNet(**CONV | {"fc_hid_layers": fc}, spectral_norm=True), (1, 5, 5), action_width=2)
    for critic in critics.nets:
        layers = [
            layer for body in (critic.encoder.body, critic.net.body) for layer in body if hasattr(layer, "weight")
        ]
        assert [is_parametrized(layer) for layer in layers] == [False] * len(fc) + [True]


def test_pixels_are_scaled_and_actions_are_not():
    arc = {"modules": {"body": {"Identity": []}}, "graph": {"input": "x", "modules": {"body": ["x"]}, "output": "body"}}
    critics = Critics(TorchArcNet(arc=arc, normalize=True), (1, 1, 2), action_width=1)
    critics.nets[0].net.heads[0].weight.data = torch.tensor([[1.0, 10.0, 100.0]])
    critics.nets[0].net.heads[0].bias.data.zero_()
    image = torch.tensor([[[[255, 51]]]], dtype=torch.uint8)
    assert critics(image, torch.tensor([[3.0]]))[0].item() == pytest.approx(1 + 2 + 300)


def test_a_value_for_each_action_of_an_image():
    critics = Critics(ConvNet(**CONV), (1, 5, 5), outputs=4)
    assert critics(torch.zeros(3, 1, 5, 5, dtype=torch.uint8), torch.empty(3, 0)).shape == (2, 3, 4)


def test_an_action_stands_beside_the_observation():
    critics = Critics(MLPNet(hid_layers=[]), (2, 2), action_width=1)
    critics.nets[0].net.heads[0].weight.data = torch.tensor([[1.0, 2.0, 3.0, 4.0, 5.0]])
    critics.nets[0].net.heads[0].bias.data.zero_()
    obs = torch.tensor([[[1, 0], [1, 0]]], dtype=torch.uint8)
    assert critics(obs, torch.tensor([[2.0]]))[0].item() == 1 + 3 + 10
