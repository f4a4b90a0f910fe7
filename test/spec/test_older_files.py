"""Spec files of the older labs load as they are, and their agents learn: the forms of version 4 and of version 5."""

import json

import pytest
from learning import learn

from slm_lab.agent import Agent
from slm_lab.env import make_env
from slm_lab.spec import load_spec

CONSTANT = {"name": "no_decay", "start_val": 0.01, "end_val": 0.01, "start_step": 0, "end_step": 0}
LINEAR = {"name": "linear_decay", "start_val": 0.01, "end_val": 0.001, "start_step": 1000, "end_step": 4000}
CLIP = {"name": "linear_decay", "start_val": 0.2, "end_val": 0.0, "start_step": 10000, "end_step": 300000}

# --- version 4: lists of one, a body, null for what does not apply, one net key set for all nets

MLP = {
    "type": "MLPNet",
    "shared": False,
    "hid_layers": [64],
    "hid_layers_activation": "tanh",
    "init_fn": "orthogonal_",
    "normalize": False,
    "batch_norm": False,
    "clip_grad_val": 0.5,
    "use_same_optim": False,
    "loss_spec": {"name": "MSELoss"},
    "actor_optim_spec": {"name": "Adam", "lr": 3e-4},
    "critic_optim_spec": {"name": "GlobalAdam", "lr": 1e-3},
    "lr_scheduler_spec": None,
    "gpu": False,
}
CONV = MLP | {
    "type": "ConvNet",
    "shared": True,
    "conv_hid_layers": [[32, 8, 4, 0, 1], [64, 4, 2, 0, 1], [32, 3, 1, 0, 1]],
    "fc_hid_layers": [512],
    "normalize": True,
    "out_layer_activation": None,
    "optim_spec": {"name": "RMSprop", "lr": 7e-4, "alpha": 0.99, "eps": 1e-5},
}
for key in ("hid_layers", "actor_optim_spec", "critic_optim_spec"):
    del CONV[key]
COMMON = {"action_pdtype": "default", "action_policy": "default", "explore_var_spec": None, "gamma": 0.99}
PPO = {
    "clip_eps_spec": CLIP,
    "entropy_coef_spec": CONSTANT,
    "lam": 0.95,
    "val_loss_coef": 0.5,
    "time_horizon": 16,
    "minibatch_size": 8,
    "training_frequency": 1,
    "training_epoch": 2,
}
SIL = {"sil_policy_loss_coef": 1.0, "sil_val_loss_coef": 0.1, "training_batch_iter": 2, "training_iter": 3}
PAST = {"sil_replay_name": "Replay", "batch_size": 8, "max_size": 10000, "use_cer": True}
STEPS, EPISODES = {"name": "OnPolicyBatchReplay"}, {"name": "OnPolicyReplay"}
A2C = {"name": "ActorCritic", "entropy_coef_spec": LINEAR, "policy_loss_coef": 1.0, "val_loss_coef": 0.6}

VERSION_4 = {
    "reinforce": (
        {"name": "Reinforce", "center_return": True, "entropy_coef_spec": LINEAR, "training_frequency": 1},
        EPISODES,
        {"hid_layers": [64], "optim_spec": {"name": "Adam", "lr": 2e-3}},
    ),
    "reinforce_cross_entropy": (
        {"name": "Reinforce", "center_return": False, "entropy_coef_spec": None, "training_frequency": 4},
        {"name": "OnPolicyCrossEntropy", "cross_entropy": 0.2, "batch_size": 16},
        {"optim_spec": {"name": "Adam", "lr": 2e-3}, "loss_spec": {"name": "CrossEntropyLoss"}},
    ),
    "a2c_nstep": (A2C | {"lam": None, "num_step_returns": 11, "training_frequency": 128}, STEPS, {}),
    "a2c_gae": (A2C | {"lam": 0.95, "num_step_returns": None, "training_frequency": 32}, STEPS, {}),
    "a2c_of_episodes": (A2C | {"lam": 0.95, "training_frequency": 1}, EPISODES, {"use_same_optim": True}),
    "ppo": ({"name": "PPO", "clip_val_loss": False, **PPO}, STEPS, {}),
    "ppo_shared": ({"name": "PPO", **PPO}, STEPS, {"shared": True}),
    "ppo_without_minibatch_size": ({"name": "PPO", **PPO, "minibatch_size": None}, STEPS, {"use_same_optim": True}),
    "sil": (A2C | {"name": "SIL", "lam": 0.95, "training_frequency": 1, **SIL}, EPISODES | PAST, {}),
    "sil_nstep": (A2C | {"name": "SIL", "num_step_returns": 5, **SIL}, STEPS | PAST | {"use_cer": False}, {}),
    "sil_without_its_coefficients": (
        A2C | {"name": "SIL", "lam": 1.0, "training_frequency": 16, "training_iter": 1},
        STEPS | PAST | {"sil_replay_name": "PrioritizedReplay", "alpha": 0.6, "epsilon": 0.0001},
        {},
    ),
    "ppo_sil": ({"name": "PPOSIL", **PPO, **SIL}, STEPS | PAST, {}),
}

