import math
from typing import NamedTuple

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.testing import assert_close

from slm_lab.agent.algorithm.estimator import (
    gae,
    monte_carlo_return,
    nstep_return,
    project,
    soft_value,
    standardize,
    successor_value,
    symexp,
    symlog,
    td_target,
)

# Four environments side by side, worked out by hand with gamma = lam = 1/2: every number is an exact binary fraction.
#   env 0: nothing ends                      env 1: terminated at row 1 (the value behind it, 100, must not count)
#   env 2: truncated at row 1, V(final) = 6  env 3: truncated at rows 0 and 2, terminated at the last row
REWARD = torch.tensor([[1.0, 1, 1, 1], [2, 2, 2, 2], [4, 4, 4, 4], [8, 8, 8, 8]])
VALUE = torch.tensor([[2.0, 2, 2, 2], [4, 4, 4, 4], [2, 2, 2, 2], [0, 0, 0, 0]])
NEXT_VALUE = torch.tensor([[4.0, 4, 4, 6], [2, 100, 6, 2], [0, 0, 0, 8], [4, 4, 4, 99]])
TERMINATED = torch.tensor([[0, 0, 0, 0], [0, 1, 0, 0], [0, 0, 0, 0], [0, 0, 0, 1]], dtype=torch.bool)
TRUNCATED = torch.tensor([[0, 0, 0, 1], [0, 0, 1, 0], [0, 0, 0, 1], [0, 0, 0, 0]], dtype=torch.bool)
DONE = TERMINATED | TRUNCATED


def test_gae_by_hand():
    assert gae(REWARD, VALUE, NEXT_VALUE, TERMINATED, DONE, gamma=0.5, lam=0.5).tolist() == [
        [1.03125, 0.5, 1.25, 2.0],
        [0.125, -2.0, 1.0, 0.5],
        [4.5, 4.5, 4.5, 6.0],
        [10.0, 10.0, 10.0, 8.0],
    ]


def test_nstep_return_by_hand():
    assert nstep_return(REWARD, NEXT_VALUE, TERMINATED, DONE, gamma=0.5).tolist() == [
        [4.25, 2.0, 3.5, 4.0],
        [6.5, 2.0, 5.0, 6.0],
        [9.0, 9.0, 9.0, 8.0],
        [10.0, 10.0, 10.0, 8.0],
    ]


def test_monte_carlo_return_by_hand():
    assert monte_carlo_return(REWARD, DONE, gamma=0.5).tolist() == [
        [4.0, 2.0, 2.0, 1.0],
        [6.0, 2.0, 2.0, 4.0],
        [8.0, 8.0, 8.0, 4.0],
        [8.0, 8.0, 8.0, 8.0],
    ]


def test_td_target_by_hand():
    target = td_target(torch.tensor([1.0, 1.0]), torch.tensor([10.0, 10.0]), torch.tensor([False, True]), gamma=0.5)
    assert target.tolist() == [6.0, 1.0]


def test_successor_value_by_hand():
    value = torch.tensor([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]])
    # env 1 ended at row 0 (index 0 * 2 + 1), env 0 at row 2 (index 2 * 2 + 0)
    successor = successor_value(value, torch.tensor([7.0, 8.0]), torch.tensor([1, 4]), torch.tensor([-1.0, -2.0]))
    assert successor.tolist() == [[3.0, -1.0], [5.0, 6.0], [-2.0, 8.0]]


def test_successor_value_without_an_ended_episode():
    none = torch.tensor([], dtype=torch.int64)
    successor = successor_value(torch.tensor([[1.0], [3.0]]), torch.tensor([7.0]), none, torch.tensor([]))
    assert successor.tolist() == [[3.0], [7.0]]


class Rollout(NamedTuple):
    reward: torch.Tensor
    value: torch.Tensor
    next_value: torch.Tensor
    terminated: torch.Tensor
    done: torch.Tensor


@st.composite
def rollouts(draw, min_rows=1):
    rows, envs = draw(st.integers(min_rows, 17)), draw(st.integers(1, 3))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**32 - 1)))
    reward, value = (torch.randn(rows, envs, generator=generator, dtype=torch.float64) for _ in range(2))
    last_value = torch.randn(envs, generator=generator, dtype=torch.float64)
    end = draw(st.sampled_from([0.0, 0.2, 0.7]))
    terminated, truncated = (torch.rand(rows, envs, generator=generator) < end / 2 for _ in range(2))
    done = terminated | truncated
    ended = done.flatten().nonzero().squeeze(-1)
    final_value = torch.randn(len(ended), generator=generator, dtype=torch.float64)
    return Rollout(reward, value, successor_value(value, last_value, ended, final_value), terminated, done)


