"""A spec put to work: its agent acts, and learns."""

from slm_lab.agent import Agent
from slm_lab.env import make_env


def learn(spec, events=2):
    """Act until it is time to learn, and learn, as often as that; return the agent."""
    env = make_env(spec.env, seed=0)
    agent = Agent(spec, env, seed=0)
    obs, frame = env.reset(), 0
    while events:
        action = agent.act(obs, frame)
        step = env.step(action)
        agent.observe(obs, action, step)
        obs, frame = step.obs, frame + env.num_envs
        if agent.ready(frame):
            agent.update(frame)
            events -= 1
    env.close()
    return agent