EPSILON = {"name": "linear_decay", "start_val": 1.0, "end_val": 0.1, "start_step": 0, "end_step": 1000}
GREEDY = {"action_pdtype": "Argmax", "action_policy": "epsilon_greedy", "explore_var_spec": EPSILON}
SOFT = {"action_pdtype": "Categorical", "action_policy": "boltzmann", "explore_var_spec": EPSILON | {"start_val": 3.0}}
ITERATIONS = {"training_batch_iter": 3, "training_iter": 2, "training_frequency": 8, "training_start_step": 32}
REPLAY = {"name": "Replay", "batch_size": 32, "max_size": 10000, "use_cer": True}
PRIORITIZED = REPLAY | {"name": "PrioritizedReplay", "alpha": 0.6, "epsilon": 0.0001}
TARGET = {"update_type": "polyak", "update_frequency": 1, "polyak_coef": 0.005}
GLOBAL = {"optim_spec": {"name": "GlobalAdam", "lr": 1e-4}}
SAC = {"name": "SoftActorCritic", "training_frequency": 1, "training_start_step": 32, "training_iter": 2}
ONE_NET = {
    "type": "MLPNet",
    "hid_layers": [32],
    "hid_layers_activation": "selu",
    "clip_grad_val": None,
    "loss_spec": {"name": "SmoothL1Loss"},
    "optim_spec": {"name": "Adam", "lr": 0.02},
    "lr_scheduler_spec": {"name": "StepLR", "step_size": 500, "gamma": 0.9},
    "gpu": True,
}
RECURRENT = ONE_NET | {
    "type": "RecurrentNet",
    "cell_type": "GRU",
    "fc_hid_layers": [],
    "rnn_hidden_size": 32,
    "rnn_num_layers": 1,
    "bidirectional": False,
    "seq_len": 4,
}
del RECURRENT["hid_layers"]
HYDRA = {"type": "HydraMLPNet", "hid_layers": [[[32], [32]], [64], []]}

