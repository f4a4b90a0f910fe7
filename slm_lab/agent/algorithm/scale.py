"""Running scales, which values and advantages are divided by: modules, so that checkpoints save what they have seen."""

import torch
from torch import Tensor, nn


class RunningStd(nn.Module):
    """Standard deviation of all values seen so far, and at least 1: large values are scaled down, small ones left.

    Chan et al. 1979, "Updating formulae and a pairwise algorithm for computing sample variances".
    """

    count: Tensor
    mean: Tensor
    squares: Tensor

    def __init__(self) -> None:
        super().__init__()
        for name in ("count", "mean", "squares"):  # squares: the sum of the squared distances from the mean
            self.register_buffer(name, torch.zeros((), dtype=torch.float64))

    @torch.no_grad()
    def update(self, x: Tensor) -> Tensor:
        """Take in the values `x` of any shape; return the scale, a scalar."""
        x = x.double()
        total, distance = self.count + x.numel(), x.mean() - self.mean
        self.squares += x.var(correction=0) * x.numel() + distance.square() * self.count * x.numel() / total
        self.mean += distance * x.numel() / total
        self.count.copy_(total)
        return (self.squares / total).sqrt().clamp_min(1.0).float()


class PercentileRange(nn.Module):
    """Distance from the 5th to the 95th percentile, averaged over the updates with decay 0.99, and at least 1.

    Hafner et al. 2023, arXiv:2301.04104 eq. 12. Unlike the standard deviation, it is not moved by a few outliers, and
    advantages that are small because there is little to gain stay small. The average is divided by the weight that it
    has gathered, so it begins with the first range and not with zero.
    """

    DECAY = 0.99

    average: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("average", torch.zeros(2))  # of the range, and of 1: the weight

    @torch.no_grad()
    def update(self, x: Tensor) -> Tensor:
        """Take in the values `x` of any shape; return the scale, a scalar."""
        low, high = x.flatten().quantile(torch.tensor([0.05, 0.95], device=x.device))
        self.average.lerp_(torch.stack([high - low, torch.ones_like(low)]), 1 - self.DECAY)
        return (self.average[0] / self.average[1]).clamp_min(1.0)
