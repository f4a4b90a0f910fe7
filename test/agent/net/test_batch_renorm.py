import pytest
import torch
from torch import nn
from torch.testing import assert_close

from slm_lab.agent.net.batch_renorm import BatchRenorm


def column(*values):
    return torch.tensor([[value] for value in values])


def renorm(mean=0.0, std=1.0, steps=100, **keys):
    """One channel, warmed up, with the given running mean and deviation."""
    layer = BatchRenorm(1, **{"eps": 0.0, "warmup_steps": 100, **keys})
    layer.running_mean.fill_(mean)
    layer.running_std.fill_(std)
    layer.steps.fill_(steps)
    return layer


@pytest.mark.parametrize(
    ("running", "keys", "normalised"),
    [
        # the batch 0, 4 has mean 2 and deviation 2, so on its own it is -1, 1
        ((2.0, 2.0), {}, (-1.0, 1.0)),
        # within the limits it becomes what the running statistics make of it: (0 - 1) / 1, (4 - 1) / 1
        ((1.0, 1.0), {}, (-1.0, 3.0)),
        ((3.0, 4.0), {}, (-0.75, 0.25)),
        ((1.0, 1.0), {"r_max": 1.5}, (-1.5 + 1, 1.5 + 1)),
        ((1.0, 1.0), {"d_max": 0.5}, (-2 + 0.5, 2 + 0.5)),
        ((3.0, 8.0), {"r_max": 2.0}, (-0.5 - 0.125, 0.5 - 0.125)),  # r at least 1 / r_max
        ((8.0, 1.0), {"d_max": 5.0, "r_max": 2.0}, (-2 - 5.0, 2 - 5.0)),
        # no warm-up yet: r = 1, d = 0; half of it: r at most 2, d at most 2.5
        ((1.0, 1.0), {"steps": 0}, (-1.0, 1.0)),
        ((-3.0, 0.5), {"steps": 50}, (-2 + 2.5, 2 + 2.5)),
    ],
)
def test_training_by_hand(running, keys, normalised):
    assert_close(renorm(*running, **keys)(column(0.0, 4.0)).detach(), column(*normalised))


def test_running_statistics_by_hand():
    layer = renorm(1.0, 1.0, momentum=0.1)
    layer(column(0.0, 4.0))
    assert_close(layer.running_mean, torch.tensor([1.1]))
    assert_close(layer.running_std, torch.tensor([1.1]))
    assert layer.steps == 101
    layer.eval()
    assert_close(layer(column(2.2)).detach(), column(1.0))
    assert layer.steps == 101


def test_weight_bias_and_eps():
    layer = renorm(2.0, 3.0, eps=5.0)  # the deviation of the batch becomes sqrt(4 + 5) = 3
    layer.weight.data.fill_(6.0)
    layer.bias.data.fill_(0.5)
    assert_close(layer(column(0.0, 4.0)).detach(), column(-3.5, 4.5))


def test_no_gradient_passes_through_the_correction():
    x = column(0.0, 1.0, 5.0).requires_grad_()
    layer = renorm(1.0, 1.0)
    (grad,) = torch.autograd.grad(layer(x)[2, 0], x)
    mean, std = x.detach().mean(), x.detach().std(correction=0)
    plain = ((x - x.mean()) / x.std(correction=0))[2, 0]
    assert_close(grad, std * torch.autograd.grad(plain, x)[0])  # r = std / 1 as a constant
    assert mean != std


def test_before_the_warm_up_it_is_batch_normalisation():
    x = torch.randn(16, 5, 3, 4, generator=torch.Generator().manual_seed(0)) * 3 + 1
    assert_close(BatchRenorm(5)(x), nn.BatchNorm2d(5)(x))
    assert_close(BatchRenorm(3)(x[:, 0, :, 0]), nn.BatchNorm1d(3)(x[:, 0, :, 0]))