VALUES_4 = {
    "sarsa": (SOFT | {"name": "SARSA", "training_frequency": 32}, STEPS, ONE_NET),
    "sarsa_of_episodes": (GREEDY | {"name": "SARSA", "training_frequency": 1}, EPISODES, ONE_NET),
    "vanilla_dqn": (SOFT | ITERATIONS | {"name": "VanillaDQN"}, REPLAY, ONE_NET),
    "dqn": (GREEDY | ITERATIONS | {"name": "DQN"}, REPLAY, ONE_NET | TARGET | {"update_type": "replace"}),
    "dqn_with_still_target": (
        SOFT | ITERATIONS | {"name": "DQN"},
        REPLAY,
        ONE_NET | TARGET | {"polyak_coef": 0},
    ),
    "ddqn_per": (GREEDY | ITERATIONS | {"name": "DoubleDQN"}, PRIORITIZED, ONE_NET | TARGET),
    "dueling_dqn": (GREEDY | ITERATIONS | {"name": "DQN"}, REPLAY, ONE_NET | TARGET | {"type": "DuelingMLPNet"}),
    "drqn": (SOFT | ITERATIONS | {"name": "DQN"}, REPLAY, RECURRENT | TARGET),
    "recurrent_sarsa": (GREEDY | {"name": "SARSA", "training_frequency": 32}, STEPS, RECURRENT),
    "hydra_dqn": (SOFT | ITERATIONS | {"name": "HydraDQN"}, REPLAY, ONE_NET | HYDRA),
    "sac_gumbel": (SAC | {"action_pdtype": "GumbelSoftmax"}, REPLAY, ONE_NET | TARGET),
    "sac_of_the_preview": (
        SAC | {"action_pdtype": "Categorical", "target_entropy_epsilon": 0.2, "training_batch_iter": 1},
        REPLAY,
        ONE_NET | TARGET,
    ),
    "sac_pendulum": (SAC, REPLAY, ONE_NET | TARGET),
    "sac_per_pendulum": (SAC, PRIORITIZED, ONE_NET | TARGET),
    "async_sac_pendulum": (SAC, REPLAY, ONE_NET | TARGET | GLOBAL),
    "sil_recurrent": (A2C | {"name": "SIL", "lam": 0.95, "training_frequency": 1, **SIL}, EPISODES | PAST, RECURRENT),
    "ppo_sil_recurrent": ({"name": "PPOSIL", **PPO, **SIL}, STEPS | PAST, RECURRENT | {"shared": True}),
    "a3c": (A2C | {"lam": 0.95, "training_frequency": 32}, STEPS, MLP),
    "dppo": ({"name": "PPO", **PPO}, STEPS, MLP),
}
WORKERS_4 = {"async_sac_pendulum": "shared", "a3c": "synced", "dppo": "shared", "dqn": "synced"}


def version_4(name):
    algorithm, memory, net = VALUES_4.get(name) or VERSION_4[name]
    agent = {"name": name, "algorithm": COMMON | algorithm, "memory": memory}
    agent["net"] = net if name in VALUES_4 else MLP | net
    env = {
        "name": "Pendulum-v0" if name.endswith("pendulum") else "CartPole-v0",
        "frame_op": None,
        "reward_scale": None,
        "num_envs": 2,
        "max_t": None,
        "max_frame": 1e4,
    }
    meta = {"distributed": WORKERS_4.get(name, False), "log_frequency": 500, "max_session": 4}
    meta |= {"eval_frequency": 500, "rigorous_eval": 0}
    search = {"agent": [{"algorithm": {"gamma__choice": [0.9, 0.99]}, "net": {"hid_layers__choice": [[32], [64]]}}]}
    return {
        "agent": [agent],
        "env": [env],
        "body": {"product": "outer", "num": 1},
        "meta": meta
        | {"rigorous_eval": 0, "max_trial": 4, "search": "RandomSearch", "train_mode": True, "num_cpus": 4},
        "search": search,
    }


@pytest.mark.parametrize("name", [*VERSION_4, *VALUES_4])
def test_version_4(name, tmp_path):
    file = tmp_path / "specs.json"
    file.write_text(json.dumps({name: version_4(name)}))
    spec = load_spec(file, name)
    assert spec.env.name == ("Pendulum-v1" if name.endswith("pendulum") else "CartPole-v1")
    assert spec.meta.distributed == WORKERS_4.get(name, False)
    assert list(spec.search) == ["agent.algorithm.gamma__choice", "agent.net.hid_layers__choice"]
    assert learn(spec).opt_steps > 0


@pytest.mark.parametrize("name", ["a2c_gae", "ppo", "ppo_sil", "ddqn_per", "dueling_dqn", "sac_gumbel"])
def test_version_4_on_atari(name, tmp_path):
    raw = version_4(name)
    off_policy = {"shared": False, "batch_norm": True, **TARGET} if name in VALUES_4 else {}
    raw["agent"][0]["net"] = CONV | off_policy | ({"type": "DuelingConvNet"} if name == "dueling_dqn" else {})
    env = {"name": "PongNoFrameskip-v4", "frame_op": "concat", "frame_op_len": 4, "reward_scale": "sign"}
    raw["env"] = [env | {"num_envs": 2, "max_t": None, "max_frame": 1e7}]
    file = tmp_path / "specs.json"
    file.write_text(json.dumps({name: raw}))
    spec = load_spec(file, name)
    assert spec.env.name == "ALE/Pong-v5"
    env = make_env(spec.env, seed=0)
    assert Agent(spec, env, seed=0).act(env.reset()).shape == (2,)
    env.close()


