"""Atari games on ale-py's vectorised emulator."""

import inspect
from collections import deque
from collections.abc import Mapping
from typing import Any

import numpy as np
from ale_py.vector_env import AtariVectorEnv
from gymnasium.spaces import Box
from loguru import logger

from slm_lab.env.spaces import lab_action_space
from slm_lab.env.vec_env import EpisodeStats, State, Step, VecEnv
from slm_lab.lib.rng import derive_seed
from slm_lab.spec.errors import SpecError

MAX_FRAMES = 108_000
"""Emulator frames of one game: half an hour of play, as in ALE v5."""
RESEED = 10_000
"""Steps after which a game's end is also the beginning of a new random stream. The emulator does not give its random
state away, so a replay must begin at a seed; seeding reloads the ROM (90 ms), so it cannot be done for every game."""
SEED_MASK = 0x7FFFFFFF
HEIGHT, WIDTH = 210, 160

_OURS = {
    "reward_clipping": 'use "clip_reward"',
    "episodic_life": 'use "life_loss_info"',
    "num_threads": "the lab shares out the cores",
    "game": 'use "name"',
}
_PARAMETERS = inspect.signature(AtariVectorEnv.__init__).parameters.keys()
_KNOWN = _PARAMETERS - {"self", "num_envs", "batch_size", "autoreset_mode", "thread_affinity_offset", *_OURS}


