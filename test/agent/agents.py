"""Small agents, and the loop that trains them."""

from slm_lab.agent import Agent
from slm_lab.env import make_env
from slm_lab.spec import Spec

CONSTANT = {"name": "no_decay", "start_val": 0.01}
EPSILON = {"name": "linear_decay", "start_val": 1.0, "end_val": 0.1, "end_step": 300}

ALGORITHMS = {
    "Random": {"name": "Random"},
    "Reinforce": {"name": "Reinforce", "gamma": 0.9, "training_frequency": 3, "entropy_coef_spec": CONSTANT},
    "A2C": {"name": "ActorCritic", "gamma": 0.9, "lam": 0.9, "training_frequency": 8, "entropy_coef_spec": CONSTANT},
    "A2C n-step": {"name": "ActorCritic", "gamma": 0.9, "num_step_returns": 5},
    "PPO": {
        "name": "PPO",
        "gamma": 0.9,
        "lam": 0.9,
        "clip_eps_spec": {"name": "no_decay", "start_val": 0.2},
        "entropy_coef_spec": CONSTANT,
        "time_horizon": 16,
        "minibatch_size": 8,
        "training_epoch": 2,
    },
    "DQN": {
        "name": "DQN",
        "action_policy": "epsilon_greedy",
        "explore_var_spec": EPSILON,
        "gamma": 0.9,
        "training_frequency": 4,
        "training_start_step": 16,
    },
}
ALGORITHMS["DoubleDQN"] = {**ALGORITHMS["DQN"], "name": "DoubleDQN"}
ALGORITHMS["PPO scaled"] = {
    **ALGORITHMS["PPO"],
    "clip_vloss": True,
    "normalize_advantages": "percentile",
    "normalize_v_targets": True,
    "target_kl": 0.1,
}
ALGORITHMS["SIL"] = {**ALGORITHMS["A2C"], "name": "SIL", "training_iter": 2}
ALGORITHMS["PPOSIL"] = {**ALGORITHMS["PPO"], "name": "PPOSIL", "training_iter": 2}
ALGORITHMS["Cross-entropy"] = {**ALGORITHMS["Reinforce"], "center_return": False}
CRITIC_KEYS = {"gamma": 0.9, "training_frequency": 4, "training_iter": 2, "training_start_step": 16}
OFF_POLICY_ACTOR_CRITICS = {
    "SAC": {"name": "SoftActorCritic", **CRITIC_KEYS},
    "SAC Gumbel": {"name": "SoftActorCritic", "action_pdtype": "GumbelSoftmax", **CRITIC_KEYS},
    "CrossQ": {"name": "CrossQ", **CRITIC_KEYS},
    "TD3": {"name": "TD3", **CRITIC_KEYS},
}
ALGORITHMS |= OFF_POLICY_ACTOR_CRITICS
ACTIONS = {"TD3": "box"}
"""Kind of action where it is not discrete."""
ALGORITHMS["SARSA"] = {
    "name": "SARSA",
    "action_policy": "boltzmann",
    "explore_var_spec": {"name": "linear_decay", "start_val": 1.0, "end_val": 0.5, "end_step": 300},
    "gamma": 0.9,
    "training_frequency": 8,
}
ALGORITHMS["VanillaDQN"] = {**ALGORITHMS["DQN"], "name": "VanillaDQN"}
ALGORITHMS["QR-DQN"] = {**ALGORITHMS["DQN"], "value_dist_spec": {"name": "QR", "num_quantiles": 8}}
ALGORITHMS["Rainbow"] = {
    **ALGORITHMS["DoubleDQN"],
    "action_policy": "greedy",
    "explore_var_spec": None,
    "num_step_returns": 3,
    "value_dist_spec": {"name": "C51", "v_min": -3, "v_max": 5, "num_atoms": 33},
}
ACTION_VALUE_LEARNERS = ["DQN", "DoubleDQN", "VanillaDQN", "QR-DQN", "Rainbow", "SARSA"]
VALUE_LEARNERS = [
    name for name in ALGORITHMS if name not in ("Random", "Reinforce", "Cross-entropy", *OFF_POLICY_ACTOR_CRITICS)
]
POLYAK = {"update_type": "polyak", "polyak_coef": 0.05}
NETS = {
    "SoftActorCritic": POLYAK,
    "TD3": POLYAK,
    "CrossQ": {"critic_batch_renorm": {"momentum": 0.05, "warmup_steps": 50}},
    "Rainbow": {"type": "DuelingMLPNet", "noisy_sigma": 0.5},
}
MEMORIES = {
    "Reinforce": {"name": "OnPolicyReplay"},
    "Cross-entropy": {"name": "OnPolicyCrossEntropy", "cross_entropy": 0.5},
    "ActorCritic": {"name": "OnPolicyBatchReplay"},
    "PPO": {"name": "OnPolicyBatchReplay"},
    "SIL": {"name": "OnPolicyReplay", "sil_replay": {"name": "Replay", "batch_size": 16, "max_size": 200}},
    "PPOSIL": {
        "name": "OnPolicyBatchReplay",
        "sil_replay": {"name": "PrioritizedReplay", "batch_size": 16, "max_size": 200, "beta_spec": CONSTANT},
    },
    "DQN": {"name": "Replay", "batch_size": 16, "max_size": 200},
    "DoubleDQN": {"name": "Replay", "batch_size": 16, "max_size": 200},
    "SoftActorCritic": {"name": "Replay", "batch_size": 16, "max_size": 200},
    "CrossQ": {"name": "Replay", "batch_size": 16, "max_size": 200},
    "TD3": {"name": "Replay", "batch_size": 16, "max_size": 200},
    "VanillaDQN": {"name": "Replay", "batch_size": 16, "max_size": 200},
    "SARSA": {"name": "OnPolicyBatchReplay"},
    "Rainbow": {
        "name": "PrioritizedReplay",
        "batch_size": 16,
        "max_size": 200,
        "beta_spec": {"name": "linear_decay", "start_val": 0.4, "end_val": 1.0, "end_step": 1000},
    },
}


