"""The `env` part of a spec."""

import difflib
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import ConfigDict, Field, model_validator

from slm_lab.spec.model import Count, Number, Positive, Section, Several, either, problem

DEFAULT_CLIP = 10.0
"""Deviations at which normalised observations and rewards are clipped."""


class EnvSpec(Section):
    """The environment. Keys that are not declared here are arguments of the environment itself."""

    model_config = ConfigDict(extra="allow")

    name: str
    """Id in gymnasium, e.g. "CartPole-v1" or "ALE/Pong-v5"; or "my_package.envs:MyEnv"."""
    num_envs: Count = 1
    """Environments stepped together."""
    max_t: Count | None = None
    """Steps after which an episode is truncated; null: the environment's own limit."""
    max_frame: Count
    """Frames to train for, over all environments."""
    normalize_obs: bool = False
    """Give observations mean 0 and deviation 1, by running statistics."""
    normalize_reward: bool = False
    """Divide rewards by the running deviation of the discounted return."""
    clip_obs: Positive | None = None
    """Bound ± of observations, after normalising; null: 10 with normalize_obs, else none."""
    clip_reward: Annotated[
        bool | Positive | Annotated[list[Number], Field(min_length=2, max_length=2)] | Literal["sign"] | None,
        either('a number > 0, [low, high], "sign", false or null'),
    ] = None
    """Bound ± of rewards, [low, high], or "sign"; after normalising. false: none. null: 10 with normalize_reward,
    "sign" for Atari, else none. Scores are counted before."""
    reward_scale: Annotated[Number | Literal["sign"] | None, either('a number, "sign" or null')] = None
    """Factor of rewards, or "sign" for their sign; before normalising."""
    frame_op: Literal["concat", "stack"] | None = None
    """Show the last frame_op_len observations: concat joins them end to end, stack along a new first axis."""
    frame_op_len: Several | None = None
    """Observations that frame_op joins, from 2 on."""
    image_downsize: Annotated[list[Count], Field(min_length=2, max_length=2)] | None = None
    """[height, width] in pixels that images are resized to."""
    backend: Literal["auto", "gymnasium", "ale", "envpool"] = "auto"
    """What steps the environments: gymnasium in a loop, ale, or envpool (an extra, for some of classic control and
    MuJoCo). auto: ale for Atari, gymnasium for the rest, which has a vector of its own for 6 CartPoles or more."""
    wrappers: list[dict[str, Any]] = Field(default_factory=list)
    """Wrappers of each environment, innermost first: {"id": name or "my_package:MyWrapper", argument: value}."""

    @property
    def kwargs(self) -> dict[str, Any]:
        """Arguments of the environment itself."""
        return dict(self.model_extra or {})

    @classmethod
    def check_unknown(cls, raw: Mapping[str, Any]) -> None:
        """Raise if a key looks like a misspelt one; any other is an argument of the environment."""
        for key in raw.keys() - cls.model_fields.keys():
            if near := difflib.get_close_matches(key, cls.model_fields, n=1, cutoff=0.8):
                raise problem(key, f"unknown key; did you mean {near[0]!r}?")

    @model_validator(mode="before")
    @classmethod
    def _fill_clips(cls, raw: Any) -> Any:
        if not isinstance(raw, Mapping):
            return raw
        filled = dict(raw)
        for switch, clip in (("normalize_obs", "clip_obs"), ("normalize_reward", "clip_reward")):
            if raw.get(switch) is True and raw.get(clip) is None:
                filled[clip] = DEFAULT_CLIP
        return filled

    @model_validator(mode="after")
    def _check_together(self) -> Self:
        if (self.frame_op is None) != (self.frame_op_len is None):
            given, missing = ("frame_op", "frame_op_len") if self.frame_op else ("frame_op_len", "frame_op")
            raise problem(missing, f"missing; {given} needs it")
        if self.clip_reward is True:
            raise problem("clip_reward", 'must be a number > 0, [low, high], "sign", false or null, got true')
        if isinstance(self.clip_reward, list) and self.clip_reward[0] >= self.clip_reward[1]:
            raise problem("clip_reward", f"must be [low, high] with low < high, got {self.clip_reward}")
        for index, wrapper in enumerate(self.wrappers):
            if not isinstance(wrapper.get("id"), str):
                raise problem(f"wrappers.{index}.id", "missing; name of a wrapper, or my_package:MyWrapper")
        return self
