"""Replay memory: every frame stored once, and only transitions that happened handed out.

Lin 1992, "Self-improving reactive agents based on reinforcement learning, planning and teaching"; Mnih et al. 2015.
"""

from collections import deque
from typing import TYPE_CHECKING, Any, NamedTuple

import gymnasium as gym
import numpy as np
import torch

from slm_lab.agent.memory.columns import Plan, action_dtype, allocate, check_state, obs_dtype, plan_bytes, shape_of
from slm_lab.spec.errors import SpecError

if TYPE_CHECKING:
    from slm_lab.env.vec_env import Step


Numbers = np.ndarray | torch.Tensor
"""An array on a CPU, a tensor on a GPU; see `as_tensors`."""


class ReplayBatch(NamedTuple):
    """B transitions: tensors on the memory's GPU, or arrays where there is none, as a `Learner` takes both.

    A net takes an array for something to act on, without a gradient: what calls one needs `as_tensors` first. For
    recurrent nets all but `index` are tensors, with a `History` in the place of obs and next_obs.
    """

    obs: Numbers
    """[B, *obs]."""
    action: Numbers
    """[B, *action] int64, or float32 where actions are continuous."""
    reward: Numbers
    """[B] float32, discounted over the steps up to `next_obs`: sum gamma^j r_j."""
    discount: Numbers
    """[B] float32, of the value of `next_obs`: gamma to the power of the steps; 0 where the episode terminated. Where
    it was truncated the value counts, as `next_obs` is the true last observation."""
    next_obs: Numbers
    """[B, *obs] what truly followed, never the first observation of the next episode."""
    weight: Numbers
    """[B] float32, of each transition in the loss."""
    index: np.ndarray
    """[B] int64, where the transitions lie in the memory."""


class Windows(NamedTuple):
    """M transitions that stand in B windows on the streams of single environments, on the memory's device."""

    obs: torch.Tensor
    """[L + n, B, *obs] what the windows show."""
    first: torch.Tensor
    """[L + n, B] bool, where a row does not go on from the row before it, but begins an episode."""
    action: torch.Tensor
    """[M, *action] as in a `ReplayBatch`."""
    reward: torch.Tensor
    """[M] as in a `ReplayBatch`."""
    discount: torch.Tensor
    """[M] as in a `ReplayBatch`."""
    place: torch.Tensor
    """[M] int64, l * B + b: where in `obs` the observation of a transition is."""
    next_place: torch.Tensor
    """[M] int64, where in `obs` the one is that followed its n steps."""
    index: np.ndarray
    """[M] int64, where the transitions lie in the memory."""


