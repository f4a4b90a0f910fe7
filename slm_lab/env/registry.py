"""Environments and wrappers by the names that a spec gives them."""

import re
import traceback
from collections.abc import Callable, Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import gymnasium as gym
from gymnasium.envs.registration import EnvSpec as Registered
from loguru import logger

from slm_lab.lib.named import did_you_mean, import_callable, import_from, public_names, wrong_argument
from slm_lab.spec.errors import SpecError

EnvMaker = Callable[..., gym.Env]
WrapperMaker = Callable[..., gym.Env]

_KEEP_THEIR_WORLD = (
    "gymnasium.envs.box2d.bipedal_walker:BipedalWalker",
    "gymnasium.envs.box2d.car_racing:CarRacing",
)
_WRAPPERS: dict[str, WrapperMaker] = {}


def register_wrapper(name: str) -> Callable[[WrapperMaker], WrapperMaker]:
    """Make a wrapper known by `name`: decorates a class or function that takes an environment and keyword arguments."""

    def register(maker: WrapperMaker) -> WrapperMaker:
        _WRAPPERS[name] = maker
        return maker

    return register


def find_env(name: str) -> Registered | EnvMaker:
    """Return what `name` stands for.

    Args:
        name: an id of gymnasium ("CartPole-v1", "ALE/Pong-v5"), or "my_pkg.envs:MyEnv" for a class or function that
            makes an environment, or "my_pkg:Id-v0" for an id that importing the module registers.

    Raises:
        SpecError: there is no such environment.
    """
    if ":" in name:
        module, attribute = import_from(name, "env.name")
        maker = getattr(module, attribute, None)
        if callable(maker):
            return maker
        if attribute in gym.registry:
            return gym.registry[attribute]
        near = did_you_mean(attribute, [*public_names(module), *gym.registry])
        raise SpecError(f"env.name: {module.__name__} has no {attribute!r}{near}")
    if name not in gym.registry:
        import ale_py  # noqa: F401  (registers the Atari games)
    if name not in gym.registry:
        name = _newer_version(name)
    return gym.registry[name]


def is_atari(found: Registered | EnvMaker) -> bool:
    """Tell whether an environment is an Atari game."""
    return isinstance(found, Registered) and found.entry_point == "ale_py.env:AtariEnv"


def make_single(
    found: Registered | EnvMaker,
    name: str,
    kwargs: Mapping[str, Any],
    wrappers: Iterable[Mapping[str, Any]] = (),
    render_mode: str | None = None,
) -> tuple[gym.Env, int | None]:
    """Build one environment.

    Args:
        found: of `find_env`.
        name: for messages.
        kwargs: arguments of the environment.
        wrappers: {"id": …, argument: …}, innermost first.
        render_mode: of gymnasium.

    Returns:
        The environment and the time limit that the caller must apply to it (None if there is none).

    Raises:
        SpecError: it, or a wrapper, cannot be built with these arguments.
    """
    kwargs: dict[str, Any] = dict(kwargs) if render_mode is None else {**kwargs, "render_mode": render_mode}
    if isinstance(found, Registered):
        maker = _creator(found, name)
        _quiet_mujoco(found)
        env = _build(lambda: gym.make(found, disable_env_checker=True, **kwargs), maker, f"env.name: {name}", "env")
    else:
        env = _build(lambda: found(**kwargs), found, f"env.name: {name}", "env")
    if not isinstance(env, gym.Env):
        raise SpecError(f"env.name: {name} makes a {type(env).__name__}, not a gymnasium.Env")
    limit = None
    wrappers = list(wrappers)
    if isinstance(found, Registered) and not wrappers:
        # the two outermost wrappers of gym.make cost a tenth of a CartPole step; a vector keeps time for all at once
        if type(env) is gym.wrappers.TimeLimit:
            limit, env = env.spec.max_episode_steps if env.spec else None, env.env
        if type(env) is gym.wrappers.OrderEnforcing:
            env = env.env
    if isinstance(found, Registered) and found.entry_point in _KEEP_THEIR_WORLD:
        env = _FreshWorld(env)
    for index, wrapper in enumerate(wrappers):
        env = _wrap(env, wrapper, f"env.wrappers.{index}")
    return env, limit


