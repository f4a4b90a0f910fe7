"""Older forms: each loads as what it meant, and says so in one line."""

from copy import deepcopy

import pytest
from loguru import logger

from slm_lab.spec import Spec, SpecError, load_spec
from slm_lab.spec.upgrade import upgrade

V4 = {
    "agent": [
        {
            "name": "A2C",
            "algorithm": {
                "name": "ActorCritic",
                "action_pdtype": "default",
                "action_policy": "default",
                "explore_var_spec": None,
                "gamma": 0.99,
                "lam": None,
                "num_step_returns": 11,
                "entropy_coef_spec": {
                    "name": "no_decay",
                    "start_val": 0.01,
                    "end_val": 0.01,
                    "start_step": 0,
                    "end_step": 0,
                },
                "val_loss_coef": 1.0,
                "training_frequency": 128,
            },
            "memory": {"name": "OnPolicyBatchReplay"},
            "net": {
                "type": "MLPNet",
                "shared": False,
                "hid_layers": [64],
                "hid_layers_activation": "relu",
                "normalize": True,
                "use_same_optim": False,
                "actor_optim_spec": {"name": "GlobalAdam", "lr": 2e-3},
                "critic_optim_spec": {"name": "RAdam", "lr": 1e-3},
                "lr_scheduler_spec": None,
                "gpu": False,
            },
        }
    ],
    "env": [
        {
            "name": "LunarLander-v2",
            "frame_op": "concat",
            "frame_op_len": 4,
            "max_t": None,
            "max_frame": 300000,
            "num_envs": 8,
            "normalize_state": False,
        }
    ],
    "body": {"product": "outer", "num": 1},
    "meta": {"distributed": False, "log_frequency": 1000, "max_session": 4, "max_trial": 1, "train_mode": True},
    "search": {"agent": [{"algorithm": {"lam__grid_search": [0.7, 0.8]}, "net": {"hid_layers_choice": [[32], [64]]}}]},
}
EMPTY = {"agent": {"algorithm": {}, "memory": {}, "net": {}}, "env": {}, "meta": {}}


@pytest.fixture
def lines():
    said = []
    sink = logger.add(lambda message: said.append(str(message).rstrip("\n")), format="{level}: {message}")
    yield said
    logger.remove(sink)


def upgraded(section, **keys):
    """Upgrade an otherwise empty spec with `keys` in `section`; return the section."""
    raw = deepcopy(EMPTY)
    node = raw
    for part in section.split("."):
        node = node[part]
    node |= keys
    raw = upgrade(raw)
    for part in section.split("."):
        raw = raw[part]
    return raw


def test_a_file_of_version_4_runs_as_it_is(lines):
    spec = Spec.from_dict("a2c", upgrade(V4))
    assert spec.env.name == "LunarLander-v3"
    assert spec.env.normalize_obs is False
    assert spec.agent.algorithm.training_frequency == 11
    assert spec.agent.net.for_role("actor").optim_spec == {"name": "Adam", "lr": 2e-3}
    assert spec.agent.net.for_role("critic").optim_spec == {"name": "RAdam", "lr": 1e-3}
    assert spec.search == {
        "agent.algorithm.lam__grid_search": [0.7, 0.8],
        "agent.net.hid_layers__choice": [[32], [64]],
    }
    assert lines == [
        "INFO: agent: [{…}] is read as {…}",
        "INFO: env: [{…}] is read as {…}",
        "WARNING: body: nothing reads it; ignored",
        "WARNING: meta.train_mode: nothing reads it; ignored",
        "WARNING: agent.net.normalize: MLPNet does not read it; ignored",
        "WARNING: agent.algorithm.training_frequency: 128 is read as num_step_returns 11, as it always was",
        "INFO: agent.net.actor_optim_spec.name: GlobalAdam is read as Adam",
        "INFO: env.name: LunarLander-v2 is read as LunarLander-v3",
        "INFO: env.normalize_state is read as env.normalize_obs",
        "INFO: search: keys are read as paths, e.g. agent.algorithm.lam__grid_search",
    ]


def test_what_is_current_is_left_alone(lines):
    current = Spec.from_dict("a2c", upgrade(V4)).to_dict()
    lines.clear()
    assert upgrade(current) == current
    assert lines == []


def test_the_raw_spec_is_not_changed():
    before = deepcopy(V4)
    upgrade(V4)
    assert before == V4


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("CartPole-v0", "CartPole-v1"),
        ("Pendulum-v0", "Pendulum-v1"),
        ("LunarLanderContinuous-v2", "LunarLanderContinuous-v3"),
        ("BipedalWalker-v2", "BipedalWalker-v3"),
        ("PongNoFrameskip-v4", "ALE/Pong-v5"),
        ("SpaceInvadersNoFrameskip-v4", "ALE/SpaceInvaders-v5"),
        ("RoboschoolHalfCheetah-v1", "HalfCheetah-v5"),
        ("Humanoid-v2", "Humanoid-v5"),
        ("Acrobot-v1", "Acrobot-v1"),
        ("ALE/Pong-v5", "ALE/Pong-v5"),
    ],
)
def test_environments_that_have_another_name_now(old, new):
    assert upgraded("env", name=old)["name"] == new


