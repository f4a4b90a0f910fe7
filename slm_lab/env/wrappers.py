"""What the lab does to observations and rewards of a whole vector of environments, between backend and agent."""

from collections.abc import Callable

import numpy as np
from gymnasium.spaces import Box

from slm_lab.env.vec_env import State, Step, VecEnv

EPSILON = 1e-8


class VecWrapper(VecEnv):
    """Passes everything through; a wrapper overrides what it changes.

    Attributes:
        key: name of its own part of the state; empty if it has none.
    """

    key = ""

    def __init__(self, env: VecEnv) -> None:
        self.env = env
        self.num_envs, self.stats, self.frame_stack = env.num_envs, env.stats, env.frame_stack
        self.obs_space, self.action_space = env.obs_space, env.action_space

    def reset(self) -> np.ndarray:
        """Start an episode in every environment."""
        self.obs = self.begin(self.env.reset())
        return self.obs

    def step(self, action: np.ndarray) -> Step:
        """Act in every environment."""
        step = self.env.step(action)
        self.obs = step.obs
        return step

    def begin(self, obs: np.ndarray) -> np.ndarray:
        """Return what the agent sees of the first observations `obs` of all environments."""
        return obs

    def resume(self, obs: np.ndarray, state: State) -> np.ndarray:
        """Load the own part of a state and return what the agent saw of the observations `obs` then."""
        self.load(state)
        return obs

    def own_state(self) -> State:
        """Return the own part of the state."""
        return {}

    def load(self, state: State) -> None:
        """Load those parts of the own state that outlive an episode."""

    def state_dict(self) -> State:
        """Return the state of the environments with the own part beside it."""
        state = self.env.state_dict()
        return state | {self.key: self.own_state()} if self.key else state

    def load_state_dict(self, state: State) -> bool:
        """Go on from `state`; the own statistics are restored even where the episodes are not."""
        exact = self.env.load_state_dict(state)
        own = state[self.key] if self.key else {}
        if exact:
            self.obs = self.resume(self.env.obs, own)
        else:
            self.load(own)
            self.obs = self.begin(self.env.obs)
        return exact

    def normalizer_state(self) -> State:
        """Return copies of the statistics of the normalisers."""
        return self.env.normalizer_state()

    def load_normalizers(self, state: State) -> None:
        """Take over the statistics of another environment."""
        self.env.load_normalizers(state)

    def render(self) -> np.ndarray | None:
        """Return the picture of the first environment."""
        return self.env.render()

    def close(self) -> None:
        """Free what the environments hold."""
        self.env.close()


class Moments:
    """Running mean and variance of rows, in float64, by the parallel form of Welford's method (Chan et al. 1979).

    Begins, as gymnasium's does, with a weight of 1e-4 on mean 0 and variance 1, so that no variance is ever 0.
    """

    def __init__(self, shape: tuple[int, ...]) -> None:
        self.mean, self.var, self.count = np.zeros(shape), np.ones(shape), 1e-4

    def update(self, rows: np.ndarray) -> None:
        """Take `rows` [B, *shape] in. Mean and variance are new arrays then; the old ones stay as they are."""
        added = len(rows)
        mean = np.add.reduce(rows, 0, np.float64) / added
        spread = np.square(rows - mean)
        total = self.count + added
        delta = mean - self.mean
        self.mean = self.mean + delta * (added / total)
        squares = self.var * self.count + np.add.reduce(spread, 0) + np.square(delta) * (self.count * added / total)
        self.var, self.count = squares / total, total

    def state_dict(self) -> State:
        """Return mean, variance and count."""
        return {"mean": self.mean, "var": self.var, "count": self.count}

    def load_state_dict(self, state: State) -> None:
        """Take over `state`."""
        self.mean, self.var, self.count = np.array(state["mean"]), np.array(state["var"]), float(state["count"])


