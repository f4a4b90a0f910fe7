"""DQN in one file (Mnih et al. 2015, Nature 518): see the package for the modes."""

from functools import partial
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from torch import Tensor, nn

from bench.meter import Meter
from bench.scripts.parts import Buffer, make_net, make_step
from bench.works import DQN_EPSILON_END, DQN_EPSILON_FRAMES, DQN_MAX_GRAD_NORM, DQN_TARGET_EVERY, Work


def dqn_loss(work: Work, target: nn.Module, net: Any, *batch: Tensor) -> Tensor:
    """Return the loss of a batch of `Buffer.sample`."""
    obs, next_obs, action, reward, alive = batch
    with torch.no_grad():
        wanted = reward + work.gamma * alive * target(next_obs).amax(1)
    q = net(obs).gather(1, action.unsqueeze(1)).squeeze(1)
    return nn.functional.smooth_l1_loss(q, wanted)


def run(work: Work, meter: Meter, threads: int, mode: str) -> None:
    """Train until the meter ends it."""
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    env = gym.make(work.env, disable_env_checker=True)
    obs_dim, actions = env.observation_space.shape[0], int(env.action_space.n)
    net, target = (make_net((obs_dim, *work.hidden), actions) for _ in range(2))
    target.load_state_dict(net.state_dict())
    target.requires_grad_(False)
    loss = partial(dqn_loss, work, target)
    update = make_step(net, loss, mode, work.lr, max_norm=DQN_MAX_GRAD_NORM)
    greedy = torch.compile(net) if mode == "compiled" else net
    buffer = Buffer(work.buffer_size, obs_dim, (), np.int64)
    obs, _ = env.reset(seed=0)
    frame = 0
    while True:
        epsilon = max(DQN_EPSILON_END, 1 - (1 - DQN_EPSILON_END) * frame / DQN_EPSILON_FRAMES)
        if buffer.random.random() < epsilon:
            action = int(buffer.random.integers(actions))
        else:
            with torch.inference_mode():
                action = int(greedy(torch.from_numpy(obs)).argmax())
        next_obs, reward, terminated, truncated, _ = env.step(action)
        buffer.add(obs, next_obs, action, reward, terminated)
        obs = env.reset()[0] if terminated or truncated else next_obs
        frame += 1
        if frame % DQN_TARGET_EVERY == 0:
            target.load_state_dict(net.state_dict())
        if frame >= work.learning_starts:
            update(*buffer.sample(work.batch_size))
            meter(frame)