@pytest.mark.parametrize(
    ("section", "keys", "rest", "line"),
    [
        ("agent.algorithm", {"name": "PPO", "clip_val_loss": False}, {"name": "PPO"}, "agent.algorithm.clip_val_loss"),
        ("agent.algorithm", {"name": "PPO", "training_frequency": 1}, {"name": "PPO"}, "PPO does not read it; ignored"),
        (
            "agent.memory",
            {"name": "OnPolicyReplay", "batch_size": 1},
            {"name": "OnPolicyReplay"},
            "agent.memory.batch_",
        ),
        ("env", {"vectorization_mode": "async"}, {}, "env.vectorization_mode: nothing reads it; ignored"),
        ("meta", {"num_cpus": 4, "search": "RandomSearch"}, {}, "meta.num_cpus: nothing reads it; ignored"),
        (
            "meta",
            {"git_sha": "x", "random_seed": 5, "graph_prepath": "y"},
            {},
            "meta: git_sha, random_seed, graph_prepath",
        ),
        ("agent.algorithm", {"action_pdtype": "NormalTanh"}, {"action_pdtype": "default"}, "there is no NormalTanh"),
        ("agent.algorithm", {"name": "Random", "training_frequency": 4}, {"name": "Random"}, "Random does not read it"),
        (
            "agent",
            {"algorithm": {"name": "Random"}},
            {"algorithm": {"name": "Random"}},
            "agent.memory: Random has none",
        ),
    ],
)
def test_keys_that_nothing_ever_read(lines, section, keys, rest, line):
    assert upgraded(section, **keys) == rest
    assert any(line in said for said in lines)


def test_null_says_that_a_key_of_another_kind_does_not_apply(lines):
    kept = {"name": "PPO", "gama": None}
    assert upgraded("agent.algorithm", explore_var_spec=None, num_step_returns=None, **kept) == kept
    assert upgraded("agent.net", type="MLPNet", conv_hid_layers=None) == {"type": "MLPNet"}
    assert lines == []


@pytest.mark.parametrize(("key", "off", "on"), [("symlog", False, True), ("normalize_advantages", "standardize", "x")])
def test_what_is_not_there_yet_may_be_off(key, off, on):
    assert upgraded("agent.algorithm", name="Reinforce", **{key: off}) == {"name": "Reinforce"}
    with pytest.raises(SpecError, match=f"^agent.algorithm.{key}: {on!r} is not in this version; remove the key$"):
        upgraded("agent.algorithm", name="Reinforce", **{key: on})


@pytest.mark.parametrize("mode", ["synced", "shared"])
def test_one_session_has_nobody_to_train_with(lines, mode):
    assert upgraded("meta", distributed=mode, max_session=1)["distributed"] is False
    assert f'WARNING: meta.distributed: "{mode}" is read as false, as one session has nobody to train with' in lines
    assert upgraded("meta", distributed=mode, max_session=2)["distributed"] == mode


def test_a_mode_that_there_is_not_is_left_to_be_refused(lines):
    assert upgraded("meta", distributed="async", max_session=1)["distributed"] == "async"
    assert not any("meta.distributed" in line for line in lines)


def test_a_shared_net_takes_what_its_actor_was_given(lines):
    net = upgraded(
        "agent.net",
        type="MLPNet",
        shared=True,
        actor_optim_spec={"name": "Adam", "lr": 0.02},
        critic_optim_spec={"name": "Adam", "lr": 0.01},
        actor_init_std=0.01,
    )
    assert net == {"type": "MLPNet", "shared": True, "optim_spec": {"name": "Adam", "lr": 0.02}, "actor_init_std": 0.01}
    assert len(lines) == 2


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (
            {"sil_replay_name": "Replay", "batch_size": 32, "max_size": 10000, "use_cer": True, "alpha": 0.6},
            {"name": "Replay", "batch_size": 32, "max_size": 10000, "use_cer": True},
        ),
        ({"batch_size": 32, "max_size": 10000}, {"name": "Replay", "batch_size": 32, "max_size": 10000}),
        (
            {"sil_replay_name": "PrioritizedReplay", "batch_size": 32, "max_size": 100, "alpha": 0.6, "epsilon": 1e-4},
            {
                "name": "PrioritizedReplay",
                "batch_size": 32,
                "max_size": 100,
                "alpha": 0.6,
                "epsilon": 1e-4,
                "beta_spec": {"name": "no_decay", "start_val": 0.1},
            },
        ),
    ],
)
def test_the_replay_of_past_episodes_has_keys_of_its_own(old, new, lines):
    raw = deepcopy(EMPTY)
    raw["agent"] |= {"algorithm": {"name": "SIL"}, "memory": {"name": "OnPolicyReplay", **old}}
    upgraded = upgrade(raw)
    assert upgraded["agent"]["memory"] == {"name": "OnPolicyReplay", "sil_replay": new}
    assert "read as those of sil_replay" in lines[0]
    lines.clear()
    assert upgrade(upgraded) == upgraded
    assert lines == []