unit = st.floats(0, 1)


@settings(deadline=None)
@given(rollouts(), unit, unit)
def test_gae_obeys_its_recursion(rollout, gamma, lam):
    advantage = gae(*rollout, gamma, lam)
    delta = td_target(rollout.reward, rollout.next_value, rollout.terminated, gamma) - rollout.value
    following = torch.cat([advantage[1:], torch.zeros_like(advantage[:1])])
    assert_close(advantage, delta + gamma * lam * torch.where(rollout.done, 0.0, following))


@settings(deadline=None)
@given(rollouts(min_rows=2), unit, unit, st.data())
def test_nothing_after_a_boundary_reaches_back(rollout, gamma, lam, data):
    boundary = data.draw(st.integers(0, len(rollout.reward) - 2))
    rollout.done[boundary] = True
    changed = rollout._replace(reward=rollout.reward.clone(), value=rollout.value.clone())
    changed.reward[boundary + 1 :] += 1000.0
    changed.value[boundary + 1 :] -= 1000.0
    rows = slice(boundary + 1)
    assert torch.equal(gae(*rollout, gamma, lam)[rows], gae(*changed, gamma, lam)[rows])
    reward, next_value, terminated, done = rollout.reward, rollout.next_value, rollout.terminated, rollout.done
    assert torch.equal(
        nstep_return(reward, next_value, terminated, done, gamma)[rows],
        nstep_return(changed.reward, next_value, terminated, done, gamma)[rows],
    )
    assert torch.equal(
        monte_carlo_return(reward, done, gamma)[rows], monte_carlo_return(changed.reward, done, gamma)[rows]
    )


@settings(deadline=None)
@given(rollouts(), unit)
def test_lam_0_is_the_td_error(rollout, gamma):
    expected = td_target(rollout.reward, rollout.next_value, rollout.terminated, gamma) - rollout.value
    assert_close(gae(*rollout, gamma, 0.0), expected)


@settings(deadline=None)
@given(rollouts(), unit)
def test_lam_1_is_the_bootstrapped_return(rollout, gamma):
    reward, value, next_value, terminated, done = rollout
    assert_close(gae(*rollout, gamma, 1.0) + value, nstep_return(reward, next_value, terminated, done, gamma))


@settings(deadline=None)
@given(rollouts(), unit)
def test_returns_agree_where_nothing_is_bootstrapped(rollout, gamma):
    reward, _, next_value, _, done = rollout
    done[-1] = True
    assert_close(nstep_return(reward, next_value, done, done, gamma), monte_carlo_return(reward, done, gamma))


@settings(deadline=None)
@given(rollouts(), st.floats(0, 0.99), unit, st.floats(-5, 5))
def test_a_time_limit_is_no_reason_for_surprise(rollout, gamma, lam, reward):
    # a task that never ends and always pays the same is worth r / (1 - gamma), however often a time limit cuts it
    value = torch.full_like(rollout.reward, reward / (1 - gamma))
    never = torch.zeros_like(rollout.terminated)
    advantage = gae(torch.full_like(value, reward), value, value, never, rollout.done, gamma, lam)
    assert_close(advantage, torch.zeros_like(value), rtol=0, atol=1e-9)


def test_estimators_leave_their_arguments_alone():
    arguments = [tensor.clone() for tensor in (REWARD, VALUE, NEXT_VALUE, TERMINATED, TERMINATED | TRUNCATED)]
    reward, value, next_value, terminated, done = arguments
    before = [tensor.clone() for tensor in arguments]
    gae(reward, value, next_value, terminated, done, 0.9, 0.9)
    nstep_return(reward, next_value, terminated, done, 0.9)
    monte_carlo_return(reward, done, 0.9)
    assert all(map(torch.equal, before, arguments))


def test_standardize():
    assert_close(standardize(torch.tensor([[1.0, 3.0], [1.0, 3.0]])), torch.tensor([[-1.0, 1.0], [-1.0, 1.0]]))
    assert standardize(torch.tensor([5.0])).tolist() == [0.0]
    assert standardize(torch.full((3,), 2.0)).tolist() == [0.0, 0.0, 0.0]


