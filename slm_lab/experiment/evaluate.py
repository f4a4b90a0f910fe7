"""Evaluation: what the agent is worth with exploration off, measured without touching its training."""

from slm_lab.agent import Agent
from slm_lab.env import VecEnv, make_env
from slm_lab.lib.rng import set_stream_state, stream_state
from slm_lab.spec import EnvSpec


def evaluate(
    agent: Agent, spec: EnvSpec, seed: int, *, episodes: int, train_env: VecEnv, num_threads: int = 1
) -> list[float]:
    """Play whole episodes in environments of their own; return their raw returns.

    Each environment plays one episode, so that short ones count no more than long ones. The normalisers are those of
    training, frozen; the random streams of the agent are put back afterwards.

    Args:
        agent: plays, with its best known actions.
        spec: the environment.
        seed: seed of the environments.
        episodes: how many.
        train_env: gives the normalisers.
        num_threads: of emulators that have threads.
    """
    streams = agent.algorithm.generators
    before = {name: stream_state(generator) for name, generator in streams.items()}
    env = make_env(spec, seed, num_envs=episodes, training=False, num_threads=num_threads)
    try:
        env.load_normalizers(train_env.normalizer_state())
        returns: dict[int, float] = {}
        for _ in agent.play(env):
            for index, episode_return, _length in env.stats.drain():
                returns.setdefault(index, episode_return)
            if len(returns) == episodes:
                break
    finally:
        env.close()
        for name, generator in streams.items():
            set_stream_state(generator, before[name])
    return [returns[index] for index in range(episodes)]