def test_the_steps_of_a_deep_q_network_are_no_batch(lines):
    keys = {"name": "DQN", "num_step_returns": 3, "training_frequency": 4}
    assert upgraded("agent.algorithm", **keys) == keys
    assert lines == []


@pytest.mark.parametrize(("old", "new"), [("HydraDQN", "DQN"), ("DQNBase", "VanillaDQN")])
def test_algorithms_that_have_another_name_now(lines, old, new):
    assert upgraded("agent.algorithm", name=old, action_pdtype="Argmax") == {"name": new}
    assert lines[0] == f"INFO: agent.algorithm.name: {old} is read as {new}"


@pytest.mark.parametrize(("form", "gpu"), [({"body": {"num": 1}}, "auto"), ({}, True)])
def test_a_gpu_was_used_where_there_was_one(form, gpu):
    raw = deepcopy(EMPTY) | form
    raw["agent"]["net"] = {"type": "MLPNet", "gpu": True}
    assert upgrade(raw)["agent"]["net"]["gpu"] == gpu


def test_a_target_net_that_stood_still_moves(lines):
    raw = deepcopy(EMPTY)
    raw["agent"]["algorithm"]["name"] = "DQN"
    raw["agent"]["net"] = {"update_type": "polyak", "update_frequency": 128, "polyak_coef": 0}
    assert upgrade(raw)["agent"]["net"] == {"update_type": "replace", "update_frequency": 128}
    assert lines[-1].endswith("0 would never move the target net; read as update_type replace")
    raw["agent"]["net"]["polyak_coef"] = 0.01
    assert upgrade(raw)["agent"]["net"] == raw["agent"]["net"]


def test_sequences_are_not_mixed_with_the_newest_steps(lines):
    raw = deepcopy(EMPTY)
    raw["agent"] |= {"memory": {"name": "Replay", "use_cer": True}, "net": {"type": "RecurrentNet"}}
    assert upgrade(raw)["agent"]["memory"]["use_cer"] is False
    assert "WARNING: agent.memory.use_cer" in lines[0]
    raw["agent"]["net"]["type"] = "MLPNet"
    assert upgrade(raw)["agent"]["memory"]["use_cer"] is True


@pytest.mark.parametrize(
    ("nets", "path", "key"),
    [
        ({"net": {"type": "MLPNet"}}, "net", "critic_spectral_norm"),
        ({"net": {"type": "MLPNet"}, "critic_net": {"type": "ConvNet"}}, "critic_net", "spectral_norm"),
        ({"net": {"type": "TorchArcNet"}}, "net", None),
    ],
)
def test_spectral_norm_is_a_key_of_the_net(lines, nets, path, key):
    raw = deepcopy(EMPTY)
    raw["agent"] |= {"algorithm": {"name": "SoftActorCritic", "spectral_norm": True}, **nets}
    upgraded = upgrade(raw)["agent"]
    assert upgraded["algorithm"] == {"name": "SoftActorCritic"}
    assert upgraded[path] == nets[path] | ({key: True} if key else {})
    assert len(lines) == 1


@pytest.mark.parametrize(("net", "num_envs", "size"), [("MLPNet", 1, 4), ("MLPNet", 3, 6), ("RecurrentNet", 1, 8)])
def test_a_minibatch_had_four_transitions(lines, net, num_envs, size):
    raw = deepcopy(EMPTY)
    raw["agent"] |= {"algorithm": {"name": "PPO", "time_horizon": 32}, "net": {"type": net}}
    raw["agent"]["net"] |= {"seq_len": 8} if net == "RecurrentNet" else {}
    raw["env"]["num_envs"] = num_envs
    assert upgrade(raw)["agent"]["algorithm"]["minibatch_size"] == size
    assert lines == [f"INFO: agent.algorithm.minibatch_size: missing; {size}, as it always was"]
    raw["agent"]["algorithm"]["minibatch_size"] = 16
    assert upgrade(raw)["agent"]["algorithm"]["minibatch_size"] == 16


