import subprocess
import sys
import textwrap

import gymnasium as gym
import numpy as np
import pytest
from counting_env import Doubled
from loguru import logger

from slm_lab.env import register_wrapper
from slm_lab.env.registry import find_env, find_wrapper
from slm_lab.spec import SpecError


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"name": "CartPol-v1"}, r"env\.name: no environment 'CartPol-v1'; did you mean 'CartPole-v1'"),
        ({"name": "CartPole-v9"}, r"env\.name: no environment 'CartPole-v9'; did you mean .*'CartPole-v1'"),
        ({"name": "ALE/Pnog-v5"}, r"did you mean 'ALE/Pong-v5'"),
        ({"name": "counting_env:Countr"}, r"counting_env has no 'Countr'; did you mean 'Counter'"),
        ({"name": "counting_env:NOT_CALLABLE"}, "has no 'NOT_CALLABLE'"),
        ({"name": "no_such_pkg.envs:MyEnv"}, r"env\.name: no module 'no_such_pkg\.envs'"),
        ({"name": "builtins:dict"}, "makes a dict, not a gymnasium.Env"),
        ({"name": "phys2d/CartPole-v1"}, r"env\.name: phys2d/CartPole-v1 "),
        ({"name": "CartPole-v1", "gravty": 3}, r"env\.gravty: CartPole-v1 takes no argument 'gravty'"),
        ({"name": "LunarLander-v3", "continous": True}, "did you mean 'continuous'"),
        ({"name": "LunarLander-v3", "gravity": 3}, "LunarLander-v3 cannot be made: gravity"),
        (
            {"name": "ALE/Pong-v5", "obs_type": "ram"},
            r"env\.obs_type: unknown to the Atari emulator \(known: .*maxpool",
        ),
        ({"name": "ALE/Pong-v5", "reward_clipping": True}, r"env\.reward_clipping: .*clip_reward"),
        ({"name": "ALE/Pong-v5", "wrappers": [{"id": "ClipAction"}]}, r"env\.wrappers: .*\"backend\": \"gymnasium\""),
        ({"name": "CartPole-v1", "backend": "ale"}, r"env\.backend: CartPole-v1 does not run on 'ale'"),
        ({"name": "CartPole-v1", "image_downsize": [8, 8]}, r"env\.image_downsize: CartPole-v1 shows no images"),
        (
            {"name": "CartPole-v1", "wrappers": [{"id": "ClipActon"}]},
            r"env\.wrappers\.0\.id: no wrapper 'ClipActon'; did",
        ),
        ({"name": "CartPole-v1", "wrappers": [{"id": "counting_env:Dubled"}]}, "did you mean 'Doubled'"),
        (
            {"name": "CartPole-v1", "wrappers": [{"id": "counting_env:Doubled", "facto": 3}]},
            r"env\.wrappers\.0\.facto: counting_env:Doubled takes no argument 'facto'; did you mean 'factor'",
        ),
        (
            {"name": "CartPole-v1", "wrappers": [{"id": "TransformReward"}]},
            r"env\.wrappers\.0\.id: TransformReward cannot be made: .* missing 1 required .*'func'",
        ),
        (
            {"name": "counting_env:Unmade"},
            r"counting_env:Unmade cannot be made: no room \(counting_env\.py, line \d+\)",
        ),
    ],
    ids=lambda value: str(value)[:60],
)
def test_a_mistake_is_one_line_with_the_remedy(build, keys, message):
    with pytest.raises(SpecError, match=message) as caught:
        build(**keys)
    assert "\n" not in str(caught.value)


def test_a_version_that_is_gone_gives_way_to_the_next(build):
    lines = []
    sink = logger.add(lines.append, format="{message}")
    env = build("LunarLander-v2")
    logger.remove(sink)
    assert env.obs_space.shape == (8,)
    assert lines == ["env.name: gymnasium has no LunarLander-v2 any more; LunarLander-v3 is used\n"]


def test_wrappers_apply_in_their_order_with_their_arguments(build):
    wrappers = [{"id": "counting_env:Doubled", "factor": 10}, {"id": "ClipReward", "max_reward": 15.0}]
    env = build("counting_env:Counter", wrappers=wrappers)
    env.reset()
    assert [env.step(np.array([0])).reward[0] for _ in range(2)] == [10, 15]
    env = build("counting_env:Counter", wrappers=wrappers[::-1])
    env.reset()
    assert [env.step(np.array([0])).reward[0] for _ in range(2)] == [10, 20]


def test_a_wrapper_registered_under_a_name(build):
    register_wrapper("tripled")(lambda env, factor=3.0: Doubled(env, factor))
    env = build("counting_env:Counter", wrappers=[{"id": "tripled"}])
    env.reset()
    assert env.step(np.array([0])).reward[0] == 3
    with pytest.raises(SpecError, match="no wrapper 'tripeld'; did you mean 'tripled'"):
        find_wrapper("tripeld", "here")


def test_the_environments_own_limit_counts_its_own_steps(build):
    env = build("test/Counter-v3", wrappers=[{"id": "RepeatAction", "num_repeats": 2}])
    env.reset()
    # its limit is 3: within the second pair
    assert [bool(env.step(np.array([0])).truncated[0]) for _ in range(4)] == [False, True, False, True]


def test_an_error_within_a_users_module_is_not_hidden(tmp_path, monkeypatch):
    (tmp_path / "broken_module.py").write_text("import a_package_that_is_not_there")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ModuleNotFoundError, match="a_package_that_is_not_there"):
        find_env("broken_module:MyEnv")


def test_an_environment_of_the_working_directory_in_a_child_process(tmp_path):
    package = tmp_path / "my_pkg"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "envs.py").write_text(
        textwrap.dedent("""
            from gymnasium.envs.classic_control import CartPoleEnv
            class MyEnv(CartPoleEnv):
                pass
        """)
    )
    program = textwrap.dedent("""
        from slm_lab.env.registry import find_env
        print(find_env("my_pkg.envs:MyEnv").__mro__[1].__name__)
    """)
    # -P keeps Python itself from putting the working directory on the path
    command = [sys.executable, "-P", "-c", program]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "CartPoleEnv"


def test_no_check_runs_at_every_step(build):
    env = build("CartPole-v1")
    assert type(env.envs[0]) is type(gym.make("CartPole-v1").unwrapped)
