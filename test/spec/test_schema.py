"""The models: defaults that follow from other keys, round trips, hashes, roles of nets, and checks across sections."""

import pickle
from copy import deepcopy

import pytest
from pydantic import ValidationError

from slm_lab.spec import EnvSpec, NetSpec, Spec, SpecError, VarSpec
from slm_lab.spec.algorithm import ALGORITHMS
from slm_lab.spec.memory import MEMORIES
from slm_lab.spec.model import Section, descriptions
from slm_lab.spec.net import NETS
from slm_lab.spec.schema import AgentSpec, ConvNet, MetaSpec, MLPNet

PPO = {
    "agent": {
        "name": "ppo",
        "algorithm": {
            "name": "PPO",
            "gamma": 0.99,
            "lam": 0.95,
            "clip_eps_spec": {"name": "no_decay", "start_val": 0.2},
            "time_horizon": 128,
            "minibatch_size": 128,
            "training_epoch": 4,
        },
        "memory": {"name": "OnPolicyBatchReplay"},
        "net": {"type": "MLPNet", "hid_layers": [64, 64]},
    },
    "env": {"name": "CartPole-v1", "num_envs": 4, "max_frame": 200_000},
    "meta": {"max_session": 4},
}
A2C = {"name": "ActorCritic", "gamma": 0.99}


def ppo(**env):
    raw = deepcopy(PPO)
    raw["env"] |= env
    return Spec.from_dict("ppo", raw)


def a2c(**algorithm):
    raw = deepcopy(PPO)
    raw["agent"]["algorithm"] = A2C | algorithm
    return Spec.from_dict("a2c", raw).agent.algorithm


def test_a_resolved_spec_says_every_key_and_comes_back_equal():
    spec = ppo(continuous=True, normalize_obs=True)
    resolved = spec.to_dict()
    assert resolved["env"]["clip_obs"] == 10.0
    assert resolved["env"]["continuous"] is True
    assert resolved["agent"]["net"]["optim_spec"] == {"name": "Adam"}
    assert resolved["meta"]["log_frequency"] == 10_000
    assert "name" not in resolved
    assert Spec.from_dict("ppo", resolved) == spec


def test_an_optimiser_without_a_name_is_adam():
    net = MLPNet(hid_layers=[64], optim_spec={"lr": 0.01}, critic_optim_spec={"lr": 0.1})
    assert net.optim_spec == {"name": "Adam", "lr": 0.01}
    assert net.for_role("critic").optim_spec == {"name": "Adam", "lr": 0.1}


def test_a_spec_survives_the_way_into_another_process():
    assert pickle.loads(pickle.dumps(ppo())) == ppo()


def test_the_hash_is_of_what_is_meant_not_of_how_it_is_written():
    assert ppo().hash == ppo(max_frame=2e5).hash == ppo(max_t=None).hash
    assert len(ppo().hash) == 12
    assert ppo().hash != ppo(max_frame=200_001).hash


def test_with_meta_changes_a_copy():
    spec = ppo()
    assert (spec.with_meta(seed=3).meta.seed, spec.with_meta(seed=3).meta.max_session, spec.meta.seed) == (3, 4, None)
    with pytest.raises(SpecError, match=r"^meta\.sed: unknown key; did you mean 'seed'\?"):
        spec.with_meta(sed=3)


def test_a_spec_is_frozen():
    with pytest.raises(ValidationError):
        ppo().env.max_frame = 1


def test_random_needs_neither_memory_nor_net():
    spec = Spec.from_dict("random", {"agent": {"algorithm": {"name": "Random"}}, "env": PPO["env"]})
    assert (spec.agent.memory, spec.agent.net) == (None, None)


@pytest.mark.parametrize("number", [200_000, 2e5])
def test_a_float_is_taken_for_a_whole_number_if_it_is_one(number):
    assert ppo(max_frame=number).env.max_frame == 200_000


def test_clips_follow_from_the_normalisers_only_where_nothing_is_given():
    def clips(**keys):
        env = ppo(**keys).env
        return env.clip_obs, env.clip_reward

    assert clips() == (None, None)
    assert clips(normalize_obs=True) == (10.0, None)
    assert clips(normalize_reward=True) == (None, 10.0)
    assert clips(normalize_obs=True, clip_obs=5.0, normalize_reward=True, clip_reward=False) == (5.0, False)