class Replay:
    """The latest transitions of N environments, sampled uniformly with replacement.

    Each environment has a ring of R rows, one frame each; row r of environment n is the flat row r * N + n. Where an
    observation is a window of the last k frames (`frame_stack`), the first observation of an episode takes k rows, so
    that any way of padding it comes back exact, and every step adds one: the last frame of what truly followed. The
    windows that end at one row and at the next are the `obs` and the `next_obs` of a transition; its action, reward and
    `terminated` stand at the row where its `obs` ends. An episode of T steps thus takes T + k rows. Where the game goes
    on after `terminated` (a lost life), the first observation is there already and takes none.

    `valid` marks the rows at which a transition stands. It does not mark the row that has no successor (the newest, the
    last of an episode), nor those whose window was partly overwritten. So between rows that are valid one after another
    an episode can only have ended by `terminated`.

    Args:
        obs_space: space of one environment's observations, as the agent sees them.
        action_space: space of one environment's actions.
        num_envs: N.
        max_size: rows in all; rounded up to a multiple of N.
        batch_size: transitions per batch.
        gamma: discount of the reward one step later.
        num_steps: n; a batch's transitions lead n steps on, or to the end of the episode or of what is stored.
        frame_stack: k; the observation's first axis holds the k latest frames, oldest first.
        use_cer: the transitions added since the last batch take the last places of the next one (combined experience
            replay, Zhang & Sutton 2017).
        device: where batches go.
        seed: of the sampling.

    Raises:
        SpecError: `max_size` leaves no room for a single transition.
    """

    def __init__(
        self,
        *,
        obs_space: gym.Space,
        action_space: gym.Space,
        num_envs: int,
        max_size: int,
        batch_size: int,
        gamma: float = 1.0,
        num_steps: int = 1,
        frame_stack: int = 1,
        use_cer: bool = False,
        device: torch.device | str = "cpu",
        seed: int = 0,
    ) -> None:
        plan = self.plan(obs_space, action_space, num_envs, max_size, frame_stack)
        column = self._column = allocate(plan)
        self._frame, self._action, self._reward = column["frame"], column["action"], column["reward"]
        self._terminated, self.valid = column["terminated"], column["valid"]
        self.nbytes = plan_bytes(plan)
        self.num_envs, self.batch_size, self.frame_stack = num_envs, batch_size, frame_stack
        self.capacity = len(self.valid)
        self.size = 0
        self.device = torch.device(device)
        self._on_cpu = self.device.type == "cpu"
        self._ones = self._there(np.ones(batch_size, np.float32))
        self._obs_shape, self._frame_shape = shape_of(obs_space), self._frame.shape[1:]
        self._rng = np.random.default_rng(seed)
        self._window = np.arange(1 - frame_stack, 2) * num_envs  # from a transition's row to its k + 1 frames
        self._steps = np.arange(num_steps) * num_envs  # from a transition's row to those of its n steps
        self._powers = (gamma ** np.arange(num_steps + 1)).astype(np.float32)
        self._every_env = slice(None)
        self._newest = (
            np.arange(num_envs) - num_envs
        )  # [N] flat row of the newest frame, not yet wrapped; none at first
        self._starting = np.arange(num_envs)  # environments whose next observation begins an episode
        self._fresh = deque[np.ndarray](maxlen=-(-batch_size // num_envs)) if use_cer else None

    @staticmethod
    def plan(obs_space: gym.Space, action_space: gym.Space, num_envs: int, max_size: int, frame_stack: int = 1) -> Plan:
        """Return the arrays that such a memory allocates."""
        rows, least = -(-max_size // num_envs), frame_stack + 1
        if rows < least:
            raise SpecError(
                f"agent.memory.max_size: {max_size} is too little for {num_envs} environments with observations of "
                f"{frame_stack} frames; give it at least {num_envs * least}"
            )
        obs_shape, capacity = shape_of(obs_space), rows * num_envs
        if frame_stack > 1 and obs_shape[0] % frame_stack:
            raise ValueError(f"an observation of shape {obs_shape} does not hold {frame_stack} frames")
        frame_shape = (obs_shape[0] // frame_stack, *obs_shape[1:]) if frame_stack > 1 else obs_shape
        return {
            "frame": ((capacity, *frame_shape), obs_dtype(obs_space)),
            "action": ((capacity, *shape_of(action_space)), action_dtype(action_space)),
            "reward": ((capacity,), np.dtype(np.float32)),
            "terminated": ((capacity,), np.dtype(bool)),
            "valid": ((capacity,), np.dtype(bool)),
        }

    def add(self, obs: np.ndarray, action: np.ndarray, step: "Step") -> None:
        """Store one transition of every environment.

        Args:
            obs: [N, *obs] what was acted on.
            action: [N, *action] what was done.
            step: what followed. Nothing of the three is kept: they are copied.
        """
        if self._starting.size:
            self._begin_episodes(obs)
        row = self._newest % self.capacity
        self._action[row] = action
        self._reward[row] = step.reward
        self._terminated[row] = step.terminated
        self._push(self._every_env, self._frames(step.final_obs)[:, -1])
        self._mark(row, valid=True)
        self._starting = (step.terminated | step.truncated).nonzero()[0]
        if self._fresh is not None:
            self._fresh.append(row)

    def interrupt(self) -> None:
        """Take what is added next for the beginning of new episodes: those under way were left where they stood."""
        self._starting = np.arange(self.num_envs)

    def sample(self, batch_size: int | None = None, frame: int = 0) -> ReplayBatch:  # noqa: ARG002
        """Draw transitions, uniformly and with replacement.

        Args:
            batch_size: how many; by default the memory's own.
            frame: frames so far; a prioritised replay reads it.

        Raises:
            ValueError: there is none yet.
        """
        index = self._draw(batch_size or self.batch_size)
        if self._fresh:
            newest = np.concatenate(self._fresh)[-len(index) :]
            newest = newest[self.valid[newest]]
            index[len(index) - len(newest) :] = newest
            self._fresh.clear()
        return self.batch(index)

    def batch(self, index: np.ndarray) -> ReplayBatch:
        """Return the transitions that stand at the flat rows `index` ([B] int64), all of which must be valid."""
        if len(self._steps) == 1:
            reward, discount = self._reward.take(index), self._powers[1] * ~self._terminated.take(index)
            obs, next_obs = self._obs_and_next(index)
        else:
            last, reward, discount = self._n_steps(index)
            obs, next_obs = self._obs(index), self._obs(last + self.num_envs)
        return ReplayBatch(
            obs=obs,
            action=self._there(self._action.take(index, axis=0)),
            reward=self._there(reward),
            discount=self._there(discount),
            next_obs=next_obs,
            weight=self._ones if len(index) == self.batch_size else self._there(np.ones(len(index), np.float32)),
            index=index,
        )

    def windows(self, index: np.ndarray, length: int) -> Windows:
        """Return the transitions among the `length` successive rows from each of the flat rows `index` ([B] int64) on.

        With the observations that follow, each window shows `length` + n rows. What lies between two episodes is among
        them, and so are the rows beyond the newest, which belong to another time: there, something new begins.
        """
        count = len(index)
        rows = (index + np.arange(length + len(self._steps))[:, None] * self.num_envs) % self.capacity
        before = (rows - self.num_envs) % self.capacity
        first = ~self.valid[before] | self._terminated[before]
        shown = self._stacked(rows)
        place = self.valid[rows[:length]].ravel().nonzero()[0]  # l * B + b
        row = rows.ravel()[place]
        last, reward, discount = self._n_steps(row)
        steps = (last - row) // self.num_envs % (self.capacity // self.num_envs) + 1
        return Windows(
            obs=self._to_device(shown.reshape(*rows.shape, *self._obs_shape)),
            first=self._to_device(first),
            action=self._to_device(self._action.take(row, axis=0)),
            reward=self._to_device(reward),
            discount=self._to_device(discount),
            place=self._to_device(place),
            next_place=self._to_device(place + steps * count),
            index=row,
        )

    def update_priorities(self, index: np.ndarray, error: torch.Tensor) -> None:
        """Do nothing: how far off the values of a batch were does not matter here."""

    def state_dict(self) -> dict[str, Any]:
        """Return all that is needed to go on exactly. The big tensors are views: use them before the next `add`."""
        filled = self._filled()
        columns = {name: torch.from_numpy(column[:filled]) for name, column in self._columns().items()}
        return columns | {
            "sizes": self._sizes(),
            "size": self.size,
            "newest": self._newest.tolist(),
            "starting": self._starting.tolist(),
            "fresh": [row.tolist() for row in self._fresh or ()],
            "rng": self._rng.bit_generator.state,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from `state`; ValueError where it comes from a memory of other sizes."""
        check_state("replay memory", self._sizes(), state["sizes"])
        self.valid[:] = self._terminated[:] = False
        for name, column in self._columns().items():
            column[: len(state[name])] = state[name].numpy()
        self.size = state["size"]
        self._newest = np.array(state["newest"], np.int64)
        self._starting = np.array(state["starting"], np.int64)
        if self._fresh is not None:
            self._fresh.clear()
            self._fresh.extend(np.array(row, np.int64) for row in state["fresh"])
        self._rng.bit_generator.state = state["rng"]

    def _begin_episodes(self, obs: np.ndarray) -> None:
        """Store the first observation of the episodes that begin, but where it is what the newest rows hold."""
        envs = self._starting
        # an observation that does not fit the dtype of its space must not be cut down to it in silence
        window = self._frames(obs)[envs].astype(self._frame.dtype, casting="same_kind", copy=False)
        new = ~self._goes_on(envs, window)
        envs, window = envs[new], window[new]
        for age in range(self.frame_stack):
            self._push(envs, window[:, age])

    def _goes_on(self, envs: np.ndarray, window: np.ndarray) -> np.ndarray:
        """Tell for which of `envs` the last transition was terminated and `window` is nevertheless what followed it."""
        newest = self._newest[envs]
        terminated = self._terminated[(newest - self.num_envs) % self.capacity]
        return terminated & (self._stacked(newest) == window).reshape(len(envs), -1).all(axis=1)

    def _n_steps(self, index: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return for the transitions at `index` the row of their last step, their return, the discount of what follows.

        A step counts if the one before it did, did not terminate, and was followed by another.
        """
        rows = (index[:, None] + self._steps) % self.capacity
        counts = np.ones(rows.shape, bool)
        counts[:, 1:] = self.valid[rows[:, 1:]] & ~self._terminated[rows[:, :-1]]
        np.logical_and.accumulate(counts, axis=1, out=counts)
        steps = counts.sum(axis=1)
        last = rows[np.arange(len(rows)), steps - 1]
        reward = (self._reward[rows] * counts) @ self._powers[:-1]
        return last, reward, self._powers[steps] * ~self._terminated[last]

    def _push(self, envs: np.ndarray | slice, frame: np.ndarray) -> None:
        """Add one row to the rings of `envs`."""
        self._newest[envs] += self.num_envs
        row = self._newest[envs] % self.capacity
        # the transition whose window begins at this row; those that begin before it fell when their row was overwritten
        stale = (row + (self.frame_stack - 1) * self.num_envs) % self.capacity
        self._mark(stale, valid=False)
        self._frame[row] = frame

    def _mark(self, row: np.ndarray, valid: bool) -> None:
        """Note that a transition stands at each of `row`, or that none does."""
        self.size += len(row) * valid - int(np.count_nonzero(self.valid[row]))
        self.valid[row] = valid

    def _check_any(self) -> None:
        if not self.size:
            raise ValueError("the replay memory holds no transition yet")

    def _draw(self, count: int) -> np.ndarray:
        """Return `count` valid rows, each as likely as any other: the few that are not valid are drawn again."""
        self._check_any()
        filled = self._filled()
        index = self._rows_below(filled, count)
        while missing := count - int(np.count_nonzero(good := self.valid.take(index))):
            index[~good] = self._rows_below(filled, missing)
        return index

    def _rows_below(self, end: int, count: int) -> np.ndarray:
        # in half the time of `integers`; no row is more than 2**-53 likelier than another
        return (self._rng.random(count) * end).astype(np.int64)

    def _filled(self) -> int:
        """Return how many flat rows, from 0 on, have been written (by one environment at least)."""
        return min(max(self._newest.tolist()) // self.num_envs * self.num_envs + self.num_envs, self.capacity)

    def _frames(self, obs: np.ndarray) -> np.ndarray:
        """View [N, *obs] as [N, k, *frame]."""
        return obs.reshape(len(obs), self.frame_stack, *self._frame_shape)

    def _obs_and_next(self, index: np.ndarray) -> tuple[Numbers, Numbers]:
        """Return obs and next_obs [B, *obs] of the transitions at `index`."""
        if self.frame_stack == 1:
            return self._obs(index), self._obs(index + self.num_envs)
        # views of a block [B, k + 1, *frame]: they share all frames but one each
        block = self._there(self._take(index[:, None] + self._window))
        shape = (len(index), *self._obs_shape)
        return block[:, :-1].reshape(shape), block[:, 1:].reshape(shape)

    def _obs(self, row: np.ndarray) -> Numbers:
        """Return the observations [B, *obs] whose newest frames stand at the flat rows `row`."""
        if self.frame_stack == 1:
            return self._there(self._take(row))
        return self._there(self._stacked(row).reshape(len(row), *self._obs_shape))

    def _stacked(self, row: np.ndarray) -> np.ndarray:
        """Return the windows [*row, k, *frame] whose newest frames stand at `row`."""
        return self._take(row[..., None] + self._window[:-1])

    def _take(self, row: np.ndarray) -> np.ndarray:
        return self._frame.take(row, axis=0, mode="wrap")

    def _there(self, array: np.ndarray) -> Numbers:
        return array if self._on_cpu else self._to_device(array)

    def _to_device(self, array: np.ndarray) -> torch.Tensor:
        tensor = torch.from_numpy(array)
        return tensor if self._on_cpu else tensor.pin_memory().to(self.device, non_blocking=True)

    def _columns(self) -> dict[str, np.ndarray]:
        return {
            "frame": self._frame,
            "action": self._action,
            "reward": self._reward,
            "terminated": self._terminated,
            "valid": self.valid,
        }

    def _sizes(self) -> dict[str, Any]:
        return {"capacity": self.capacity, "num_envs": self.num_envs, "frame": list(self._frame_shape)}
