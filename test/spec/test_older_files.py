"""Spec files of the older labs load as they are, and their agents learn: the forms of version 4 and of version 5."""

import json

import pytest

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
        {"optim_spec": {"name": "Adam", "lr": 2e-3}},
    ),
    "a2c_nstep": (A2C | {"lam": None, "num_step_returns": 11, "training_frequency": 128}, STEPS, {}),
    "a2c_gae": (A2C | {"lam": 0.95, "num_step_returns": None, "training_frequency": 32}, STEPS, {}),
    "a2c_of_episodes": (A2C | {"lam": 0.95, "training_frequency": 1}, EPISODES, {"use_same_optim": True}),
    "ppo": ({"name": "PPO", "clip_val_loss": False, **PPO}, STEPS, {}),
    "ppo_shared": ({"name": "PPO", **PPO}, STEPS, {"shared": True}),
    "sil": (A2C | {"name": "SIL", "lam": 0.95, "training_frequency": 1, **SIL}, EPISODES | PAST, {}),
    "sil_nstep": (A2C | {"name": "SIL", "num_step_returns": 5, **SIL}, STEPS | PAST | {"use_cer": False}, {}),
    "sil_without_its_coefficients": (
        A2C | {"name": "SIL", "lam": 1.0, "training_frequency": 16, "training_iter": 1},
        STEPS | PAST | {"sil_replay_name": "PrioritizedReplay", "alpha": 0.6, "epsilon": 0.0001},
        {},
    ),
    "ppo_sil": ({"name": "PPOSIL", **PPO, **SIL}, STEPS | PAST, {}),
}


def version_4(name):
    algorithm, memory, net = VERSION_4[name]
    agent = {"name": name, "algorithm": COMMON | algorithm, "memory": memory, "net": MLP | net}
    env = {
        "name": "CartPole-v0",
        "frame_op": None,
        "reward_scale": None,
        "num_envs": 2,
        "max_t": None,
        "max_frame": 1e4,
    }
    meta = {"distributed": False, "log_frequency": 500, "eval_frequency": 500, "rigorous_eval": 0, "max_session": 4}
    search = {"agent": [{"algorithm": {"gamma__choice": [0.9, 0.99]}, "net": {"hid_layers__choice": [[32], [64]]}}]}
    return {
        "agent": [agent],
        "env": [env],
        "body": {"product": "outer", "num": 1},
        "meta": meta | {"max_trial": 4, "search": "RandomSearch", "train_mode": True, "num_cpus": 4},
        "search": search,
    }


def learn(spec):
    """Act until it is time to learn, and learn."""
    env = make_env(spec.env, seed=0)
    agent = Agent(spec, env, seed=0)
    obs, frame, updates = env.reset(), 0, 0
    while updates < 2:
        action = agent.act(obs, frame)
        step = env.step(action)
        agent.observe(obs, action, step)
        obs, frame = step.obs, frame + env.num_envs
        if agent.ready(frame):
            agent.update(frame)
            updates += 1
    env.close()
    assert agent.opt_steps > 0


@pytest.mark.parametrize("name", VERSION_4)
def test_version_4(name, tmp_path):
    file = tmp_path / "specs.json"
    file.write_text(json.dumps({name: version_4(name)}))
    spec = load_spec(file, name)
    assert spec.env.name == "CartPole-v1"
    assert list(spec.search) == ["agent.algorithm.gamma__choice", "agent.net.hid_layers__choice"]
    learn(spec)


@pytest.mark.parametrize("name", ["a2c_gae", "ppo", "ppo_sil"])
def test_version_4_on_atari(name, tmp_path):
    raw = version_4(name)
    raw["agent"][0]["net"] = CONV
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
"""
ARCS = ["reinforce_arc", "a2c_gae_arc", "ppo_arc", "ppo_shared_arc", "ppo_separate_arc", "sil_arc", "ppo_sil_arc"]


@pytest.mark.parametrize("name", ARCS)
def test_version_5(name, tmp_path):
    file = tmp_path / "specs.yaml"
    file.write_text(YAML)
    spec = load_spec(file, name, ["env=CartPole-v1", "max_frame=2e5"])
    assert spec.name == f"{name}_cartpole"
    assert spec.env.normalize_obs
    learn(spec)
