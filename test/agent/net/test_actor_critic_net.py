import numpy as np
import pytest
import torch
from gymnasium import spaces
from torch.func import functional_call, grad
from torch.testing import assert_close

from slm_lab.agent.algorithm.loss import clipped_surrogate
from slm_lab.agent.net import count_parameters
from slm_lab.agent.net.actor_critic import ActorCritic
from slm_lab.agent.net.distribution import Beta, Categorical, Normal
from slm_lab.agent.net.numpy_net import Tanh
from slm_lab.spec.errors import SpecError
from slm_lab.spec.net import ConvNet, HydraMLPNet, MLPNet, OutsideNet, RecurrentNet, TorchArcNet

OBS, DISCRETE, CONTINUOUS = spaces.Box(-1.0, 1.0, (4,)), spaces.Discrete(3), spaces.Box(-1.0, 1.0, (2,))
BODY = (4 * 8 + 8) + (8 * 8 + 8)


def mlp(**keys):
    return MLPNet(hid_layers=[8, 8], hid_layers_activation="tanh", init_fn="orthogonal_", **keys)


def observations(n=5):
    return torch.randn(n, 4, generator=torch.Generator().manual_seed(0))


def ids(parameters):
    return {id(parameter) for parameter in parameters}


@pytest.mark.parametrize(
    ("space", "keys", "policy_head"),
    [
        (DISCRETE, {}, 8 * 3 + 3),
        (CONTINUOUS, {}, 2 * (8 * 2 + 2)),  # mean and log-std
        (CONTINUOUS, {"log_std_init": -0.5}, (8 * 2 + 2) + 2),  # mean, and two parameters
    ],
)
def test_parameters_by_hand(space, keys, policy_head):
    value_head = 8 + 1
    assert count_parameters(ActorCritic(mlp(shared=True, **keys), OBS, space)) == BODY + policy_head + value_head
    assert count_parameters(ActorCritic(mlp(shared=False, **keys), OBS, space)) == 2 * BODY + policy_head + value_head
    assert count_parameters(ActorCritic(mlp(**keys), OBS, space, critic=False)) == BODY + policy_head


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("space", [DISCRETE, CONTINUOUS])
def test_one_pass_for_both_is_the_same_as_one_for_each(shared, space):
    net = ActorCritic(mlp(shared=shared), OBS, space)
    policy, value = net.policy_value(observations())
    assert value.shape == (5,)
    assert_close(value, net.value(observations()))
    assert_close(policy.mode(), net.policy(observations()).mode())
    assert_close(net.policy(observations().numpy()).mode(), policy.mode())


def test_the_value_reaches_the_policys_body_only_if_it_is_shared():
    for shared in (True, False):
        net = ActorCritic(mlp(shared=shared), OBS, DISCRETE)
        before = net.policy(observations()).log_p
        net.value(observations()).sum().backward()
        with torch.no_grad():
            for parameter in net.parameters():
                parameter -= 0.1 * parameter.grad if parameter.grad is not None else 0.0
        assert torch.equal(before, net.policy(observations()).log_p) is not shared


def test_parameters_of_separate_nets_are_two_sets():
    net = ActorCritic(mlp(log_std_init=0.0), OBS, CONTINUOUS)
    actor, critic = ids(net.actor_parameters()), ids(net.critic_parameters())
    assert actor | critic == ids(net.parameters())
    assert not actor & critic
    assert critic == ids(net.critic.parameters())
    assert id(net.log_std) in actor


def test_parameters_of_a_shared_net_are_one_set():
    net = ActorCritic(mlp(shared=True), OBS, DISCRETE)
    assert ids(net.actor_parameters()) == ids(net.parameters())
    assert net.critic_parameters() == []


def test_each_role_has_its_own_spec():
    net = ActorCritic(mlp(critic_hid_layers=[16], actor_hid_layers_activation="relu"), OBS, DISCRETE)
    assert [layer.out_features for layer in net.actor.body[::2]] == [8, 8]
    assert [layer.out_features for layer in net.critic.body[::2]] == [16]
    assert isinstance(net.actor.body[1], torch.nn.ReLU)
    assert isinstance(net.critic.body[1], Tanh)


@pytest.mark.parametrize("shared", [True, False])
def test_init_stds_reach_the_heads(shared):
    net = ActorCritic(mlp(shared=shared, actor_init_std=0.01, critic_init_std=3.0), OBS, CONTINUOUS)
    heads = net.net.heads if shared else [*net.actor.heads, *net.critic.heads]
    gains = [torch.linalg.svdvals(head.weight.detach()).max().item() for head in heads]
    assert gains == pytest.approx([0.01, 0.01, 3.0])
    # which is what it is for: a first policy that hardly depends on the observation
    assert np.abs(net.policy(100 * observations()).mode()).max() < 0.1


def test_log_std_init_does_not_depend_on_the_observation_and_learns():
    net = ActorCritic(mlp(log_std_init=-0.5), OBS, CONTINUOUS)
    policy = net.policy(observations())
    assert_close(policy.log_scale.detach(), torch.full((5, 2), -0.5))
    policy.entropy().sum().backward()
    assert net.log_std.grad.tolist() == [5.0, 5.0]
    sampled, acted = (
        net.policy(obs).sample(np.random.default_rng(0)) for obs in (observations(), observations().numpy())
    )
    assert_close(acted, sampled)