@pytest.mark.parametrize("policy", ["epsilon_greedy", "boltzmann", "greedy", "default", "random"])
def test_policies_of_several_actions_are_those_of_one(lines, policy):
    assert upgraded("agent.algorithm", action_policy=f"multi_{policy}") == {"action_policy": policy}
    assert lines == [f"INFO: agent.algorithm.action_policy: multi_{policy} is read as {policy}"]


def test_lookahead_is_its_inner_optimizer():
    net = upgraded(
        "agent.net", optim_spec={"name": "Lookahead", "optimizer": "RAdam", "lr": 0.01, "k": 5, "alpha": 0.5}
    )
    assert net == {"optim_spec": {"name": "RAdam", "lr": 0.01}}


def test_importance_weights_of_older_prioritised_replays_are_annealed(lines):
    raw = deepcopy(EMPTY)
    raw["agent"]["memory"] = {"name": "PrioritizedReplay", "alpha": 0.6}
    raw["env"]["max_frame"] = 3e5
    beta = {"name": "linear_decay", "start_val": 0.4, "end_val": 1.0, "end_step": 3e5}
    assert upgrade(raw)["agent"]["memory"] == {"name": "PrioritizedReplay", "alpha": 0.6, "beta_spec": beta}
    assert lines == ["INFO: agent.memory.beta_spec: missing; from 0.4 to 1 at env.max_frame 300000"]
    constant = {"name": "no_decay", "start_val": 1.0}
    raw["agent"]["memory"]["beta_spec"] = constant
    assert upgrade(raw)["agent"]["memory"]["beta_spec"] == constant


def test_a_sequence_length_is_a_frame_stack():
    raw = deepcopy(EMPTY)
    raw["agent"]["net"] = {"type": "MLPNet", "seq_len": 4}
    raw = upgrade(raw)
    assert raw["env"] == {"frame_op": "stack", "frame_op_len": 4}
    assert raw["agent"]["net"] == {"type": "MLPNet"}


@pytest.mark.parametrize("scale", [True, False])
def test_pixels_are_scaled_by_the_net(lines, scale):
    raw = deepcopy(EMPTY)
    raw["env"]["scale_obs"] = scale
    raw["agent"] |= {"net": {"type": "TorchArcNet"}, "critic_net": {"type": "ConvNet"}}
    upgraded = upgrade(raw)
    assert upgraded["env"] == {}
    assert [upgraded["agent"][net].get("normalize", False) for net in ("net", "critic_net")] == [scale, scale]
    assert len(lines) == scale


def test_a_recurrent_net_has_sequences_of_its_own(lines):
    net = {"type": "RecurrentNet", "rnn_hidden_size": 8, "seq_len": 4}
    raw = deepcopy(EMPTY)
    raw["agent"]["net"] = {**net, "bidirectional": True}
    assert upgrade(raw)["agent"]["net"] == net
    assert raw["env"] == {}
    assert lines == ["WARNING: agent.net.bidirectional: RecurrentNet does not read it; ignored"]


def test_a_search_by_old_paths():
    raw = deepcopy(EMPTY) | {"search": [{"agent.0.net.lr__uniform": [0, 1], "env": {"num_envs__choice": [1, 2]}}]}
    assert upgrade(raw)["search"] == {"agent.net.lr__uniform": [0, 1], "env.num_envs__choice": [1, 2]}


@pytest.mark.parametrize("count", [0, 2])
def test_a_spec_has_one_agent(count):
    with pytest.raises(SpecError, match=f"^agent: a list of {count}; a spec has one, {{…}}$"):
        upgrade({"agent": [{}] * count})


def test_a_run_too_short_to_learn_anything_is_announced(lines):
    load_spec("demo.json", "dqn_cartpole", ["env.max_frame=100", "agent.algorithm.training_start_step=100"])
    assert lines == [
        "WARNING: agent.algorithm.training_start_step: 100 is not before env.max_frame 100, so it will not learn"
    ]


def test_values_that_never_explore_are_announced(lines):
    keys = ["agent.algorithm.action_policy=greedy", "agent.algorithm.explore_var_spec=null"]
    load_spec("demo.json", "dqn_cartpole", keys)
    assert lines == ["WARNING: agent.algorithm.action_policy: greedy without agent.net.noisy_sigma never explores"]
    load_spec("benchmark/rainbow/rainbow_cartpole.json", "rainbow_cartpole")
    assert len(lines) == 1


def test_what_crossq_does_not_read_and_what_it_lacks_is_announced(lines):
    keys = ["agent.critic_net.polyak_coef=0.1", "agent.critic_net.batch_renorm=false"]
    load_spec("benchmark/crossq/crossq_cartpole.json", "crossq_cartpole", keys)
    assert [line.partition(": ")[2] for line in lines] == [
        "agent.critic_net.polyak_coef: CrossQ has no target nets; ignored",
        "agent.critic_net: CrossQ's critics have no target nets to steady them, give them batch_renorm",
    ]