def make_spec(
    algorithm,
    env="Wander",
    *,
    num_envs=1,
    net=None,
    memory=None,
    max_frame=100_000,
    env_keys=None,
    meta=None,
    **keys,
):
    """A spec of one of ALGORITHMS, changed by `keys`, on a probe; `net` and `memory` change those parts."""
    part = {**ALGORITHMS[algorithm], **keys}
    default_net = {"type": "MLPNet", "hid_layers": [16], "hid_layers_activation": "tanh", "clip_grad_val": 1.0}
    default_net["optim_spec"] = {"name": "Adam", "lr": 0.01}
    agent = {"name": algorithm, "algorithm": part}
    if algorithm != "Random":
        agent["memory"] = {**(MEMORIES.get(algorithm) or MEMORIES[part["name"]]), **(memory or {})}
        if (net or {}).get("type", "MLPNet") != "MLPNet":
            del default_net["hid_layers"]
        agent["net"] = {**default_net, **(NETS.get(algorithm) or NETS.get(part["name"], {})), **(net or {})}
        if agent["net"].get("batch_norm"):
            agent["net"].pop("critic_batch_renorm", None)
    env = {"name": f"probes:{env}", "num_envs": num_envs, "max_frame": max_frame}
    env |= {"action": ACTIONS[algorithm]} if algorithm in ACTIONS else {}
    env |= env_keys or {}
    return Spec.from_dict("test", {"agent": agent, "env": env, "meta": meta or {}})


class Run:
    """An agent with its environment, after `frame` frames; `events` are the frames at which it learned."""

    def __init__(self, spec, seed=0, device=None):
        self.env = make_env(spec.env, seed)
        self.agent = Agent(spec, self.env, seed, device)
        self.frame, self.events, self.metrics, self.actions = 0, [], [], []
        self.obs = self.env.reset()

    def train(self, until):
        """Go on until frame `until`."""
        while self.frame < until:
            action = self.agent.act(self.obs, self.frame)
            step = self.env.step(action)
            self.agent.observe(self.obs, action, step)
            self.obs = step.obs
            self.actions.append(action.tolist())
            self.frame += self.env.num_envs
            if self.agent.ready(self.frame):
                self.events.append(self.frame)
                self.metrics.append(self.agent.update(self.frame))
        return self
