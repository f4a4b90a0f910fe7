import inspect
import math

import numpy as np
import pytest
import torch
import torch.distributions as reference
from gymnasium import spaces
from torch.testing import assert_close

from slm_lab.agent.net.distribution import (
    ACTION_PDS,
    LOG_STD_MAX,
    LOG_STD_MIN,
    Bernoulli,
    Beta,
    Categorical,
    Gumbel,
    LogNormal,
    MultiCategorical,
    Normal,
    gumbel_softmax,
    policy_heads,
    squashed_sample,
)
from slm_lab.spec.errors import SpecError

DRAWS = 40_000


def values(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def draw(policy, seed=0):
    return torch.from_numpy(policy.sample(np.random.default_rng(seed)))


def mode(policy):
    return torch.from_numpy(policy.mode())


LOC, LOG_SCALE = values(5, 3), 0.5 * values(5, 3, seed=1)
SCALE = LOG_SCALE.exp()
ALPHA, BETA = 1 + values(5, 3).exp(), 1 + values(5, 3, seed=1).exp()
STRETCH = reference.AffineTransform(-1.0, 2.0)  # (0, 1) -> (-1, 1)

# ours, and torch's with the same parameters
CONTINUOUS = {
    "Normal": (Normal(LOC, LOG_SCALE), reference.Normal(LOC, SCALE)),
    "LogNormal": (LogNormal(LOC, LOG_SCALE), reference.LogNormal(LOC, SCALE)),
    "Gumbel": (Gumbel(LOC, LOG_SCALE), reference.Gumbel(LOC, SCALE)),
    "Beta": (Beta(ALPHA, BETA), reference.TransformedDistribution(reference.Beta(ALPHA, BETA), STRETCH)),
}
DISCRETE = {
    "Categorical": (Categorical(LOC), reference.Categorical(logits=LOC)),
    "Bernoulli": (Bernoulli(LOC), reference.Bernoulli(logits=LOC)),
}
ALL = CONTINUOUS | DISCRETE


def summed(x):
    return x if x.dim() == 1 else x.sum(-1)


@pytest.mark.parametrize("name", ALL)
def test_log_prob_is_torchs_summed_over_dimensions(name):
    ours, theirs = ALL[name]
    action = theirs.sample()
    assert_close(ours.log_prob(action), summed(theirs.log_prob(action)), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", ALL)
def test_entropy_is_torchs_summed_over_dimensions(name):
    ours, theirs = ALL[name]
    # torch has no entropy for a transformed distribution; a stretch by 2 adds log 2 in each dimension
    entropy = reference.Beta(ALPHA, BETA).entropy() + math.log(2) if name == "Beta" else theirs.entropy()
    assert_close(ours.entropy(), summed(entropy), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", CONTINUOUS)
def test_no_action_is_more_probable_than_the_mode(name):
    ours, _ = CONTINUOUS[name]
    best = ours.log_prob(mode(ours))
    for step in (-1e-2, 1e-2):
        assert (ours.log_prob(mode(ours) + step) < best).all()


@pytest.mark.parametrize("name", ["Normal", "Gumbel", "Beta", "LogNormal"])
def test_samples_are_distributed_as_they_should(name):
    loc, log_scale = torch.tensor([0.3]), torch.tensor([-0.4])
    ours, cdf = {
        "Normal": (Normal, reference.Normal(loc, log_scale.exp()).cdf),
        "LogNormal": (LogNormal, reference.LogNormal(loc, log_scale.exp()).cdf),
        "Gumbel": (Gumbel, reference.Gumbel(loc, log_scale.exp()).cdf),
        "Beta": (Beta, lambda action: 1 - (1 - (action + 1) / 2) ** 3),  # Beta(1, 3)
    }[name]
    parameters = (torch.tensor([1.0]), torch.tensor([3.0])) if name == "Beta" else (loc, log_scale)
    draws = draw(ours(*(p.expand(DRAWS, 1) for p in parameters)))
    assert draws.dtype == torch.float32
    # Kolmogorov-Smirnov: the greatest distance of the two cumulative distributions; 2 / sqrt(n) is passed once in 1500
    uniform = cdf(draws).squeeze(-1).sort().values
    assert (uniform - (torch.arange(DRAWS) + 0.5) / DRAWS).abs().max() < 2 / math.sqrt(DRAWS)


def test_categorical_frequencies():
    p = torch.tensor([0.5, 0.3, 0.15, 0.05])
    action = draw(Categorical(p.log().expand(DRAWS, 4)))
    assert action.dtype == torch.int64
    assert (torch.bincount(action, minlength=4) / DRAWS - p).abs().max() < 0.0125  # 5 standard deviations


def test_categorical_never_draws_what_is_impossible():
    logits = torch.tensor([0.0, -torch.inf, 0.0]).expand(DRAWS, 3)
    assert (draw(Categorical(logits)) != 1).all()


def test_bernoulli_frequencies_and_dtype():
    logits = torch.tensor([-1.0, 0.0, 2.0])
    action = draw(Bernoulli(logits.expand(DRAWS, 3)))
    assert action.dtype == torch.int8
    assert (action.float().mean(0) - logits.sigmoid()).abs().max() < 0.0125
    assert Bernoulli(logits).mode().tolist() == [0, 0, 1]


def test_bernoulli_takes_its_own_actions_and_floats():
    ours = DISCRETE["Bernoulli"][0]
    action = draw(ours)
    assert_close(ours.log_prob(action), ours.log_prob(action.float()))


def test_multi_categorical_is_independent_categoricals_side_by_side():
    logits = values(6, 5)
    ours = MultiCategorical.from_one_head(logits, nvec=[2, 3])
    first, second = reference.Categorical(logits=logits[:, :2]), reference.Categorical(logits=logits[:, 2:])
    action = draw(ours)
    assert action.shape == (6, 2)
    assert (action < torch.tensor([2, 3])).all()
    assert_close(ours.log_prob(action), first.log_prob(action[:, 0]) + second.log_prob(action[:, 1]))
    assert_close(ours.entropy(), first.entropy() + second.entropy())
    assert torch.equal(mode(ours), torch.stack([logits[:, :2].argmax(-1), logits[:, 2:].argmax(-1)], dim=-1))


SAMPLED = {name: ours for name, (ours, _) in ALL.items()} | {"MultiCategorical": MultiCategorical(LOC, LOC)}


@pytest.mark.parametrize("name", SAMPLED)
def test_samples_come_from_the_generator_alone(name):
    ours = SAMPLED[name]
    torch.manual_seed(1)
    first = draw(ours, 5)
    assert torch.equal(torch.get_rng_state(), torch.manual_seed(1).get_state())
    torch.manual_seed(2)
    assert torch.equal(first, draw(ours, 5))
    assert not torch.equal(first, draw(ours, 6))


@pytest.mark.parametrize("cls", [Normal, LogNormal, Gumbel, Beta])
def test_a_sample_carries_no_gradient(cls):
    # it would cancel the gradient of log_prob, which the policy gradient lives on
    outputs = [values(2, 3).requires_grad_(), values(2, 3, seed=1).requires_grad_()]
    policy = cls.from_net(*outputs)
    action = draw(policy)
    assert not action.requires_grad
    policy.log_prob(action).sum().backward()
    assert all(output.grad.abs().sum() > 0 for output in outputs)


@pytest.mark.parametrize("cls", [Normal, LogNormal, Gumbel])
def test_a_log_scale_from_the_net_is_clamped(cls):
    policy = cls.from_net(torch.zeros(1, 2), torch.tensor([[-100.0, 100.0]]))
    assert policy.log_scale.tolist() == [[LOG_STD_MIN, LOG_STD_MAX]]


@pytest.mark.parametrize("output", [-200.0, 0.0, 200.0])
def test_beta_is_finite_for_any_net_output(output):
    policy = Beta.from_net(torch.full((1000, 1), output), torch.full((1000, 1), output))
    action = draw(policy)
    assert ((action > -1) & (action < 1)).all()
    for number in (policy.log_prob(action), policy.entropy(), policy.log_prob(mode(policy))):
        assert number.isfinite().all()
    assert_close(mode(policy), torch.zeros(1000, 1), atol=1e-6, rtol=0)


def test_beta_samples_stay_off_the_poles():
    policy = Beta(torch.full((1000, 1), 1e-3), torch.full((1000, 1), 1e-3))  # nearly all its mass at -1 and 1
    assert policy.log_prob(draw(policy)).isfinite().all()


def test_normal_takes_one_log_scale_for_all_observations():
    policy = Normal(LOC, LOG_SCALE[0])
    expected = reference.Normal(LOC, SCALE[0].expand_as(LOC))
    assert_close(policy.log_prob(LOC + 1), expected.log_prob(LOC + 1).sum(-1))
    assert_close(policy.entropy(), expected.entropy().sum(-1))


BOX = spaces.Box(-1.0, 1.0, (3,))
SPACES = [
    (spaces.Discrete(4), "default"),
    (spaces.MultiDiscrete([2, 5]), "default"),
    (spaces.MultiBinary(6), "default"),
]
SPACES += [(BOX, pdtype) for pdtype in ("Normal", "Beta", "Gumbel", "LogNormal")]


@pytest.mark.parametrize(
    ("space", "pdtype", "cls", "widths", "dtype"),
    [
        (spaces.Discrete(4), "default", Categorical, [4], torch.int64),
        (spaces.MultiDiscrete([2, 5]), "default", MultiCategorical, [7], torch.int64),
        (spaces.MultiBinary(6), "default", Bernoulli, [6], torch.int8),
        (BOX, "default", Normal, [3, 3], torch.float32),
        (BOX, "MultivariateNormal", Normal, [3, 3], torch.float32),
        (BOX, "Beta", Beta, [3, 3], torch.float32),
        (BOX, "Gumbel", Gumbel, [3, 3], torch.float32),
        (BOX, "LogNormal", LogNormal, [3, 3], torch.float32),
    ],
)
def test_policy_heads(space, pdtype, cls, widths, dtype):
    build, dims = policy_heads(space, pdtype)
    assert dims == widths
    policy = build(*(values(8, width) for width in dims))
    assert isinstance(policy, cls)
    action = draw(policy)
    assert action.dtype == dtype
    assert action.shape == (8, *space.shape)
    assert policy.log_prob(action).shape == policy.entropy().shape == (8,)
    if pdtype != "LogNormal" and cls is not Normal and cls is not Gumbel:  # those have no bounds
        assert all(space.contains(np.asarray(row, dtype=space.dtype)) for row in action.numpy())


@pytest.mark.parametrize(("space", "pdtype"), SPACES)
def test_what_is_acted_on_in_arrays_draws_as_what_is_learned_from(space, pdtype):
    build, dims = policy_heads(space, pdtype)
    outputs = [3 * values(200, width, seed=k).requires_grad_() for k, width in enumerate(dims)]
    learned, acted = build(*outputs), build(*(out.detach().numpy() for out in outputs))
    for ours, expected in ((draw(acted), draw(learned)), (mode(acted), mode(learned))):
        assert ours.dtype == expected.dtype
        assert ours.shape == expected.shape == (200, *space.shape)
        assert_close(ours, expected, rtol=1e-5, atol=1e-5)


def test_one_log_scale_for_all_observations_does_for_arrays_too():
    learned, acted = Normal(LOC, LOG_SCALE[0]), Normal(LOC.numpy(), LOG_SCALE[0].numpy())
    assert_close(draw(acted), draw(learned))


@pytest.mark.parametrize(("space", "pdtype"), SPACES)
def test_a_net_that_came_to_no_number_is_sampled_all_the_same(space, pdtype):
    # it is the next update that says, in words, that training diverged
    build, dims = policy_heads(space, pdtype)
    assert draw(build(*(np.full((4, width), np.nan, np.float32) for width in dims))).shape == (4, *space.shape)


@pytest.mark.parametrize(
    ("space", "pdtype", "message"),
    [
        (BOX, "Categorical", r"'Categorical' does not suit continuous actions .*use Normal, MultivariateNormal, Beta"),
        (spaces.Discrete(2), "Normal", r"'Normal' does not suit discrete actions .*use Categorical"),
        (spaces.Box(-1.0, 1.0, (2, 2)), "default", r"action space Box\(.*\) is not supported"),
        (spaces.Text(3), "default", r"action space Text\(.*\) is not supported"),
    ],
)
def test_a_distribution_that_does_not_suit_is_an_error(space, pdtype, message):
    with pytest.raises(SpecError, match=message):
        policy_heads(space, pdtype)


def test_every_distribution_of_the_table_can_be_built():
    for known in ACTION_PDS.values():
        assert not any(inspect.isabstract(cls) for cls in known.values())


@pytest.mark.parametrize("scale", [0.05, 0.5, 2.0])
def test_the_density_of_a_squashed_gaussian_by_numerical_change_of_variables(scale):
    noise = torch.linspace(-2, 2, 41, dtype=torch.float64).unsqueeze(-1)
    policy = Normal(torch.full((41, 1), 0.3, dtype=torch.float64), torch.full((1,), math.log(scale)).double())
    action, log_prob = squashed_sample(policy, noise)
    # the share of samples between two noises, over the distance between the actions they become
    step = 1e-5
    low, high = (squashed_sample(policy, noise + shift)[0] for shift in (-step, step))
    share = reference.Normal(0.0, 1.0).cdf(noise + step) - reference.Normal(0.0, 1.0).cdf(noise - step)
    assert_close(log_prob, (share / (high - low)).log().squeeze(-1), rtol=1e-4, atol=1e-4)
    assert (action.abs() < 1).all()


def test_the_density_of_a_squashed_gaussian_is_one_in_all():
    u = torch.linspace(-12, 12, 20_001, dtype=torch.float64).unsqueeze(-1)
    policy = Normal(torch.tensor([0.4], dtype=torch.float64).expand_as(u), torch.tensor([0.2], dtype=torch.float64))
    action, log_prob = squashed_sample(policy, (u - 0.4) * math.exp(-0.2))
    assert torch.trapezoid(log_prob.exp(), action.squeeze(-1)).item() == pytest.approx(1.0, abs=1e-6)


def test_a_squashed_sample_far_out_has_a_finite_density_and_gradient():
    loc = torch.tensor([[40.0, -40.0]], requires_grad=True)
    action, log_prob = squashed_sample(Normal(loc, torch.zeros(2)), torch.zeros(1, 2))
    assert action.tolist() == [[1.0, -1.0]]
    assert log_prob.item() == pytest.approx(2 * (-0.5 * math.log(2 * math.pi) - 2 * (math.log(2) - 40)))
    (grad,) = torch.autograd.grad(log_prob.sum(), loc)
    assert_close(grad, torch.tensor([[2.0, -2.0]]))


def test_the_dimensions_of_a_squashed_sample_are_summed():
    noise = values(5, 3, seed=2)
    whole = squashed_sample(Normal(LOC, LOG_SCALE), noise)[1]
    parts = [squashed_sample(Normal(LOC[:, [k]], LOG_SCALE[:, [k]]), noise[:, [k]])[1] for k in range(3)]
    assert_close(whole, sum(parts))


def test_gumbel_softmax_is_one_hot_with_the_gradient_of_its_relaxation():
    logits = torch.tensor([[0.5, 1.0, -1.0]], requires_grad=True)
    noise, weight = torch.tensor([[1.0, 0.0, 0.2]]), torch.tensor([[1.0, 2.0, 4.0]])
    action = gumbel_softmax(Categorical(logits), noise)
    assert action.tolist() == [[1.0, 0.0, 0.0]]
    relaxed = (logits.log_softmax(-1) + noise).softmax(-1)
    assert_close(*(torch.autograd.grad((x * weight).sum(), logits)[0] for x in (action, relaxed)))