class _Normalizer(VecWrapper):
    """A wrapper with moments; `training=False` freezes them."""

    def __init__(self, env: VecEnv, shape: tuple[int, ...], training: bool) -> None:
        super().__init__(env)
        self.moments, self.training = Moments(shape), training

    def own_state(self) -> State:
        """Return the moments."""
        return self.moments.state_dict()

    def load(self, state: State) -> None:
        """Load the moments."""
        self.moments.load_state_dict(state)

    def normalizer_state(self) -> State:
        """Return copies of the statistics of this normaliser and those below."""
        return self.env.normalizer_state() | {self.key: self.moments.state_dict()}

    def load_normalizers(self, state: State) -> None:
        """Take over the statistics of another environment."""
        self.env.load_normalizers(state)
        self.moments.load_state_dict(state[self.key])


class NormalizeObs(_Normalizer):
    """Observations with mean 0 and variance 1 over all that all environments have shown so far, clipped to ±`clip`.

    `final_obs` is normalised alike but does not count: once per step, every environment adds one observation.
    """

    key = "normalize_obs"

    def __init__(self, env: VecEnv, clip: float | None = 10.0, training: bool = True) -> None:
        super().__init__(env, env.obs_space.shape, training)
        bound = np.inf if clip is None else clip
        self.obs_space = Box(-bound, bound, env.obs_space.shape, np.float32)
        self._clip = clip

    def begin(self, obs: np.ndarray) -> np.ndarray:
        """Count the first observations as well."""
        if self.training:
            self.moments.update(obs)
        return self._normalize(obs)

    def resume(self, obs: np.ndarray, state: State) -> np.ndarray:
        """Normalise by the moments of then."""
        self.load(state)
        return self._normalize(obs)

    def step(self, action: np.ndarray) -> Step:
        """Act, and normalise what comes back."""
        obs, reward, terminated, truncated, final_obs = self.env.step(action)
        self.obs = self.begin(obs)
        return Step(
            self.obs, reward, terminated, truncated, self.obs if final_obs is obs else self._normalize(final_obs)
        )

    def _normalize(self, obs: np.ndarray) -> np.ndarray:
        scaled = ((obs - self.moments.mean) / np.sqrt(self.moments.var + EPSILON)).astype(np.float32)
        return scaled if self._clip is None else clip_array(scaled, -self._clip, self._clip)


class NormalizeReward(_Normalizer):
    """Rewards divided by the standard deviation of the discounted return, so that returns are of order 1.

    The return of an episode so far is `R = gamma * R + reward`, from 0 at its beginning. The mean is not subtracted:
    that would change what is optimal.
    """

    key = "normalize_reward"

    def __init__(self, env: VecEnv, gamma: float, training: bool = True) -> None:
        super().__init__(env, (), training)
        self.gamma = gamma
        self._return = np.zeros(env.num_envs)

    def begin(self, obs: np.ndarray) -> np.ndarray:
        """Begin all returns at 0."""
        self._return[:] = 0.0
        return obs

    def resume(self, obs: np.ndarray, state: State) -> np.ndarray:
        """Go on with the returns of then."""
        self._return[:] = state["return"]
        return super().resume(obs, state)

    def own_state(self) -> State:
        """Return the moments and the returns so far."""
        return super().own_state() | {"return": self._return.copy()}

    def step(self, action: np.ndarray) -> Step:
        """Act, and scale the reward."""
        obs, reward, terminated, truncated, final_obs = self.env.step(action)
        if self.training:
            self._return = self._return * self.gamma + reward
            self.moments.update(self._return)
            self._return[terminated | truncated] = 0.0
        scaled = (reward / np.sqrt(self.moments.var + EPSILON)).astype(np.float32)
        self.obs = obs
        return Step(obs, scaled, terminated, truncated, final_obs)


class MapReward(VecWrapper):
    """Rewards through a function of arrays [N] float32: scaled, clipped, or their sign."""

    def __init__(self, env: VecEnv, function: Callable[[np.ndarray], np.ndarray]) -> None:
        super().__init__(env)
        self._function = function

    def step(self, action: np.ndarray) -> Step:
        """Act, and map the reward."""
        obs, reward, terminated, truncated, final_obs = self.env.step(action)
        self.obs = obs
        return Step(obs, self._function(reward), terminated, truncated, final_obs)


