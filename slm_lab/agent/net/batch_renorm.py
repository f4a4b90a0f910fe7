"""Batch renormalisation: batch normalisation that behaves in training as it does when it acts."""

import torch
from torch import Tensor, nn


class BatchRenorm(nn.Module):
    """Batch renormalisation (Ioffe 2017, arXiv:1702.03275, Algorithm 1).

    In training, a batch is normalised by its own mean and deviation, and then shifted to where the running ones would
    have put it, as far as r and d may go; no gradient passes through r and d:

        x_hat = (x - mean_B) / std_B * r + d
        r = clip(std_B / std, 1 / r_max, r_max),   d = clip((mean_B - mean) / std, -d_max, d_max)

    At other times x_hat = (x - mean) / std. Then y = weight * x_hat + bias. The limits widen in a straight line over
    the first `warmup_steps` batches, from r_max = 1 and d_max = 0 (plain batch normalisation).

    Args:
        num_features: C, of an input `[B, C]` or `[B, C, …]`; each channel is normalised over all other dimensions.
        eps: added to the variance of a batch.
        momentum: weight of the newest batch in the running mean and deviation.
        r_max: limit of r, from 1 on.
        d_max: limit of d, from 0 on.
        warmup_steps: batches until the limits are reached, from 1 on.
    """

    running_mean: Tensor
    running_std: Tensor
    steps: Tensor

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float = 0.01,
        r_max: float = 3.0,
        d_max: float = 5.0,
        warmup_steps: int = 10_000,
    ) -> None:
        super().__init__()
        self.eps, self.momentum, self.warmup_steps = eps, momentum, warmup_steps
        self.r_max, self.d_max = r_max, d_max
        self.weight, self.bias = nn.Parameter(torch.ones(num_features)), nn.Parameter(torch.zeros(num_features))
        self.register_buffer("running_mean", torch.zeros(num_features))
        self.register_buffer("running_std", torch.ones(num_features))
        self.register_buffer("steps", torch.tensor(0.0))

    def forward(self, x: Tensor) -> Tensor:
        """Return the normalised `x`, of the same shape."""
        rows = x.float().movedim(1, -1)  # channels last, so that everything of shape [C] applies
        if not self.training:
            rows = (rows - self.running_mean) / self.running_std
        else:
            others = tuple(range(rows.dim() - 1))
            mean = rows.mean(others)
            std = (rows.var(others, correction=0) + self.eps).sqrt()
            r, d = self._correct(mean.detach(), std.detach())
            rows = (rows - mean) * (r / std) + d
        return (self.weight * rows + self.bias).movedim(-1, 1)

    @torch.no_grad()
    def _correct(self, mean: Tensor, std: Tensor) -> tuple[Tensor, Tensor]:
        """Return r and d of a batch, and take its mean and deviation into the running ones."""
        share = (self.steps / self.warmup_steps).clamp(max=1.0)
        r_max, d_max = 1 + (self.r_max - 1) * share, self.d_max * share
        r = torch.clamp(std / self.running_std, 1 / r_max, r_max)
        d = torch.clamp((mean - self.running_mean) / self.running_std, -d_max, d_max)
        self.running_mean.lerp_(mean, self.momentum)
        self.running_std.lerp_(std, self.momentum)
        self.steps += 1
        return r, d
