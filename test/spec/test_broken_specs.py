"""Every way to get a spec wrong ends in one line: the place, what is wrong, and what to do."""

import json
import re
from copy import deepcopy

import pytest

from slm_lab.spec import Spec, SpecError, load_spec
from slm_lab.spec.variables import set_path

PPO = {
    "agent": {
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
        "net": {"type": "MLPNet", "hid_layers": [64, 64], "optim_spec": {"name": "Adam", "lr": 3e-4}},
    },
    "env": {"name": "CartPole-v1", "num_envs": 4, "max_frame": 200_000},
    "meta": {"max_session": 4},
}
DQN = {
    "agent": {
        "algorithm": {
            "name": "DQN",
            "action_policy": "epsilon_greedy",
            "explore_var_spec": {"name": "linear_decay", "start_val": 1.0, "end_val": 0.1, "end_step": 1000},
            "gamma": 0.99,
            "training_frequency": 4,
            "training_start_step": 100,
        },
        "memory": {"name": "Replay", "batch_size": 32, "max_size": 1000},
        "net": {"type": "MLPNet", "hid_layers": [64], "update_type": "replace", "update_frequency": 100},
    },
    "env": {"name": "CartPole-v1", "max_frame": 10_000},
}
A2C = deepcopy(PPO)
A2C["agent"]["algorithm"] = {"name": "ActorCritic", "gamma": 0.99, "lam": 0.95, "training_frequency": 32}
PER = {"name": "PrioritizedReplay", "batch_size": 32, "max_size": 1000}
SIL = deepcopy(A2C)
SIL["agent"]["algorithm"]["name"] = "SIL"
SIL["agent"]["memory"]["sil_replay"] = {"name": "Replay", "batch_size": 32, "max_size": 1000}
PPOSIL = deepcopy(PPO)
PPOSIL["agent"]["algorithm"]["name"] = "PPOSIL"
PPOSIL["agent"]["memory"]["sil_replay"] = {"name": "Replay", "batch_size": 32, "max_size": 1000}
CONV = {"type": "ConvNet", "conv_hid_layers": [[32, 8, 4, 0, 1]]}
RNN = {"type": "RecurrentNet", "rnn_hidden_size": 8, "seq_len": 16}
C51 = deepcopy(DQN)
C51["agent"]["algorithm"]["value_dist_spec"] = {"name": "C51", "v_min": 0, "v_max": 1}
SAC = deepcopy(DQN)
SAC["agent"]["algorithm"] = {"name": "SoftActorCritic", "gamma": 0.99}
POLYAK = {"update_type": "polyak", "polyak_coef": 0.005}
SAC_NET = {"type": "MLPNet", "hid_layers": [64], **POLYAK}
SAC["agent"]["net"] = SAC_NET
ARC = {
    "type": "TorchArcNet",
    "arc": {
        "modules": {"body": {"Sequential": [{"LazyLinear": {"out_features": 8}}, {"Tanh": {}}]}},
        "graph": {"input": "x", "modules": {"body": ["x"]}, "output": "body"},
    },
}
MISSING = object()