def test_log_std_init_is_for_normal_actions_only():
    for space, pdtype in ((DISCRETE, "default"), (CONTINUOUS, "Beta")):
        with pytest.raises(SpecError, match=r"agent\.net\.log_std_init: only for Normal actions"):
            ActorCritic(mlp(log_std_init=0.0), OBS, space, pdtype)


@pytest.mark.parametrize(
    ("space", "pdtype", "cls"),
    [(DISCRETE, "default", Categorical), (CONTINUOUS, "default", Normal), (CONTINUOUS, "Beta", Beta)],
)
def test_the_policy_is_of_the_kind_asked_for(space, pdtype, cls):
    assert isinstance(ActorCritic(mlp(), OBS, space, pdtype).policy(observations()), cls)


def test_images():
    spec = ConvNet(conv_hid_layers=[[4, 3, 1, 0, 1]], hid_layers_activation="relu", normalize=True, shared=True)
    net = ActorCritic(spec, spaces.Box(0, 255, (2, 8, 8), np.uint8), DISCRETE)
    policy, value = net.policy_value(torch.randint(256, (5, 2, 8, 8), dtype=torch.uint8))
    assert policy.log_p.shape == (5, 3)
    assert value.shape == (5,)


def test_forward_without_a_critic():
    policy, value = ActorCritic(mlp(), OBS, DISCRETE, critic=False)(observations())
    assert policy.log_p.shape == (5, 3)
    assert value is None


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize(
    ("space", "pdtype"),
    [(DISCRETE, "default"), (spaces.MultiDiscrete([2, 3]), "default"), (spaces.MultiBinary(2), "default"),
     (CONTINUOUS, "default"), (CONTINUOUS, "Beta")],
)  # fmt: skip
def test_gradient_of_a_whole_loss_is_one_graph(shared, space, pdtype):
    net = ActorCritic(mlp(shared=shared), OBS, space, pdtype)
    parameters = dict(net.named_parameters())
    obs = observations()
    with torch.no_grad():
        policy = net.policy(obs)
        action = torch.from_numpy(policy.sample(np.random.default_rng(0)))
        old_log_prob = policy.log_prob(action)

    def loss(parameters, obs, action, old_log_prob, clip_eps):
        policy, value = functional_call(net, parameters, (obs,))
        surrogate = clipped_surrogate(policy.log_prob(action), old_log_prob, obs[:, 0], clip_eps)
        return surrogate + value.square().mean() - 0.01 * policy.entropy().mean()

    arguments = (parameters, obs, action, old_log_prob, torch.tensor(0.2))
    torch.compiler.reset()
    compiled = torch.compile(grad(loss), fullgraph=True, backend="eager")
    assert_close(compiled(*arguments), grad(loss)(*arguments))


ARC = {
    "modules": {"body": {"Sequential": [{"LazyLinear": {"out_features": 8}}, {"Tanh": {}}]}},
    "graph": {"input": "x", "modules": {"body": ["x"]}, "output": "body"},
}
KINDS = {
    "MLPNet": (MLPNet, {"hid_layers": [8]}),
    "ConvNet": (ConvNet, {"conv_hid_layers": [[4, 3]], "fc_hid_layers": [8]}),
    "RecurrentNet": (RecurrentNet, {"rnn_hidden_size": 8, "fc_hid_layers": [8], "seq_len": 2}),
    "HydraMLPNet": (HydraMLPNet, {"hid_layers": [[[8], [8]], [8], [8]]}),
    "TorchArcNet": (TorchArcNet, {"arc": ARC}),
    "OutsideNet": (OutsideNet, {"type": "outside_nets:Tower", "width": 8}),
}


def kind_of_net(kind, *, shared, **keys):
    cls, own = KINDS[kind]
    images = spaces.Box(0, 255, (1, 6, 6), np.uint8)
    spec = cls(shared=shared, init_fn="orthogonal_", hid_layers_activation="tanh", **own, **keys)
    return ActorCritic(spec, images if kind == "ConvNet" else OBS, CONTINUOUS)


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("kind", KINDS)
def test_initialisation_takes_effect_in_every_kind_of_net(kind, shared):
    stds = {"actor_init_std": 0.01, "critic_init_std": 3.0}
    net = kind_of_net(kind, shared=shared, log_std_init=-0.5, **stds)
    linears = [module for module in net.modules() if isinstance(module, torch.nn.Linear | torch.nn.Conv2d)]
    gains = [torch.linalg.svdvals(layer.weight.detach().flatten(1)) for layer in linears]
    heads = [gain.max().item() for gain in gains if len(gain) in (1, 2)]
    assert heads == pytest.approx([0.01, 3.0])
    bodies = [gain for gain in gains if len(gain) > 2]
    assert bodies
    for gain in bodies:
        assert_close(gain, torch.full_like(gain, 5 / 3))
    assert all(not layer.bias.any() for layer in linears)
    assert net.log_std.tolist() == [-0.5, -0.5]
    assert id(net.log_std) in ids(net.actor_parameters())


@pytest.mark.parametrize("kind", KINDS)
def test_a_role_overrides_keys_in_every_kind_of_net(kind):
    net = kind_of_net(kind, shared=False, critic_hid_layers_activation="relu", critic_init_fn="zeros_")
    assert all(parameter.any() for name, parameter in net.actor.named_parameters() if name.endswith("weight"))
    assert not any(parameter.any() for name, parameter in net.critic.named_parameters() if name.endswith("weight"))
