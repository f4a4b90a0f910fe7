import pytest
import torch
from torch.testing import assert_close

from slm_lab.agent.algorithm.loss import (
    approx_kl,
    clipped_surrogate,
    make_loss,
    policy_gradient,
    q_loss,
    quantile_huber,
    value_loss,
)
from slm_lab.spec.errors import SpecError


def test_policy_gradient_by_hand():
    # -mean(-1 * 2, -3 * -4) = -(-2 + 12) / 2
    assert policy_gradient(torch.tensor([-1.0, -3.0]), torch.tensor([2.0, -4.0])).item() == -5.0


@pytest.mark.parametrize(
    ("ratio", "advantage", "loss", "gradient"),
    [  # clip_eps 0.2; the gradient is d loss / d log pi = -r A, or 0 where the clip holds
        (1.0, 2.0, -2.0, -2.0),
        (1.5, 2.0, -2.4, 0.0),  # better already: no reward beyond 1.2
        (0.5, 2.0, -1.0, -1.0),  # worse: the way back is open
        (1.5, -2.0, 3.0, 3.0),
        (0.5, -2.0, 1.6, 0.0),
    ],
)
def test_clipped_surrogate_by_hand(ratio, advantage, loss, gradient):
    old = torch.tensor([-1.0])
    log_prob = (old + torch.tensor([ratio]).log()).requires_grad_()
    result = clipped_surrogate(log_prob, old, torch.tensor([advantage]), torch.tensor(0.2))
    result.backward()
    assert_close(result.detach(), torch.tensor(loss))
    assert_close(log_prob.grad, torch.tensor([gradient]))


def test_clipped_surrogate_stays_finite_far_from_the_old_policy():
    loss = clipped_surrogate(torch.tensor([0.0]), torch.tensor([-500.0]), torch.tensor([-1.0]), torch.tensor(0.2))
    assert loss.isfinite()


MSE = make_loss({"name": "MSELoss"})


def test_value_loss_by_hand():
    assert value_loss(torch.tensor([1.0, 2.0]), torch.tensor([0.0, 5.0]), MSE).item() == 5.0


@pytest.mark.parametrize(
    ("value", "loss", "gradient"),
    [  # old value 0, target 2, clip 0.5
        (0.25, 1.75**2, -3.5),  # inside the clip: as without
        (1.0, 1.5**2, 0.0),  # nearer to the target than the clip allows: the clipped value counts, and it is constant
        (-1.0, 3.0**2, -6.0),  # beyond the clip on the wrong side: the worse of the two counts
    ],
)
def test_clipped_value_loss_by_hand(value, loss, gradient):
    prediction = torch.tensor([value], requires_grad=True)
    result = value_loss(prediction, torch.tensor([2.0]), MSE, torch.tensor([0.0]), torch.tensor(0.5))
    (slope,) = torch.autograd.grad(result, prediction)
    assert_close(result.detach(), torch.tensor(loss))
    assert_close(slope, torch.tensor([gradient]))


def test_q_loss_looks_only_at_the_action_taken():
    q = torch.tensor([[1.0, 20.0], [30.0, 4.0]], requires_grad=True)
    loss = q_loss(q, torch.tensor([0, 1]), torch.tensor([2.0, 7.0]), MSE)
    loss.sum().backward()
    assert loss.tolist() == [1.0, 9.0]
    assert q.grad.tolist() == [[-2.0, 0.0], [0.0, -6.0]]


@pytest.mark.parametrize(
    ("quantiles", "targets", "kappa", "loss"),
    [
        ([0.0], [3.0], 1.0, 0.5 * 2.5),
        ([0.0], [-3.0], 1.0, 0.5 * 2.5),
        ([0.0], [0.5], 1.0, 0.5 * 0.125),
        ([0.0], [3.0], 2.0, 0.5 * 2.0),  # 2 (3 - 1), divided by 2
        # tau = 1/4 and 3/4; of each quantile, the mean over the targets: too low counts tau, too high 1 - tau
        ([0.0, 0.0], [2.0, -2.0], 1.0, (0.25 + 0.75) / 2 * 1.5 + (0.75 + 0.25) / 2 * 1.5),
        ([1.0, 0.0], [3.0, 0.0], 1.0, (0.25 * 1.5 + 0.75 * 0.5) / 2 + (0.75 * 2.5 + 0) / 2),
    ],
)
def test_quantile_huber_by_hand(quantiles, targets, kappa, loss):
    rows = torch.tensor([quantiles, quantiles]), torch.tensor([targets, targets])
    assert_close(quantile_huber(*rows, kappa), torch.tensor([loss, loss]))


def test_the_quantile_loss_is_least_at_the_quantiles():
    target = torch.arange(1001.0).unsqueeze(0)
    quantile = torch.full((1, 5), 500.0, requires_grad=True)
    optimizer = torch.optim.Adam([quantile], lr=20.0)
    for step in range(300):
        optimizer.param_groups[0]["lr"] = 20 * 0.98**step
        optimizer.zero_grad()
        quantile_huber(quantile, target, 1.0).sum().backward()
        optimizer.step()
    assert_close(quantile.detach(), torch.tensor([[100.0, 300, 500, 700, 900]]), atol=3.0, rtol=0)


@pytest.mark.parametrize(
    ("spec", "loss"),
    [  # error 3
        ({"name": "MSELoss"}, 9.0),
        ({"name": "L1Loss"}, 3.0),
        ({"name": "SmoothL1Loss"}, 2.5),
        ({"name": "SmoothL1Loss", "beta": 2.0}, 2.0),
        ({"name": "HuberLoss", "delta": 2.0}, 4.0),
    ],
)
def test_make_loss(spec, loss):
    assert make_loss(spec)(torch.tensor([3.0]), torch.tensor([0.0])).item() == loss


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"name": "MSE"}, r"agent\.net\.loss_spec\.name: unknown loss 'MSE'; use MSELoss, "),
        ({"name": "SmoothL1Loss", "bta": 2.0}, r"agent\.net\.loss_spec: .*'bta'"),
    ],
)
def test_a_wrong_loss_spec_is_an_error(spec, message):
    with pytest.raises(SpecError, match=message):
        make_loss(spec)


def test_approximate_kl():
    old = torch.tensor([0.5, 0.5]).log()
    assert approx_kl(old, old).item() == 0.0
    new = torch.tensor([0.75, 0.25]).log().requires_grad_()
    # ratios 3/2 and 1/2, each as likely as the other: the exact divergence, as r - 1 is 0 on average
    exact = 0.5 * (torch.tensor([0.5, 0.5]) / new.detach().exp()).log().sum()
    assert_close(approx_kl(new, old), exact)
    assert not approx_kl(new, old).requires_grad
