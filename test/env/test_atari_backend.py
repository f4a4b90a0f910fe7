"""Against the emulator itself, in gymnasium's other autoreset mode: without the phantom steps all must be the same."""

import numpy as np
import pytest
from ale_py.vector_env import AtariVectorEnv
from conftest import random_actions, round_trip, same_step

from slm_lab.env import atari_backend
from slm_lab.lib.rng import derive_seed

MASK = 0x7FFFFFFF


class Reference:
    """One game, step by step; `lives` and `over` are the emulator's own."""

    def __init__(self, game, seed, **options):
        options = {"repeat_action_probability": 0.25, "reward_clipping": False, "num_threads": 1, **options}
        self.ale = AtariVectorEnv(game, 1, autoreset_mode="NextStep", **options)
        obs, info = self.ale.reset(seed=np.array([seed]))
        self.obs, self.lives = obs[0], info["lives"][0]

    def step(self, action):
        obs, reward, terminated, truncated, info = self.ale.step(np.array([action]))
        final, lost = obs[0], info["lives"][0] < self.lives
        if terminated[0] or truncated[0]:
            obs, _, _, _, info = self.ale.step(np.array([0]))
        self.obs, self.lives = obs[0], info["lives"][0]
        return self.obs, float(reward[0]), bool(terminated[0]), bool(truncated[0]), final, lost


@pytest.mark.parametrize("life_loss", [False, True])
def test_whole_games_by_raw_points(build, life_loss):
    env = build("ALE/Seaquest-v5", num_envs=2, life_loss_info=life_loss)
    games = [Reference("seaquest", derive_seed(0, i, 1) & MASK) for i in range(2)]
    np.testing.assert_array_equal(env.reset(), [game.obs for game in games])
    totals, finished, lives = [[], []], [], 0
    for action in random_actions(env, 420):
        step = env.step(action)
        for i, game in enumerate(games):
            obs, points, over, cut, final, lost = game.step(action[i])
            totals[i].append(points)
            np.testing.assert_array_equal(step.obs[i], obs)
            np.testing.assert_array_equal(step.final_obs[i], final)
            assert step.reward[i] == np.sign(points)
            assert step.terminated[i] == (over or (life_loss and lost))
            assert step.truncated[i] == cut
            lives += lost and not over
            if over or cut:
                finished.append((i, sum(totals[i]), len(totals[i])))
                totals[i] = []
    assert env.stats.drain() == finished
    assert len(finished) >= 2
    assert lives > len(finished)
    assert max(total for _, total, _ in finished) >= 40


def test_the_time_limit_counts_agent_steps(build):
    env = build("ALE/Pong-v5", max_t=20)
    env.reset()
    truncated = [bool(env.step(np.array([0])).truncated[0]) for _ in range(60)]
    assert truncated == ([False] * 19 + [True]) * 3
    assert [episode.length for episode in env.stats.drain()] == [20, 20, 20]


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ({}, 1),
        ({"clip_reward": 50}, 5),
        ({"clip_reward": False}, 5),
        ({"clip_reward": False, "reward_scale": 0.1}, 0.5),
    ],
    ids=str,
)
def test_learning_sees_the_sign_unless_the_spec_says_otherwise(build, keys, expected):
    env = build("ALE/SpaceInvaders-v5", **keys)
    env.reset()
    # the lowest row of invaders is worth 5 points each
    seen = [env.step(action).reward[0] for action in random_actions(env, 120)]
    assert min(reward for reward in seen if reward) == np.float32(expected)


def test_old_ids_bring_their_own_stickiness(build):
    env = build("PongNoFrameskip-v4")
    game = Reference("pong", derive_seed(0, 0, 1) & MASK, repeat_action_probability=0.0)
    np.testing.assert_array_equal(env.reset()[0], game.obs)
    for action in random_actions(env, 30):
        np.testing.assert_array_equal(env.step(action).obs[0], game.step(action[0])[0])


def test_the_keys_of_old_specs_shape_the_picture(build):
    env = build("ALE/Pong-v5", frame_op="concat", frame_op_len=2, image_downsize=[42, 40])
    assert env.reset().shape == (1, 2, 42, 40)
    assert (env.obs_space.shape, env.frame_stack) == ((2, 42, 40), 2)


def test_frames_slide_within_a_game(build):
    env = build("ALE/Breakout-v5", life_loss_info=True)
    obs = env.reset()
    assert not obs[0, :3].any()
    over = 0
    for action in random_actions(env, 250):
        step = env.step(action)
        np.testing.assert_array_equal(step.final_obs[0, :3], obs[0, 1:])
        if step.final_obs is not step.obs:
            over += 1
            assert not step.obs[0, :3].any()
        obs = step.obs
    assert over


def test_streams_are_renewed_and_replayed(build, monkeypatch):
    monkeypatch.setattr(atari_backend, "RESEED", 100)
    env = build("ALE/Breakout-v5", num_envs=2, life_loss_info=True)
    env.reset()
    actions = random_actions(env, 500)
    ages = []
    for action in actions[:400]:
        env.step(action)
        ages.append(env.state_dict()["age"].max() if len(ages) % 50 == 0 else 0)
    state = round_trip(env.state_dict())
    assert state["seedings"].min() > 1, "a game that ends with an old stream gets a new one"
    assert len(state["actions"]) == state["age"].max() < 400
    assert len(set(state["age"])) == 2
    again = build("ALE/Breakout-v5", num_envs=2, life_loss_info=True, how={"num_threads": 2})
    assert again.load_state_dict(state)
    for action in actions[400:]:
        assert same_step(again.step(action), env.step(action))
    assert again.stats.drain() == env.stats.drain()


def test_a_state_of_another_course_begins_afresh(build):
    env = build("ALE/Breakout-v5")
    env.reset()
    for action in random_actions(env, 30):
        env.step(action)
    state = round_trip(env.state_dict())
    again = build("ALE/Breakout-v5", seed=1)
    assert again.load_state_dict(state) is False
    assert again.stats.running_length.tolist() == [0]
    assert again.step(np.array([0])).obs.shape == (1, 4, 84, 84)


def test_the_picture_is_of_the_same_game_in_colour(build, monkeypatch):
    monkeypatch.setattr(atari_backend, "RESEED", 100)
    large = {"img_height": 210, "img_width": 160, "grayscale": False, "stack_num": 1}
    env = build("ALE/Breakout-v5", num_envs=2, how={"render_mode": "rgb_array"})
    colour = build("ALE/Breakout-v5", num_envs=2, **large)
    env.reset(), colour.reset()
    assert colour.obs_space.shape == (3, 210, 160)
    for action in random_actions(env, 250):
        env.step(action)
        obs = colour.step(action).obs
        np.testing.assert_array_equal(env.render(), np.moveaxis(obs[0], 0, -1))
    assert env.stats.episodes
    assert colour.render() is None
