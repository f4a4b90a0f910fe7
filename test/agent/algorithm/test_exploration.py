import numpy as np
import pytest
import torch
from torch.testing import assert_close

from slm_lab.agent.algorithm.exploration import boltzmann, choose, epsilon_greedy, greedy, probabilities


def generator(seed=0):
    return np.random.default_rng(seed)


def test_greedy():
    q = torch.tensor([[1.0, 3.0, 2.0], [5.0, 4.0, 3.0]])
    assert greedy(q).tolist() == greedy(q.numpy()).tolist() == [1, 0]


def test_epsilon_greedy_has_a_coin_for_each_environment():
    q = torch.zeros(1000, 10)
    q[:, 3] = 1.0
    greedy_share = (epsilon_greedy(q, 0.5, generator()) == 3).mean()
    # half of them follow q, and a tenth of the others by chance; a single coin for all would give 1.0 or 0.1
    assert abs(greedy_share - 0.55) < 0.06


def test_epsilon_greedy_at_its_ends():
    q = torch.tensor([[0.0, 1.0, 0.0, 0.0]]).expand(4000, 4)
    assert (epsilon_greedy(q, 0.0, generator()) == 1).all()
    counts = np.bincount(epsilon_greedy(q, 1.0, generator()), minlength=4)
    assert np.abs(counts - 1000).max() < 140  # 5 standard deviations


def test_boltzmann_follows_the_values_and_the_temperature():
    q = torch.tensor([0.0, 2.0]).expand(20000, 2)
    for tau, share in ((1.0, 0.8808), (4.0, 0.6225), (1e-3, 1.0)):  # 1 / (1 + exp(-2 / tau))
        assert abs(boltzmann(q, tau, generator()).mean() - share) < 0.018  # 5 standard deviations


def test_exploration_draws_from_its_generator_alone():
    q = torch.from_numpy(generator(9).standard_normal((50, 4), np.float32))
    for explore in (epsilon_greedy, boltzmann):
        torch.manual_seed(1)
        first = explore(q, 0.7, generator(5))
        state = torch.get_rng_state()
        torch.manual_seed(2)
        assert np.array_equal(first, explore(q, 0.7, generator(5)))
        assert np.array_equal(first, explore(q.numpy(), 0.7, generator(5)))
        assert first.dtype == np.int64
        assert not np.array_equal(first, explore(q, 0.7, generator(6)))
        torch.manual_seed(1)
        assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize(
    ("policy", "explore_var", "expected"),
    [
        ("greedy", 0.0, [0.0, 1.0]),
        ("epsilon_greedy", 0.5, [0.25, 0.75]),
        ("epsilon_greedy", 0.0, [0.0, 1.0]),
        ("boltzmann", 1.0, [0.1192, 0.8808]),
        ("boltzmann", 4.0, [0.3775, 0.6225]),
    ],
)
def test_actions_are_chosen_with_these_probabilities(policy, explore_var, expected):
    q = torch.tensor([[0.0, 2.0], [2.0, 0.0]])
    known = probabilities(policy, q, explore_var)
    assert_close(known, torch.tensor([expected, expected[::-1]]), atol=1e-4, rtol=0)
    share = choose(policy, q[:1].expand(20000, 2), explore_var, generator()).mean()
    assert abs(share - expected[1]) < 0.018  # 5 standard deviations