BROKEN = [
    # keys
    (PPO, "agent.algorithm.gama", 0.9, "agent.algorithm.gama: unknown key; did you mean 'gamma'? (known: "),
    (PPO, "agent.algorithm.clip_v_loss", True, "agent.algorithm.clip_v_loss: unknown key; did you mean 'clip_vloss'?"),
    (PPO, "agent.algoritm", {}, "agent.algoritm: unknown key; did you mean 'algorithm'?"),
    (PPO, "agent.net.hidden_layers", [64], "agent.net.hidden_layers: unknown key; did you mean 'hid_layers'?"),
    (PPO, "agent.net.actor_lr", 1e-3, "agent.net.actor_lr: unknown key (known: "),
    (PPO, "agent.net.actor_hid_layrs", [8], "agent.net.actor_hid_layrs: unknown key; did you mean 'actor_hid_layers'?"),
    (PPO, "agent.net.actor_init_sdt", 1, "agent.net.actor_init_sdt: unknown key; did you mean 'actor_init_std'?"),
    (PPO, "env.num_env", 8, "env.num_env: unknown key; did you mean 'num_envs'?"),
    (PPO, "env.normalise_obs", True, "env.normalise_obs: unknown key; did you mean 'normalize_obs'?"),
    (PPO, "meta.log_freq", 500, "meta.log_freq: unknown key; did you mean 'log_frequency'?"),
    (PPO, "metta", {}, "metta: unknown key; did you mean 'meta'?"),
    (DQN, "agent.memory.size", 100, "agent.memory.size: unknown key; did you mean 'max_size'?"),
    # what is missing
    (PPO, "agent", MISSING, "agent: missing (Who learns: algorithm, memory, net)"),
    (PPO, "env.max_frame", MISSING, "env.max_frame: missing (Frames to train for, over all environments)"),
    (PPO, "agent.algorithm", MISSING, "agent.algorithm: missing (How it acts and learns"),
    (PPO, "agent.algorithm.name", MISSING, "agent.algorithm.name: missing; the algorithm: one of Random, Reinforce"),
    (PPO, "agent.algorithm.clip_eps_spec", MISSING, "agent.algorithm.clip_eps_spec: missing (ε over frames"),
    (PPO, "agent.memory", MISSING, "agent.memory: missing; PPO needs OnPolicyBatchReplay"),
    (PPO, "agent.net", MISSING, "agent.net: missing; PPO needs one of MLPNet, ConvNet"),
    (DQN, "agent.algorithm.explore_var_spec", MISSING, "agent.algorithm.explore_var_spec: missing (ε (0 to 1) or τ"),
    (DQN, "agent.memory.max_size", MISSING, "agent.memory.max_size: missing (Transitions kept, over all environments"),
    # kinds
    (PPO, "agent.algorithm.name", "PP0", "agent.algorithm.name: unknown algorithm 'PP0'; did you mean 'PPO'? (known: "),
    (
        PPO,
        "agent.net.type",
        "MLP",
        "agent.net.type: unknown net 'MLP'; did you mean 'MLPNet'? (known: MLPNet, ConvNet, ",
    ),
    (DQN, "agent.memory", {**PER, "alpha": -1}, "agent.memory.alpha: must be at least 0.0, got -1"),
    (
        DQN,
        "agent.memory",
        {**PER, "beta_spec": {"name": "no_decay", "start_val": 2}},
        "agent.memory.beta_spec.start_val: ",
    ),
    (
        PPO,
        "agent.memory",
        DQN["agent"]["memory"],
        "agent.memory.name: Replay does not suit PPO; use OnPolicyBatchReplay",
    ),
    (
        DQN,
        "agent.memory",
        {"name": "OnPolicyReplay"},
        "agent.memory.name: OnPolicyReplay does not suit DQN; use Replay",
    ),
    (PPO, "agent.net.type", [1], "agent.net.type: unknown net [1] (known: MLPNet, ConvNet, "),
    (
        PPO,
        "agent.net.critic_type",
        "ConvNet",
        "agent.net.critic_type: must be 'MLPNet', got \"ConvNet\": both are of one kind; SAC, CrossQ and TD3 take",
    ),
    # types
    (PPO, "env", "CartPole-v1", 'env: must be an object {…}, got "CartPole-v1"'),
    (PPO, "agent.algorithm", "PPO", 'agent.algorithm: must be an object {…}, got "PPO"'),
    (PPO, "env.num_envs", "4", 'env.num_envs: must be a whole number, got "4"'),
    (PPO, "env.num_envs", 4.5, "env.num_envs: must be a whole number, got 4.5"),
    (PPO, "env.num_envs", True, "env.num_envs: must be a whole number, got true"),
    (PPO, "agent.algorithm.gamma", "high", 'agent.algorithm.gamma: must be a number, got "high"'),
    (PPO, "agent.algorithm.clip_eps_spec", 0.2, "agent.algorithm.clip_eps_spec: must be an object {…}, got 0.2"),
    (PPO, "agent.net.hid_layers", 64, "agent.net.hid_layers: must be a list, got 64"),
    (PPO, "agent.net.hid_layers", [64, "x"], 'agent.net.hid_layers.1: must be a whole number, got "x"'),
    (PPO, "agent.net.shared", 1, "agent.net.shared: must be true or false, got 1"),
    (PPO, "agent.net.gpu", "cuda", 'agent.net.gpu: must be true, false or "auto", got "cuda"'),
    (PPO, "agent.net.optim_spec", "Adam", 'agent.net.optim_spec: must be an object {…}, got "Adam"'),
    (PPO, "agent.net.loss_spec", {"beta": 0.1}, "agent.net.loss_spec.name: missing; the name of a class"),
    (PPO, "agent.net.optim_spec.name", ["Adam"], "agent.net.optim_spec.name: missing; the name of a class"),
    (PPO, "agent.net.optim_spec.lr", "3e-4", "agent.net.optim_spec.lr: must be a number > 0, got '3e-4'"),
    (PPO, "agent.net.actor_hid_layers", [0], "agent.net.actor_hid_layers.0: must be at least 1, got 0"),
    (
        PPO,
        "env.clip_reward",
        True,
        'env.clip_reward: must be a number > 0, [low, high], "sign", false or null, got true',
    ),
    (PPO, "env.clip_reward", "signum", "env.clip_reward: must be a number > 0, [low, high]"),
    (PPO, "env.reward_scale", "x", 'env.reward_scale: must be a number, "sign" or null, got "x"'),
    (PPO, "env.wrappers", [{"name": "X"}], "env.wrappers.0.id: missing; name of a wrapper, or my_package:MyWrapper"),
    # ranges
    (PPO, "agent.algorithm.gamma", 99, "agent.algorithm.gamma: must be at most 1.0, got 99"),
    (PPO, "env.max_frame", 0, "env.max_frame: must be at least 1, got 0"),
    (PPO, "env.max_frame", -1e6, "env.max_frame: must be at least 1, got -1000000"),
    (PPO, "meta.max_session", 0, "meta.max_session: must be at least 1, got 0"),
    (PPO, "agent.net.clip_grad_val", 0, "agent.net.clip_grad_val: must be greater than 0.0, got 0"),
    (PPO, "agent.algorithm.clip_eps_spec.name", "linear", "agent.algorithm.clip_eps_spec.name: must be 'no_decay', "),
    (
        PPO,
        "agent.algorithm.clip_eps_spec.start_val",
        -1,
        "agent.algorithm.clip_eps_spec.start_val: must be at least 0.0",
    ),
    (
        DQN,
        "agent.algorithm.explore_var_spec.start_val",
        5,
        "agent.algorithm.explore_var_spec.start_val: must be in [0.0,",
    ),
    (
        DQN,
        "agent.algorithm.action_policy",
        "greedy",
        "agent.algorithm.explore_var_spec: greedy does not read it; remove",
    ),
    (
        DQN,
        "agent.algorithm.action_policy",
        "best",
        "agent.algorithm.action_policy: must be 'greedy', 'epsilon_greedy' or",
    ),
    (DQN, "agent.algorithm.explore_var_spec", None, "agent.algorithm.explore_var_spec: missing (ε (0 to 1) or τ"),
    (DQN, "agent.algorithm.name", "VanillaDQN", "agent.net.update_frequency: VanillaDQN has no target net; remove it"),
    (
        DQN,
        "agent.algorithm.value_dist_spec",
        {"name": "C52"},
        "agent.algorithm.value_dist_spec.name: unknown value dist",
    ),
    (
        DQN,
        "agent.algorithm.value_dist_spec",
        {"name": "C51", "v_min": 1, "v_max": 1},
        "agent.algorithm.value_dist_spec.v_max: 1.0 must be greater than v_min 1.0",
    ),
    (C51, "agent.net.loss_spec", {"name": "L1Loss"}, "agent.net.loss_spec: C51 has a loss of its own; remove it"),
    (PPO, "agent.net.type", "DuelingMLPNet", "agent.net.type: DuelingMLPNet is for action values, and PPO learns none"),
    (PPO, "agent.net.noisy_sigma", 0.5, "agent.net.noisy_sigma: noisy nets are for action values, and PPO"),
    (PPO, "agent.net.critic_noisy_sigma", 0.5, "agent.net.critic_noisy_sigma: noisy nets are for action values, and"),
    (PPO, "agent.algorithm.action_policy", "boltzmann", "agent.algorithm.action_policy: must be 'default', got"),
    (PPO, "env.image_downsize", [84], "env.image_downsize: must have at least 2 entries, got [84]"),
    # what does not fit together
    (PPO, "agent.algorithm.minibatch_size", 100, "= 128 x 4 = 512; use 64 or 128"),
    (
        PPO,
        "agent.algorithm.minibatch_size",
        1024,
        "1024 does not divide time_horizon x num_envs = 128 x 4 = 512; use 512",
    ),
    (PPO, "agent.algorithm.time_horizon", 50, "agent.algorithm.minibatch_size: 128 does not divide"),
    (
        A2C,
        "agent.algorithm.num_step_returns",
        5,
        "agent.algorithm.lam: 0.95 and num_step_returns 5 exclude each other;",
    ),
    (A2C, "agent.algorithm.training_frequency", MISSING, "agent.algorithm.training_frequency: missing"),
    (DQN, "agent.memory.max_size", 16, "agent.memory.max_size: 16 is less than batch_size 32; make it larger"),
    (DQN, "agent.net.log_std_init", 0.0, "agent.net.log_std_init: DQN has no policy; remove it"),
    (DQN, "agent.net.shared", True, "agent.net.shared: DQN has no policy; remove it"),
    (DQN, "agent.net.update_type", "polyak", "agent.net.polyak_coef: missing; update_type polyak needs it, e.g. 0.005"),
    (
        DQN,
        "agent.algorithm.explore_var_spec.end_step",
        MISSING,
        "agent.algorithm.explore_var_spec.end_step: missing; lin",
    ),
    (DQN, "agent.algorithm.explore_var_spec.start_step", 2000, "end_step: 1000 must come after start_step 2000"),
    (PPO, "env.frame_op", "stack", "env.frame_op_len: missing; frame_op needs it"),
    (PPO, "env.frame_op_len", 4, "env.frame_op: missing; frame_op_len needs it"),
    (PPO, "env.clip_reward", [1, -1], "env.clip_reward: must be [low, high] with low < high, got [1.0, -1.0]"),
    (
        PPO,
        "agent.net",
        CONV | {"conv_hid_layers": [[32, 8, 0]]},
        "agent.net.conv_hid_layers.0: only the padding may be 0",
    ),
    (PPO, "agent.net", CONV | {"conv_hid_layers": [[32]]}, "agent.net.conv_hid_layers.0: must have at least 2 entries"),
    (
        PPO,
        "agent.net",
        CONV | {"conv_hid_layers": "alexnet"},
        "agent.net.conv_hid_layers: must be 'nature' or 'impala', got \"alexnet\"",
    ),
    (
        PPO,
        "agent.net",
        CONV | {"conv_hid_layers": "impala", "batch_norm": True},
        "agent.net.batch_norm: the convolutions of impala have none; set it to false",
    ),
    (
        PPO,
        "agent.net",
        {"type": "MLPNet", "hid_layers": [], "spectral_norm": True},
        "agent.net.spectral_norm: is of the last of hid_layers, and there are none; set it to false",
    ),
    (
        PPO,
        "agent.net",
        {"type": "HydraMLPNet", "hid_layers": [64, 64]},
        "agent.net.hid_layers: must be [[heads], [body], [tails]], each of whole numbers from 1 on, got [64, 64]",
    ),
    (
        PPO,
        "agent.net",
        {"type": "HydraMLPNet", "hid_layers": [[], [[64]], []]},
        "agent.net.hid_layers.1: there is one body, so it must be a list of units, got [[64]]",
    ),
    (PPO, "agent.net", {"type": "TorchArcNet"}, "agent.net.arc: missing; the layers, or give arc_file, or actor_arc"),
    (PPO, "agent.net", ARC | {"arc": {"body": []}}, "agent.net.arc: must be an object with modules and graph"),
    (
        PPO,
        "agent.net",
        ARC | {"batch_norm": True},
        "agent.net.batch_norm: TorchArcNet has the layers that it is given;",
    ),
    (PPO, "agent.net", ARC | {"actor_arc": {}}, "agent.net.actor_arc: must be an object with modules and graph"),
    (
        PPO,
        "agent.net",
        ARC | {"arc": ARC["arc"] | {"modules": {"body": []}}},
        'agent.net.arc.modules.body: must be {class: arguments}, e.g. {"Sequential": [{"ReLU": {}}]}',
    ),
    (
        PPO,
        "agent.net",
        ARC | {"arc": ARC["arc"] | {"graph": {"input": "x"}}},
        "agent.net.arc.graph: must be an object with input (a name), modules (name: inputs) and output (a name)",
    ),
    (
        PPO,
        "agent.net",
        ARC | {"arc": ARC["arc"] | {"graph": {"input": "x", "modules": {"boby": ["x"]}, "output": "boby"}}},
        "agent.net.arc.graph.modules.boby: no such module; did you mean 'body'?",
    ),
    (
        PPO,
        "agent.net",
        ARC | {"arc": ARC["arc"] | {"graph": {"input": "x", "modules": {"body": ["y"]}, "output": "body"}}},
        "agent.net.arc.graph.modules.body: 'y' is neither the input nor a module before this one (known: x)",
    ),
    (
        PPO,
        "agent.net",
        ARC | {"arc": ARC["arc"] | {"graph": {"input": "x", "modules": {"body": ["x"]}, "output": "tail"}}},
        "agent.net.arc.graph.output: no such module in the graph (known: x, body)",
    ),
    (
        PPO,
        "agent.net",
        ARC | {"arc": ARC["arc"] | {"modules": ARC["arc"]["modules"] | {"spare": {"ReLU": {}}}}},
        "agent.net.arc.modules.spare: the graph does not use it; remove it",
    ),
    (PPO, "agent.net", ARC | {"arc_file": "a.yaml"}, "agent.net.arc_file: there is arc as well; give one of them"),
    (PPO, "agent.net", {"type": "TorchArcNet", "arc_file": "no.yaml"}, "no.yaml: cannot be read: No such file"),
    (PPO, "agent.net", {"type": "my_pkg.nets:My Net"}, "agent.net.type: must match ^[\\w.]+:\\w+$, got"),
    (PPO, "agent.net", {"type": "my:Net", "inti_fn": "x"}, "agent.net.inti_fn: unknown key; did you mean 'init_fn'?"),
    (
        PPO,
        "agent.net",
        RNN | {"seq_len": 48},
        "agent.algorithm.time_horizon: 128 is not a multiple of agent.net.seq_len 48; use 144, or another seq_len",
    ),
    (A2C, "agent.net", RNN | {"seq_len": 64}, "training_frequency: 32 is not a multiple of agent.net.seq_len 64; use"),
    (SAC, "agent.net", RNN | POLYAK, "agent.net.type: RecurrentNet does not suit SoftActorCritic; use MLPNet or Conv"),
    # roles
    (DQN, "agent.net.actor_hid_layers", [8], "agent.net.actor_hid_layers: no net is made by it; use hid_layers of net"),
    (
        SAC,
        "agent",
        SAC["agent"] | {"net": SAC_NET | {"critic_hid_layers": [8]}, "critic_net": SAC_NET},
        "agent.net.critic_hid_layers: no net is made by it; use hid_layers of critic_net, or remove it",
    ),
    (
        SAC,
        "agent",
        SAC["agent"] | {"critic_net": SAC_NET | {"actor_hid_layers": [8]}},
        "agent.critic_net.actor_hid_layers: no net is made by it; use hid_layers of net, or remove it",
    ),
    (
        PPO,
        "agent.net.lr_scheduler_spec",
        {"name": "LinearToZero"},
        "agent.net.lr_scheduler_spec.frame: missing; the frame",
    ),
    (
        PPO,
        "agent.net.lr_scheduler_spec",
        {"name": "LinearToMin", "frame": 100},
        "agent.net.lr_scheduler_spec.min_factor: must be the share of the learning rate that stays, 0 to 1, got None",
    ),
    (
        PPO,
        "agent.net.batch_renorm",
        {"rmax": 2},
        "agent.net.batch_renorm: must be true, false, or an object {…} of its",
    ),
    (
        PPO,
        "agent.net",
        PPO["agent"]["net"] | {"batch_norm": True, "batch_renorm": True},
        "agent.net.batch_renorm: it takes the place of batch_norm; set one of them to false",
    ),
    # meta and search
    (PPO, "meta.distributed", "sync", 'meta.distributed: must be false, "synced" or "shared", got "sync"'),
    (A2C, "agent.algorithm.symlog", True, "agent.algorithm.symlog: True is not in this version; remove the key"),
    (
        PPO,
        "agent.algorithm.normalize_advantages",
        "batch",
        "agent.algorithm.normalize_advantages: must be 'standardize'",
    ),
    (PPO, "agent.algorithm.target_kl", 0, "agent.algorithm.target_kl: must be greater than 0.0, got 0"),
    (SIL, "agent.memory", {"name": "OnPolicyBatchReplay"}, "agent.memory.sil_replay: missing; Replay or Prior"),
    (SIL, "agent.memory.sil_replay", "Replay", 'agent.memory.sil_replay: must be an object {…}, got "Replay"'),
    (SIL, "agent.memory.sil_replay", [1], "agent.memory.sil_replay: must be an object {…}, got [1]"),
    (SIL, "agent.memory.sil_replay.name", [1], "agent.memory.sil_replay.name: unknown replay [1] (known: Replay, "),
    (SIL, "agent.memory.sil_replay.name", "Replai", "agent.memory.sil_replay.name: unknown replay 'Replai'; did you"),
    (SIL, "agent.algorithm.name", "ActorCritic", "agent.memory.sil_replay: only SIL and PPOSIL replay past episodes;"),
    (PPOSIL, "agent.memory.name", "OnPolicyReplay", "agent.memory.name: OnPolicyReplay does not suit PPOSIL; use OnPo"),
    (PPOSIL, "agent.algorithm.symlog", True, "agent.algorithm.symlog: true does not go with PPOSIL"),
    (PPOSIL, "agent.algorithm.minibatch_size", 100, "100 does not divide time_horizon x num_envs = 128 x 4 = 512;"),
    (PPO, "search", {"gamma": [0, 1]}, "search.gamma: must be a path and a distribution"),
    (PPO, "search", {"agent.algorithm.gamma__choice": 0.9}, "search.agent.algorithm.gamma__choice: must be a list of"),
    (PPO, "agent", [PPO["agent"], PPO["agent"]], "agent: a list of 2; a spec has one, {…}"),
]


