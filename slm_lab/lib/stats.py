"""Statistics over few seeds.

Source: Agarwal et al. 2021, "Deep Reinforcement Learning at the Edge of the Statistical Precipice", arXiv:2108.13264.
The interquartile mean is less moved by one lucky seed than the mean, and wastes fewer seeds than the median; the
interval beside it says how much of a difference is the seeds' own.
"""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import ArrayLike


def iqm(x: ArrayLike) -> float:
    """Return the interquartile mean: the mean of what is left when the lowest and the highest quarter are cut off.

    Of n values ⌊n/4⌋ are cut at each end, so up to three values give their plain mean.

    Args:
        x: values [n]; none gives NaN, and so does a NaN among them: a score that is not there is no score.
    """
    values = np.asarray(x, dtype=np.float64).ravel()
    return float(_interquartile(values)) if values.size else float("nan")


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


# --- scores over tasks and runs: one array a task, its runs along the last axis, any axes before it

Tasks = Sequence[np.ndarray]


def mean_score(tasks: Tasks) -> np.ndarray:
    """Return the mean over the tasks of the mean over their runs [...]."""
    return np.mean([task.mean(axis=-1) for task in tasks], axis=0)


def median_score(tasks: Tasks) -> np.ndarray:
    """Return the median over the tasks of the mean over their runs [...]."""
    return np.median([task.mean(axis=-1) for task in tasks], axis=0)


def iqm_score(tasks: Tasks) -> np.ndarray:
    """Return the interquartile mean of all runs of all tasks together [...]; see `iqm`."""
    return _interquartile(np.concatenate([np.asarray(task, dtype=np.float64) for task in tasks], axis=-1))


def improvement(x: Tasks, y: Tasks) -> np.ndarray:
    """Return the probability that a run of `x` beats one of `y`, averaged over the tasks [...]; a tie is half a win.

    P(X > Y) = 1/M Σ_m 1/(N K) Σ_i Σ_j S(x_mi, y_mj) with S = 1, ½, 0 for more, equal, less: the Mann-Whitney
    statistic of each task (section 4.3 of the paper).

    Args:
        x: M tasks [..., N].
        y: the same tasks [..., K].
    """
    wins = [np.sign(a[..., :, None] - b[..., None, :]).mean(axis=(-2, -1)) for a, b in zip(x, y, strict=True)]
    return (1.0 + np.mean(wins, axis=0)) / 2.0


def performance_profile(tasks: Tasks, thresholds: np.ndarray) -> np.ndarray:
    """Return for each threshold τ the share of the runs that score above it, averaged over the tasks [..., τ].

    F(τ) = 1/M Σ_m 1/N_m Σ_n 1[x_mn > τ]: the run-score distribution (section 4.2 of the paper).
    """
    return np.mean([(task[..., None] > thresholds).mean(axis=-2) for task in tasks], axis=0)


def stratified_ci(
    fn: Callable[..., np.ndarray], *groups: Tasks, level: float = 0.95, seed: int = 0, n: int = 2000
) -> tuple[np.ndarray, np.ndarray]:
    """Return the percentile interval of a statistic under the stratified bootstrap (section 4.1 of the paper).

    Runs are drawn with replacement within each task, so every task keeps its number of runs; tasks are not drawn.

    Args:
        fn: statistic of the groups, taking tasks [n, runs] and giving [n, ...], e.g. `iqm_score` or `improvement`.
        groups: whose runs are drawn independently of each other; tasks [runs], none of them empty.
        level: coverage.
        seed: of the resampling; the same scores always give the same interval.
        n: resamples.

    Returns:
        low and high, each of the statistic's shape.
    """
    rng = np.random.default_rng(seed)
    drawn = [[task[rng.integers(0, task.size, size=(n, task.size))] for task in tasks] for tasks in groups]
    low, high = np.quantile(fn(*drawn), [(1 - level) / 2, (1 + level) / 2], axis=0)
    return low, high


def _interquartile(values: np.ndarray) -> np.ndarray:
    """Return the interquartile mean along the last axis; NaN where one of the values is."""
    cut = values.shape[-1] // 4
    kept = np.sort(values, axis=-1)[..., cut : values.shape[-1] - cut]
    return np.where(np.isnan(values).any(axis=-1), np.nan, kept.mean(axis=-1))
