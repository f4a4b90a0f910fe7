"""Statistics over few seeds.

Source: Agarwal et al. 2021, "Deep Reinforcement Learning at the Edge of the Statistical Precipice".
The interquartile mean is less moved by one lucky seed than the mean, and wastes fewer seeds than the median; the
interval beside it says how much of a difference is the seeds' own.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike


def iqm(x: ArrayLike) -> float:
    """Return the interquartile mean: the mean of what is left when the lowest and the highest quarter are cut off.

    Of n values ⌊n/4⌋ are cut at each end, so up to three values give their plain mean.

    Args:
        x: values [n]; none gives NaN, and so does a NaN among them: a score that is not there is no score.
    """
    values = np.sort(np.asarray(x, dtype=np.float64).ravel())
    if values.size == 0 or np.isnan(values).any():
        return float("nan")
    cut = values.size // 4
    return float(values[cut : values.size - cut].mean())


def bootstrap_ci(
    x: ArrayLike, fn: Callable[[np.ndarray], float] = iqm, level: float = 0.95, seed: int = 0, n: int = 2000
) -> tuple[float, float]:
    """Return the percentile bootstrap interval of `fn` over the values.

    Args:
        x: values [m], one a seed. One value gives itself twice, none gives NaN twice.
        fn: statistic of a resample [m].
        level: coverage.
        seed: of the resampling; the same values always give the same interval.
        n: resamples.
    """
    values = np.asarray(x, dtype=np.float64).ravel()
    if values.size == 0:
        return float("nan"), float("nan")
    picks = np.random.default_rng(seed).integers(0, values.size, size=(n, values.size))
    low, high = np.quantile([fn(values[pick]) for pick in picks], [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)