@pytest.mark.parametrize("clip", [1.0, [-1.0, 2.0], "sign", False, None])
def test_the_forms_of_clip_reward(clip):
    assert ppo(clip_reward=clip).env.clip_reward == clip


def test_other_keys_of_env_are_arguments_of_the_environment():
    env = EnvSpec(name="ALE/Pong-v5", max_frame=1, life_loss_info=True, repeat_action_probability=0.25)
    assert env.kwargs == {"life_loss_info": True, "repeat_action_probability": 0.25}
    assert ppo().env.kwargs == {}


def test_n_step_returns_set_the_training_frequency():
    assert a2c(num_step_returns=11).training_frequency == 11
    assert a2c(lam=0.95, training_frequency=32).num_step_returns is None


def test_a_role_sees_its_own_keys_under_their_plain_names():
    adam, slow = {"name": "Adam", "lr": 1e-3}, {"name": "Adam", "lr": 1e-4}
    net = MLPNet(hid_layers=[64], optim_spec=adam, critic_hid_layers=[256], actor_optim_spec=slow, actor_init_std=0.01)
    actor, critic = net.for_role("actor"), net.for_role("critic")
    assert (actor.hid_layers, actor.optim_spec) == ([64], slow)
    assert (critic.hid_layers, critic.optim_spec) == ([256], adam)
    assert actor.actor_init_std == 0.01
    assert isinstance(actor, MLPNet)
    assert actor.for_role("actor") == actor


def test_convolutions_may_leave_out_stride_padding_and_dilation():
    assert ConvNet(conv_hid_layers=[[32, 8], [64, 4, 2, 0, 1]]).conv_hid_layers == [[32, 8], [64, 4, 2, 0, 1]]


def test_zero_is_an_end_value():
    assert VarSpec(name="linear_decay", start_val=1, end_val=0, end_step=10).end_val == 0


def sections():
    return [Spec, AgentSpec, EnvSpec, MetaSpec, VarSpec, *ALGORITHMS.values(), *MEMORIES.values(), *NETS.values()]


@pytest.mark.parametrize("section", sections(), ids=lambda section: section.__name__)
def test_every_key_says_what_it_means(section: type[Section]):
    assert [key for key in section.model_fields if not descriptions(section).get(key)] == []


@pytest.mark.parametrize("registry", [ALGORITHMS, MEMORIES, NETS])
def test_a_kind_is_registered_by_its_own_name(registry):
    for name, kind in registry.items():
        assert kind.model_fields["type" if issubclass(kind, NetSpec) else "name"].default == name


DQN = {"name": "DQN", "gamma": 0.9, "action_policy": "greedy", "training_frequency": 4}
SIL = A2C | {"name": "SIL", "training_frequency": 8}
PRIORITIES = {"name": "PrioritizedReplay", "beta_spec": {"name": "no_decay", "start_val": 0.4}}


@pytest.mark.parametrize(
    ("changes", "key"),
    [({"batch_size": 6}, "batch_size"), ({"use_cer": True}, "use_cer"), (PRIORITIES, "name")],
)
def test_a_recurrent_net_takes_sequences_from_any_replay(changes, key):
    replay = {"name": "Replay", "batch_size": 8, "max_size": 100}
    raw = deepcopy(PPO)
    raw["agent"]["net"] = {"type": "RecurrentNet", "rnn_hidden_size": 4, "seq_len": 4}
    for algorithm, place in ((DQN, "agent.memory"), (SIL, "agent.memory.sil_replay")):
        for given, bad in ((replay, False), (replay | changes, True)):
            past = {"name": "OnPolicyBatchReplay", "sil_replay": given}
            raw["agent"] |= {"algorithm": algorithm, "memory": given if algorithm is DQN else past}
            if not bad:
                Spec.from_dict("sound", raw)
                continue
            with pytest.raises(SpecError, match=f"^{place}.{key}: "):
                Spec.from_dict("broken", raw)