@pytest.mark.parametrize(
    ("good", "path", "value", "line"), BROKEN, ids=[f"{path}={line}" for _, path, _, line in BROKEN]
)
def test_broken(good, path, value, line, tmp_path):
    raw = deepcopy(good)
    if value is MISSING:
        above, _, key = path.rpartition(".")
        node = raw
        for part in above.split(".") if above else ():
            node = node[part]
        del node[key]
    else:
        set_path(raw, path, value)
    file = tmp_path / "specs.json"
    file.write_text(json.dumps({"x": raw}))
    with pytest.raises(SpecError) as error:
        load_spec(file)
    text = str(error.value)
    assert line in text
    assert "\n" not in text
    assert re.match(r"[\w.]+: ", text)


@pytest.mark.parametrize("good", [PPO, DQN, A2C, C51], ids=["PPO", "DQN", "A2C", "C51"])
def test_what_they_break_was_whole(good):
    Spec.from_dict("x", good)


def test_the_first_of_several_problems_counts_the_others():
    raw = deepcopy(PPO)
    raw["agent"]["algorithm"] |= {"gama": 1, "lamda": 1}
    raw["env"]["num_envs"] = "4"
    with pytest.raises(SpecError, match=r"^agent\.algorithm\.gama: unknown key.*\(and 2 more\)$"):
        Spec.from_dict("x", raw)