class AtariVecEnv(VecEnv):
    """N games of one kind, in the emulator's threads.

    Rewards are raw game points. With `life_loss_info` a lost life is `terminated` for the algorithm though the game
    goes on: nothing is reset, `final_obs` is `obs`, and the statistics go on counting the whole game.

    Args:
        game: name of the ROM, e.g. "space_invaders".
        num_envs: N.
        seed: each game gets a stream of its own, derived from it.
        options: arguments of `ale_py.AtariVectorEnv`, and `life_loss_info`.
        time_limit: steps after which a game is truncated; None for the emulator's half hour only.
        render_mode: "rgb_array" or "human": a colour twin of the first game is played along.
        num_threads: of the emulator.

    Raises:
        SpecError: an unknown option.
    """

    def __init__(
        self,
        game: str,
        num_envs: int,
        seed: int,
        options: Mapping[str, Any],
        *,
        time_limit: int | None = None,
        render_mode: str | None = None,
        num_threads: int = 1,
    ) -> None:
        _check(options)
        options: dict[str, Any] = {"max_num_frames_per_episode": MAX_FRAMES, "frameskip": 4, **options}
        self._life_loss = options.pop("life_loss_info", False)
        if time_limit is not None:
            limit = time_limit * options["frameskip"]
            options["max_num_frames_per_episode"] = min(options["max_num_frames_per_episode"], limit)
        options |= {"autoreset_mode": "SameStep", "reward_clipping": False}
        self._ale = AtariVectorEnv(game, num_envs, num_threads=num_threads, **options)
        self._twin = None
        if render_mode is not None:
            colour: dict[str, Any] = {"img_height": HEIGHT, "img_width": WIDTH, "grayscale": False, "stack_num": 1}
            self._twin = AtariVectorEnv(game, 1, num_threads=1, **options | colour)
        self._window = _Window(60 / options["frameskip"]) if render_mode == "human" else None
        self.num_envs = num_envs
        self.frame_stack = options.get("stack_num", 4)
        self._colour = not options.get("grayscale", True)
        frames, height, width = (self._ale.single_observation_space.shape or ())[:3]
        channels = frames * 3 if self._colour else frames
        self.obs_space = Box(0, 255, (channels, height, width), np.uint8)
        self.action_space, self._to_env = lab_action_space(self._ale.single_action_space, game)
        self.stats = EpisodeStats(num_envs)
        self._seed = seed
        self._seedings = np.zeros(num_envs, np.int64)  # how often each stream was begun
        self._age = np.zeros(num_envs, np.int64)  # steps since then
        self._actions: deque[np.ndarray] = deque()  # as far back as the oldest stream
        self._lives: np.ndarray | None = None  # [N] as of the last step; None before the first reset
        self._no_action = np.zeros((num_envs, *(self.action_space.shape or ())), self.action_space.dtype)

    def reset(self) -> np.ndarray:
        """Start a game in every environment, each with a seed that was not used before."""
        self.stats.forget()
        self._actions.clear()
        self.obs = self._seed_games(np.ones(self.num_envs, bool))
        return self.obs

    def step(self, action: np.ndarray) -> Step:
        """Act in every game."""
        action = self._to_env(action)
        obs, points, over, cut, lives, final_obs = self._emulate(action)
        self._actions.append(action)
        self._age += 1
        self.stats.add(points)
        # a game that shows no lives left for some frames before it is over must not end twice
        terminated = over | ((lives < self._lives) & (lives > 0)) if self._life_loss else over
        self._lives = lives
        if final_obs is not obs:
            ended = (over | cut).nonzero()[0]
            self.stats.finish(ended)
            self._begin_streams(ended, obs)
        self.obs = obs
        if self._window is not None:
            self._window.show(self._picture)
        return Step(obs, points.astype(np.float32), terminated, cut, final_obs)

    def state_dict(self) -> State:
        """Return the statistics and, per game, which stream it draws from and the actions since that began."""
        actions = np.array([self._to_env(self._no_action), *self._actions])[1:]
        return {
            "stats": self.stats.state_dict(),
            "seedings": self._seedings.copy(),
            "age": self._age.copy(),
            "actions": actions,
            "obs": self.obs,
        }

    def load_state_dict(self, state: State) -> bool:
        """Replay every game from the beginning of its stream; False if one did not take the same course again."""
        self.stats.load_state_dict(state["stats"])
        self._seedings[:], self._age[:] = state["seedings"], state["age"]
        self._actions = deque(state["actions"])
        self.obs = self._replay()
        if np.array_equal(self.obs, state["obs"]):
            return True
        self.reset()
        return False

    def render(self) -> np.ndarray | None:
        """Return the picture of the first game [210, 160, 3] uint8; None without a render mode, or in a window."""
        return None if self._twin is None or self._window is not None else self._picture

    def close(self) -> None:
        """Close the window, if there is one; the emulator goes with the object."""
        if self._window is not None:
            self._window.close()

    def _begin_streams(self, ended: np.ndarray, obs: np.ndarray) -> None:
        """Give the games `ended` a new random stream if theirs is old; write what they begin with into `obs`."""
        old = np.zeros(self.num_envs, bool)
        old[ended] = self._age[ended] >= RESEED
        if old.any():
            obs[old] = self._seed_games(old)[old]
            while len(self._actions) > self._age.max():
                self._actions.popleft()

    def _seed_games(self, which: np.ndarray, again: bool = False) -> np.ndarray:
        """Start the games `which` ([N] bool) on their next random stream, or on the same one `again`."""
        self._seedings += which & (not again)
        self._age[which & (not again)] = 0
        seeds = np.array([derive_seed(self._seed, i, int(self._seedings[i])) & SEED_MASK for i in which.nonzero()[0]])
        obs, info = self._ale.reset(seed=seeds, options={"reset_mask": which} if self._lives is not None else None)
        self._lives = info["lives"]
        if self._twin is not None and which[0]:
            self._picture = self._twin.reset(seed=seeds[:1])[0][0, 0]
        return self._shape(obs)

    def _replay(self) -> np.ndarray:
        """Play the recorded actions again, each game joining in where its stream began."""
        longest = len(self._actions)
        if longest > RESEED:
            logger.info("replaying {} steps of {} games", longest, self.num_envs)
        # all of them once, for the emulator wants to have been reset as a whole
        obs = self._seed_games(np.ones(self.num_envs, bool), again=True)
        for t, action in enumerate([*self._actions, None]):
            joining = self._age == longest - t
            if t and joining.any():
                obs[joining] = self._seed_games(joining, again=True)[joining]
            if action is not None:
                obs, _, _, _, self._lives, _ = self._emulate(action)
        return obs

    def _emulate(self, action: np.ndarray) -> tuple[np.ndarray, ...]:
        """Step the games; return obs, points, over, cut, lives, and final_obs (`obs` itself where no game ended)."""
        obs, points, over, cut, info = self._ale.step(action)
        if self._twin is not None:
            self._picture = self._twin.step(action[:1])[0][0, 0]
        final_obs = obs = self._shape(obs)
        if "final_obs" in info:
            ended = over | cut
            final_obs = obs.copy()
            final_obs[ended] = self._shape(info["final_obs"])[ended]
        return obs, points, over, cut, info["lives"], final_obs

    def _shape(self, obs: np.ndarray) -> np.ndarray:
        """Lay out [N, k, height, width, 3] colour frames as [N, k * 3, height, width]; others are right as they are."""
        return np.moveaxis(obs, -1, 2).reshape(len(obs), *self.obs_space.shape) if self._colour else obs


class _Window:
    """A window on the first game, at the game's own speed."""

    SCALE = 3

    def __init__(self, fps: float) -> None:
        import pygame  # only where it is looked at

        pygame.display.init()
        self._pygame, self._fps, self._clock = pygame, fps, pygame.time.Clock()
        self._screen = pygame.display.set_mode((WIDTH * self.SCALE, HEIGHT * self.SCALE))

    def show(self, picture: np.ndarray) -> None:
        """Draw `picture` [height, width, 3] and wait until it is time for the next."""
        surface = self._pygame.surfarray.make_surface(picture.swapaxes(0, 1))
        self._screen.blit(self._pygame.transform.scale(surface, self._screen.get_size()), (0, 0))
        self._pygame.display.flip()
        self._pygame.event.pump()
        self._clock.tick(self._fps)

    def close(self) -> None:
        """Close the window."""
        self._pygame.quit()


def _check(options: Mapping[str, Any]) -> None:
    for key in options:
        if key in _OURS:
            raise SpecError(f"env.{key}: not passed on to the Atari emulator; {_OURS[key]}")
        if key not in _KNOWN:
            raise SpecError(f"env.{key}: unknown to the Atari emulator (known: {', '.join(sorted(_KNOWN))})")