def find_wrapper(name: str, where: str) -> WrapperMaker:
    """Return the wrapper called `name`: a registered one, one of `gymnasium.wrappers`, or "my_pkg.wrappers:MyWrapper".

    Raises:
        SpecError: there is no such wrapper; `where` is its path in the spec.
    """
    if name in _WRAPPERS:
        return _WRAPPERS[name]
    if ":" in name:
        return import_callable(name, where)
    if name in gym.wrappers.__all__ and isinstance(getattr(gym.wrappers, name), type):
        return getattr(gym.wrappers, name)
    raise SpecError(f"{where}: no wrapper {name!r}{did_you_mean(name, [*_WRAPPERS, *gym.wrappers.__all__])}")


class _FreshWorld(gym.Wrapper):
    """Begins every episode in a new Box2D world.

    What an old world remembers of earlier episodes (in the order of its contacts) shows in the last bits of the new
    one, which could then not be replayed. gymnasium does the same for LunarLander (its issue 728).
    """

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Start an episode."""
        env: Any = self.unwrapped
        env._destroy()
        env.world = type(env.world)(gravity=env.world.gravity)
        return self.env.reset(seed=seed, options=options)


def _wrap(env: gym.Env, wrapper: Mapping[str, Any], where: str) -> gym.Env:
    arguments = dict(wrapper)
    name = arguments.pop("id")
    maker = find_wrapper(name, f"{where}.id")
    return _build(lambda: maker(env, **arguments), maker, f"{where}.id: {name}", where)


def _build(build: Callable[[], gym.Env], maker: Callable[..., Any], what: str, where: str) -> gym.Env:
    """Call `build`; turn what a wrong argument or a missing package raises into one line."""
    try:
        return build()
    except TypeError as error:
        wrong = wrong_argument(error, maker, what.partition(": ")[2], where)
        if wrong is not None:
            raise wrong from error
        if _depth(error) > 2:  # raised within, not by the call
            raise
        raise SpecError(f"{what} cannot be made: {error}") from error
    except (gym.error.Error, ImportError, AssertionError, ValueError) as error:
        raise SpecError(f"{what} cannot be made: {' '.join(str(error).split())}{_own_place(error)}") from error


def _depth(error: BaseException) -> int:
    """Return the frames from where `error` was caught to where it was raised."""
    return len(traceback.extract_tb(error.__traceback__))


def _own_place(error: BaseException) -> str:
    """Return file and line of an error that was raised in the user's own code; nothing for that of a package."""
    frame = traceback.extract_tb(error.__traceback__)[-1]
    mine = Path(frame.filename)
    return "" if {"site-packages", "slm_lab"} & set(mine.parts) else f" ({mine.name}, line {frame.lineno})"


def _quiet_mujoco(found: Registered) -> None:
    """Log what MuJoCo warns of, each thing once; by itself it prints it each time, and writes MUJOCO_LOG.TXT."""
    if isinstance(found.entry_point, str) and "mujoco" in found.entry_point:
        import mujoco

        mujoco.set_mju_user_warning(_log_mujoco)  # ty: ignore[missing-attribute] (a compiled function)


@cache
def _log_mujoco(message: str) -> None:
    level = "DEBUG" if "deprecated" in message else "WARNING"
    logger.log(level, "MuJoCo: {}", message)


def _creator(found: Registered, name: str) -> Callable[..., Any]:
    if callable(found.entry_point):
        return found.entry_point
    if found.entry_point is None:
        raise SpecError(
            f"env.name: {name} exists only as a vector environment of gymnasium, which the lab does not use"
        )
    try:
        return gym.envs.registration.load_env_creator(found.entry_point)
    except (ImportError, AttributeError, gym.error.Error) as error:
        raise SpecError(f"env.name: {name} needs a package that is not there: {error}") from error


def _newer_version(name: str) -> str:
    """Return the id that took the place of `name`, an older version that is gone; SpecError if there is none."""
    base, _, version = name.rpartition("-v")
    versions = sorted(
        int(match[1]) for known in gym.registry if (match := re.fullmatch(rf"{re.escape(base)}-v(\d+)", known))
    )
    if base and version.isdigit() and versions and int(version) < versions[-1]:
        newer = f"{base}-v{min(known for known in versions if known > int(version))}"
        logger.warning("env.name: gymnasium has no {} any more; {} is used", name, newer)
        return newer
    near = did_you_mean(name, gym.registry) or "; gymnasium.pprint_registry() lists those that there are"
    raise SpecError(f"env.name: no environment {name!r}{near}")