@pytest.mark.parametrize("name", ["a/b", "", "a b"])
def test_a_name_that_cannot_name_files(name):
    with pytest.raises(SpecError, match="name: "):
        Spec.from_dict(name, PPO)


def test_minibatches_that_are_no_whole_sequences():
    raw = deepcopy(PPO)
    raw["agent"]["algorithm"]["minibatch_size"] = 8
    raw["agent"]["net"] = RNN
    with pytest.raises(SpecError, match=r"^agent\.algorithm\.minibatch_size: 8 is not a multiple of .* 16; use 16, or"):
        Spec.from_dict("x", raw)


def test_random_with_a_memory():
    raw = deepcopy(DQN)
    raw["agent"]["algorithm"] = {"name": "Random"}
    with pytest.raises(SpecError, match=r"^agent\.memory: Random has none; remove it$"):
        Spec.from_dict("x", raw)


WORKERS = {"distributed": "synced", "max_session": 2}


def test_random_workers():
    raw = {"agent": {"algorithm": {"name": "Random"}}, "env": PPO["env"], "meta": WORKERS}
    with pytest.raises(SpecError, match=r"^meta\.distributed: Random has no net to train together; set it to false$"):
        Spec.from_dict("x", raw)


def test_a_worker_with_nobody_to_train_with():
    with pytest.raises(
        SpecError, match=r'^meta\.distributed: "shared" needs a max_session of 2 or more, got 1; or set'
    ):
        Spec.from_dict("x", PPO | {"meta": {"distributed": "shared"}})


def test_workers_on_a_gpu():
    raw = {**PPO, "agent": {**PPO["agent"], "net": {**PPO["agent"]["net"], "gpu": True}}, "meta": WORKERS}
    with pytest.raises(SpecError, match=r'^agent\.net\.gpu: true, but the workers of meta\.distributed "synced" share'):
        Spec.from_dict("x", raw)


def test_an_environment_that_does_not_exist():
    from slm_lab.env import make_spaces

    raw = deepcopy(PPO)
    raw["env"]["name"] = "CartPol-v1"
    with pytest.raises(SpecError, match=r"^env\.name: .*CartPole"):
        make_spaces(Spec.from_dict("x", raw).env)