class MapObs(VecWrapper):
    """Observations through a function of arrays [N, *obs]."""

    def __init__(self, env: VecEnv, function: Callable[[np.ndarray], np.ndarray], obs_space: Box) -> None:
        super().__init__(env)
        self._function, self.obs_space = function, obs_space

    def begin(self, obs: np.ndarray) -> np.ndarray:
        """Map the first observations."""
        return self._function(obs)

    def resume(self, obs: np.ndarray, state: State) -> np.ndarray:  # noqa: ARG002
        """There is nothing to load."""
        return self.begin(obs)

    def step(self, action: np.ndarray) -> Step:
        """Act, and map what comes back."""
        obs, reward, terminated, truncated, final_obs = self.env.step(action)
        self.obs = self._function(obs)
        final = self.obs if final_obs is obs else self._function(final_obs)
        return Step(self.obs, reward, terminated, truncated, final)


class FrameStack(VecWrapper):
    """The k latest observations of an episode as one, oldest first; what lies before its beginning is 0.

    Args:
        env: the environments.
        length: k.
        concat: [k * c, ...] (joined along the first axis) instead of [k, c, ...] (a new axis).
    """

    key = "frame_stack"

    def __init__(self, env: VecEnv, length: int, concat: bool) -> None:
        super().__init__(env)
        space, self.frame_stack = env.obs_space, length
        self._frames = np.zeros((env.num_envs, length, *space.shape), space.dtype)
        repeats = [length] + [1] * (len(space.shape) - 1 if concat else len(space.shape))
        low, high = (np.tile(bound if concat else bound[None], repeats) for bound in (space.low, space.high))
        self.obs_space = Box(np.minimum(low, 0), np.maximum(high, 0), dtype=space.dtype.type)
        self._shape = (env.num_envs, *self.obs_space.shape)

    def begin(self, obs: np.ndarray) -> np.ndarray:
        """Begin every stack with zeros."""
        self._frames = np.zeros_like(self._frames)
        self._frames[:, -1] = obs
        return self._frames.reshape(self._shape)

    def resume(self, obs: np.ndarray, state: State) -> np.ndarray:  # noqa: ARG002
        """Go on with the stacks of then."""
        self._frames = np.array(state["frames"])
        return self._frames.reshape(self._shape)

    def own_state(self) -> State:
        """Return the stacks."""
        return {"frames": self._frames}

    def step(self, action: np.ndarray) -> Step:
        """Act, and push the observations onto the stacks."""
        obs, reward, terminated, truncated, final_obs = self.env.step(action)
        frames = np.empty_like(self._frames)
        frames[:, :-1], frames[:, -1] = self._frames[:, 1:], final_obs
        final_stack = frames
        if final_obs is not obs:
            begun = terminated | truncated
            frames = frames.copy()
            frames[begun] = 0
            frames[begun, -1] = obs[begun]
        self._frames, self.obs = frames, frames.reshape(self._shape)
        final = self.obs if final_stack is frames else final_stack.reshape(self._shape)
        return Step(self.obs, reward, terminated, truncated, final)


def resize_images(shape: tuple[int, ...], size: tuple[int, ...]) -> Callable[[np.ndarray], np.ndarray]:
    """Return a function that resizes uint8 images [N, *channels, height, width] to `size` (height, width).

    Every new pixel is the mean of the area that it covers.
    """
    rows, columns = (_area_weights(old, new) for old, new in zip(shape[-2:], size, strict=True))
    return lambda images: np.rint(rows @ images.astype(np.float32) @ columns.T).astype(np.uint8)


def clip_array(x: np.ndarray, low: float, high: float) -> np.ndarray:
    """Clip, without the overhead of np.clip."""
    return np.minimum(np.maximum(x, low), high)


def _area_weights(old: int, new: int) -> np.ndarray:
    """Return [new, old]: the share of each old cell in each new one."""
    edges = np.arange(new + 1) * (old / new)
    cells = np.arange(old)
    overlap = np.minimum(edges[1:, None], cells + 1) - np.maximum(edges[:-1, None], cells)
    return (np.maximum(overlap, 0) * (new / old)).astype(np.float32)