def test_symlog_by_hand():
    e = torch.tensor(1.0).exp().item()
    assert_close(symlog(torch.tensor([0.0, e - 1, 1 - e * e])), torch.tensor([0.0, 1.0, -2.0]))


@given(st.lists(st.floats(-1e6, 1e6, width=32), min_size=1))
def test_symexp_undoes_symlog(values):
    x = torch.tensor(values, dtype=torch.float64)
    assert_close(symexp(symlog(x)), x)
    assert (symlog(x).abs() <= x.abs()).all()


SUPPORT = torch.tensor([0.0, 1.0, 2.0, 3.0])


@pytest.mark.parametrize(
    ("probability", "reward", "discount", "projected"),
    [
        ([0.1, 0.2, 0.3, 0.4], 0.0, 1.0, [0.1, 0.2, 0.3, 0.4]),
        ([0, 1, 0, 0], 0.25, 1.0, [0, 0.75, 0.25, 0]),  # 1.25
        ([0.5, 0, 0, 0.5], 1.0, 0.5, [0, 0.5, 0.25, 0.25]),  # 1 and 2.5
        ([0.1, 0.2, 0.3, 0.4], 1.5, 0.0, [0, 0.5, 0.5, 0]),  # an end: the reward alone
        ([0, 0.5, 0, 0.5], 1.0, 1.0, [0, 0, 0.5, 0.5]),  # 2 and 4, which is more than it can tell
        ([1, 0, 0, 0], -7.0, 1.0, [1, 0, 0, 0]),
        ([0.25, 0.25, 0.25, 0.25], 0.0, 0.5, [0.375, 0.5, 0.125, 0]),  # 0, 0.5, 1, 1.5
    ],
)
def test_projection_by_hand(probability, reward, discount, projected):
    p = torch.tensor([probability], dtype=torch.float32)
    result = project(p, torch.tensor([reward]), torch.tensor([discount]), SUPPORT)
    assert_close(result, torch.tensor([projected], dtype=torch.float32))


@settings(max_examples=200, deadline=None)
@given(seed=st.integers(0, 2**32), atoms=st.integers(2, 60), low=st.floats(-100, 100), width=st.floats(0.1, 200))
def test_a_projection_keeps_the_mass_and_inside_the_support_the_mean(seed, atoms, low, width):
    generator = torch.Generator().manual_seed(seed)
    support = torch.linspace(low, low + width, atoms, dtype=torch.float64)
    p = torch.rand(8, atoms, generator=generator, dtype=torch.float64).pow(4).softmax(-1)
    discount = torch.rand(8, generator=generator, dtype=torch.float64)
    # anywhere, and where all moved atoms lie inside
    anywhere = 3 * width * torch.randn(8, generator=generator, dtype=torch.float64)
    room = torch.rand(8, generator=generator, dtype=torch.float64)
    inside = (support[0] - discount * support[0]) + room * (1 - discount) * width
    for reward in (anywhere, inside):
        projected = project(p, reward, discount, support)
        assert (projected >= 0).all()
        assert_close(projected.sum(-1), torch.ones_like(reward))
    assert_close(projected @ support, inside + discount * (p @ support), atol=1e-8 * (abs(low) + width), rtol=1e-8)


def test_soft_value_of_a_sample_is_by_the_lowest_critic():
    q = torch.tensor([[[3.0], [1.0]], [[2.0], [5.0]]])  # two critics, two observations, a sample each
    value = soft_value(q, torch.ones(2, 1), torch.tensor([[-1.0], [-3.0]]), torch.tensor(0.5))
    assert_close(value, torch.tensor([2.0 + 0.5, 1.0 + 1.5]))


def test_soft_value_of_all_actions_is_by_the_mean_critic():
    q = torch.tensor([[[3.0, 0.0]], [[1.0, 8.0]]])  # two critics, one observation, two actions
    prob = torch.tensor([[0.25, 0.75]])
    value = soft_value(q, prob, prob.log(), torch.tensor(0.5))
    entropy = -(0.25 * math.log(0.25) + 0.75 * math.log(0.75))
    assert_close(value, torch.tensor([0.25 * 2.0 + 0.75 * 4.0 + 0.5 * entropy]))
