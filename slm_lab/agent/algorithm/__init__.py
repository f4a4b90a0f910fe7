"""The algorithms: one flat file each, and the table that a spec's `agent.algorithm.name` is looked up in."""

from collections.abc import Callable
from importlib import import_module

from slm_lab.agent.algorithm.base import Algorithm, Setting
from slm_lab.spec import AgentSpec

_HOME = {
    "Random": "random:Random",
    "Reinforce": "reinforce:Reinforce",
    "SARSA": "sarsa:SARSA",
    "VanillaDQN": "dqn:DQN",
    "DQN": "dqn:DQN",
    "DoubleDQN": "dqn:DQN",
    "ActorCritic": "actor_critic:ActorCritic",
    "PPO": "ppo:PPO",
    "SoftActorCritic": "sac:SoftActorCritic",
    "CrossQ": "crossq:CrossQ",
    "TD3": "td3:TD3",
    "SIL": "sil:SIL",
    "PPOSIL": "sil:SIL",
}


def make_algorithm(spec: AgentSpec, setting: Setting) -> Algorithm:
    """Build the algorithm that `spec` names."""
    module, name = _HOME[spec.algorithm.name].split(":")
    build: Callable[[AgentSpec, Setting], Algorithm] = getattr(import_module(f"{__name__}.{module}"), name)
    return build(spec, setting)


__all__ = ["Algorithm", "Setting", "make_algorithm"]