# --- version 5: YAML with shared parts and variables, nets as arcs, normalised observations and rewards

YAML = """
_meta: &meta {distributed: false, log_frequency: 500, eval_frequency: 500, max_session: 4, max_trial: 1}
_env: &env
  {name: "${env}", num_envs: 4, max_t: null, max_frame: "${max_frame}", normalize_obs: true, normalize_reward: true}
_common: &common
  action_pdtype: default
  action_policy: default
  gamma: 0.99
  entropy_coef_spec: {name: linear_decay, start_val: 0.01, end_val: 0, start_step: 0, end_step: 200000}
_ppo: &ppo
  <<: *common
  name: PPO
  lam: 0.95
  clip_eps_spec: {name: linear_decay, start_val: 0.2, end_val: 0.1, start_step: 0, end_step: 200000}
  val_loss_coef: 0.5
  clip_vloss: true
  clip_val_loss: true
  normalize_v_targets: true
  normalize_advantages: percentile
  symlog: false
  time_horizon: 16
  minibatch_size: 16
  training_epoch: 2
_sil: &sil {sil_policy_loss_coef: 1.0, sil_val_loss_coef: 0.1, training_iter: 1, training_batch_iter: 1}
_past: &past {sil_replay_name: Replay, batch_size: 32, max_size: 10000, use_cer: true}
_arc: &arc
  modules:
    body:
      Sequential:
        - LazyLinear: {out_features: 64}
        - LayerNorm: {normalized_shape: 64}
        - Tanh:
        - LazyLinear: {out_features: 64}
        - Tanh:
  graph:
    input: x
    modules: {body: [x]}
    output: body
_net: &net
  type: TorchArcNet
  shared: false
  arc: *arc
  hid_layers_activation: tanh
  init_fn: orthogonal_
  actor_init_std: 0.01
  critic_init_std: 1.0
  clip_grad_val: 0.5
  use_same_optim: false
  loss_spec: {name: MSELoss}
  actor_optim_spec: {name: AdamW, lr: 3e-4}
  critic_optim_spec: {name: AdamW, lr: 1e-3}
  lr_scheduler_spec: {name: LinearToZero, frame: "${max_frame}"}
  gpu: auto
reinforce_arc:
  agent:
    name: Reinforce
    algorithm: {<<: *common, name: Reinforce, center_return: true, training_frequency: 1}
    memory: {name: OnPolicyReplay}
    net: *net
  env: *env
  meta: *meta
a2c_gae_arc:
  agent:
    name: A2C
    algorithm: {<<: *common, name: ActorCritic, lam: 0.95, num_step_returns: null, policy_loss_coef: 1.0,
                val_loss_coef: 0.5, normalize_v_targets: true, training_frequency: 32}
    memory: {name: OnPolicyBatchReplay}
    net: *net
  env: *env
  meta: *meta
ppo_arc:
  agent: {name: PPO, algorithm: *ppo, memory: {name: OnPolicyBatchReplay}, net: *net}
  env: *env
  meta: *meta
  search: {agent.algorithm.gamma__uniform: [0.9, 0.999], agent.net.actor_optim_spec.lr__loguniform: [1e-4, 1e-2]}
ppo_shared_arc:
  agent:
    {name: PPO, algorithm: *ppo, memory: {name: OnPolicyBatchReplay}, net: {<<: *net, shared: true}}
  env: *env
  meta: *meta
ppo_separate_arc:
  agent:
    name: PPO
    algorithm: *ppo
    memory: {name: OnPolicyBatchReplay}
    net: {type: TorchArcNet, shared: false, actor_arc: *arc, critic_arc: *arc, optim_spec: {name: AdamW, lr: 3e-4}}
  env: *env
  meta: *meta
sil_arc:
  agent:
    name: SIL
    algorithm: {<<: [*common, *sil], name: SIL, lam: 0.95, val_loss_coef: 0.5, training_frequency: 32}
    memory: {<<: *past, name: OnPolicyBatchReplay}
    net: *net
  env: *env
  meta: *meta
ppo_sil_arc:
  agent:
    name: PPOSIL
    algorithm: {<<: [*ppo, *sil], name: PPOSIL}
    memory: {<<: *past, name: OnPolicyBatchReplay}
    net: *net
  env: *env
  meta: *meta
_explore: &explore {name: linear_decay, start_val: 1.0, end_val: 0.05, start_step: 0, end_step: 15000}
_values: &values
  action_pdtype: Categorical
  action_policy: boltzmann
  explore_var_spec: *explore
  gamma: 0.99
  training_batch_iter: 2
  training_iter: 2
  training_frequency: 1
  training_start_step: 32
_q_net: &q_net
  type: TorchArcNet
  arc: *arc
  hid_layers_activation: selu
  clip_grad_val: 0.5
  loss_spec: {name: SmoothL1Loss}
  optim_spec: {name: AdamW, lr: 3e-4}
  update_type: replace
  update_frequency: 75
  gpu: auto
_replay: &replay {name: Replay, batch_size: 32, max_size: 50000, use_cer: true}
_per: &per {<<: *replay, name: PrioritizedReplay, alpha: 0.6, epsilon: 0.0001}
_raw_env: &raw_env {name: "${env}", num_envs: 4, max_t: null, max_frame: "${max_frame}"}
sarsa_arc:
  agent:
    name: SARSA
    algorithm:
      {name: SARSA, action_pdtype: Argmax, action_policy: epsilon_greedy, explore_var_spec: *explore, gamma: 0.99,
       training_frequency: 32}
    memory: {name: OnPolicyBatchReplay}
    net: {type: TorchArcNet, arc: *arc, clip_grad_val: 0.344, optim_spec: {name: RMSprop, lr: 0.0087}}
  env: *raw_env
  meta: *meta
vanilla_dqn_arc:
  agent:
    name: VanillaDQN
    algorithm: {<<: *values, name: VanillaDQN}
    memory: *replay
    net: {type: TorchArcNet, arc: *arc, loss_spec: {name: MSELoss}, optim_spec: {name: AdamW, lr: 0.01}, gpu: auto}
  env: *raw_env
  meta: *meta
dqn_arc:
  agent: {name: DQN, algorithm: {<<: *values, name: DQN}, memory: *replay, net: *q_net}
  env: *raw_env
  meta: {<<: *meta, max_trial: 16, search_scheduler: {grace_period: 20000, reduction_factor: 3}}
  search: {agent.net.update_frequency__qrandint: [50, 150, 25]}
ddqn_per_arc:
  agent: {name: DoubleDQN, algorithm: {<<: *values, name: DoubleDQN}, memory: *per, net: *q_net}
  env: *raw_env
  meta: *meta
_sac: &sac
  name: SoftActorCritic
  action_pdtype: default
  action_policy: default
  gamma: 0.99
  training_frequency: 1
  training_iter: 4
  training_start_step: 32
_sac_net: &sac_net
  {<<: *q_net, init_fn: orthogonal_, clip_grad_val: null, lr_scheduler_spec: null, update_type: polyak,
   update_frequency: 1, polyak_coef: 0.005}
sac_arc:
  agent:
    name: SAC
    algorithm: {<<: *sac, symlog: true, policy_delay: 2, alpha_lr: 1e-4, log_alpha_max: 0.5, log_alpha_min: -5.0,
                entropy_anneal: {start_ratio: 0.9, end_ratio: 0.4, frames: 10000}, spectral_norm: true}
    memory: {<<: *replay, use_cer: false}
    net: *sac_net
  env: *raw_env
  meta: *meta
sac_per_arc:
  agent: {name: SAC, algorithm: {<<: *sac, target_entropy: auto}, memory: *per, net: *sac_net}
  env: *env
  meta: *meta
async_sac_arc:
  agent: {name: SAC, algorithm: *sac, memory: *replay, net: {<<: *sac_net, optim_spec: {name: GlobalAdam, lr: 1e-4}}}
  env: *raw_env
  meta: {<<: *meta, distributed: shared}
_crossq: &crossq {<<: *sac, name: CrossQ, policy_delay: 3, log_alpha_max: 0.5}
crossq_arc:
  agent:
    name: CrossQ
    algorithm: *crossq
    memory: *replay
    net: {type: MLPNet, hid_layers: [64], hid_layers_activation: relu, layer_norm: true, out_layer_activation: null,
          optim_spec: {name: Adam, lr: 1e-3, betas: [0.5, 0.999]}, gpu: auto}
    critic_net:
      type: TorchArcNet
      arc:
        modules:
          body:
            Sequential:
              - LazyLinear: {out_features: 64}
              - LazyBatchRenorm1d: {momentum: 0.01, eps: 0.001, warmup_steps: 10000}
              - ReLU: {}
              - LazyLinear: {out_features: 64}
              - LazyBatchNorm1d: {}
              - ReLU:
        graph: {input: x, modules: {body: [x]}, output: body}
      hid_layers_activation: relu
      init_fn: orthogonal_
      clip_grad_val: 1.0
      optim_spec: {name: Adam, lr: 1e-3, betas: [0.5, 0.999]}
  env: *raw_env
  meta: *meta
crossq_batch_norm:
  agent:
    name: CrossQ
    algorithm: *crossq
    memory: *replay
    net: {type: MLPNet, hid_layers: [64], hid_layers_activation: relu, batch_norm: true, optim_spec: {name: Adam}}
  env: *raw_env
  meta: *meta
sac_atari_arc:
  agent:
    name: SAC
    algorithm: {<<: *sac, action_pdtype: Categorical, training_frequency: 4}
    memory: *replay
    net:
      <<: *sac_net
      shared: false
      arc:
        modules:
          body:
            Sequential:
              - LazyConv2d: {out_channels: 8, kernel_size: 8, stride: 4}
              - ReLU:
              - LazyConv2d: {out_channels: 8, kernel_size: 4, stride: 2}
              - ReLU:
              - Flatten:
              - LazyLinear: {out_features: 32}
              - ReLU:
        graph: {input: x, modules: {body: [x]}, output: body}
  env: {<<: *raw_env, life_loss_info: true, scale_obs: true}
  meta: *meta
"""
EITHER = ["sac_arc", "sac_per_arc", "async_sac_arc", "crossq_arc", "crossq_batch_norm"]
"""Specs for discrete and for continuous actions."""
VALUES = ["sarsa_arc", "vanilla_dqn_arc", "dqn_arc", "ddqn_per_arc"]
ARCS = ["reinforce_arc", "a2c_gae_arc", "ppo_arc", "ppo_shared_arc", "ppo_separate_arc", "sil_arc", "ppo_sil_arc"]


def test_version_5_on_atari(tmp_path):
    file = tmp_path / "specs.yaml"
    file.write_text(YAML)
    spec = load_spec(file, "sac_atari_arc", ["env=ALE/Pong-v5", "max_frame=2e5"])
    assert spec.agent.net.normalize
    assert learn(spec).opt_steps > 0


CARTPOLE, PENDULUM = ("CartPole-v1", "cartpole"), ("Pendulum-v1", "pendulum")


@pytest.mark.parametrize(
    ("name", "env"), [(name, CARTPOLE) for name in [*ARCS, *VALUES, *EITHER]] + [(name, PENDULUM) for name in EITHER]
)
def test_version_5(name, env, tmp_path):
    file = tmp_path / "specs.yaml"
    file.write_text(YAML)
    spec = load_spec(file, name, [f"env={env[0]}", "max_frame=2e5"])
    assert spec.name == f"{name}_{env[1]}"
    assert spec.env.normalize_obs == (name in [*ARCS, "sac_per_arc"])
    assert spec.meta.distributed == ("shared" if name.startswith("async") else False)
    assert learn(spec).opt_steps > 0
