"""Action distributions: what a policy net puts out, and what acting and learning ask of it.

Learning asks for log-probabilities and entropies: raw tensor maths on parameters `[..., dims]`, with `[...]` for an
answer, summed over the dimensions of an action. Acting asks for samples and modes: arrays, as the environments take
them, drawn by numpy (for so few numbers ten times faster than torch) wherever the parameters are; these may be arrays
as well. Constructors take the distribution's own parameters; `from_net` takes raw net outputs.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from functools import partial
from typing import Any, Self

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor
from torch.nn import functional

from slm_lab.spec.errors import SpecError

LOG_STD_MIN, LOG_STD_MAX = -5.0, 2.0
"""Range of a log-scale that a net puts out; a state-independent `log_std_init` parameter is left free."""

_HALF_LOG_2PI = 0.5 * math.log(2 * math.pi)
_EULER_GAMMA = 0.5772156649015329
_UNIT_EDGE = 1e-6  # Beta samples stay this far from 0 and 1, where the log-density has its poles


Numbers = Any
"""A tensor, or to act on, an array."""


def to_numpy(x: Numbers) -> np.ndarray:
    """Return `x` as an array."""
    return x if isinstance(x, np.ndarray) else x.numpy(force=True)


class Distribution(ABC):
    """What every policy can do."""

    @classmethod
    def from_net(cls, *outputs: Numbers) -> Self:
        """Build from unconstrained net outputs, one `[..., dims]` per head."""
        return cls(*outputs)

    @abstractmethod
    def sample(self, rng: np.random.Generator) -> np.ndarray:
        """Draw one action."""

    @abstractmethod
    def log_prob(self, action: Tensor) -> Tensor:
        """Return the log-probability of `action`, `[...]`."""

    @abstractmethod
    def entropy(self) -> Tensor:
        """Return the entropy in nats, `[...]`."""

    @abstractmethod
    def mode(self) -> np.ndarray:
        """Return the most probable action: how a trained agent plays."""


class Categorical(Distribution):
    """One of n actions; `logits` `[..., n]` need no normalising, actions are int64 `[...]`."""

    def __init__(self, logits: Numbers) -> None:
        # what is only acted on (then these are the logits themselves) needs no normalising
        self.log_p = logits if isinstance(logits, np.ndarray) else functional.log_softmax(logits, dim=-1)

    def sample(self, rng: np.random.Generator) -> np.ndarray:
        """Draw by the Gumbel-max trick: the argmax of log p plus Gumbel noise is distributed as p."""
        log_p = to_numpy(self.log_p)
        return (log_p + rng.gumbel(size=log_p.shape)).argmax(-1)

    def log_prob(self, action: Tensor) -> Tensor:
        """Return log p(action), `[...]`."""
        return self.log_p.gather(-1, action.long().unsqueeze(-1)).squeeze(-1)

    def entropy(self) -> Tensor:
        """Return -sum p log p, `[...]`."""
        return -(self.log_p.exp() * self.log_p).sum(-1)

    def mode(self) -> np.ndarray:
        """Return the likeliest action, `[...]`."""
        return to_numpy(self.log_p).argmax(-1)


class MultiCategorical(Distribution):
    """Independent choices; actions are int64 `[..., len(nvec)]`."""

    def __init__(self, *logits: Numbers) -> None:
        self.parts = [Categorical(part) for part in logits]

    @classmethod
    def from_one_head(cls, logits: Numbers, nvec: list[int]) -> Self:
        """Build from the logits of all choices side by side, `[..., sum(nvec)]`."""
        if isinstance(logits, np.ndarray):
            return cls(*np.split(logits, np.cumsum(nvec)[:-1], axis=-1))
        return cls(*logits.split(nvec, dim=-1))

    def sample(self, rng: np.random.Generator) -> np.ndarray:
        """Draw every choice."""
        return np.stack([part.sample(rng) for part in self.parts], axis=-1)

    def log_prob(self, action: Tensor) -> Tensor:
        """Return the summed log-probability, `[...]`."""
        return torch.stack([part.log_prob(a) for part, a in zip(self.parts, action.unbind(-1), strict=True)]).sum(0)

    def entropy(self) -> Tensor:
        """Return the summed entropy, `[...]`."""
        return torch.stack([part.entropy() for part in self.parts]).sum(0)

    def mode(self) -> np.ndarray:
        """Return the likeliest choices."""
        return np.stack([part.mode() for part in self.parts], axis=-1)


class Bernoulli(Distribution):
    """Independent coins; `logits` `[..., k]`, actions are int8 zeros and ones `[..., k]`."""

    def __init__(self, logits: Numbers) -> None:
        self.logits = logits

    def sample(self, rng: np.random.Generator) -> np.ndarray:
        """Throw every coin: logistic noise is below the logit with the coin's probability."""
        logits = to_numpy(self.logits)
        return (rng.logistic(size=logits.shape) < logits).astype(np.int8)

    def log_prob(self, action: Tensor) -> Tensor:
        """Return the summed log-probability, `[...]`."""
        return functional.logsigmoid(torch.where(action.bool(), self.logits, -self.logits)).sum(-1)

    def entropy(self) -> Tensor:
        """Return the summed entropy, `[...]`: softplus(l) - l sigmoid(l) for each coin."""
        return (functional.softplus(self.logits) - self.logits * self.logits.sigmoid()).sum(-1)

    def mode(self) -> np.ndarray:
        """Return 1 where the coin favours it."""
        return (to_numpy(self.logits) > 0).astype(np.int8)


class _LocScale(Distribution):
    """A location and a log-scale per dimension: `loc` `[..., k]`, `log_scale` `[..., k]` or `[k]`."""

    def __init__(self, loc: Numbers, log_scale: Numbers) -> None:
        self.loc = loc
        self.log_scale = log_scale if isinstance(loc, np.ndarray) else log_scale.expand_as(loc)

    @classmethod
    def from_net(cls, *outputs: Numbers) -> Self:
        """Build from a location and a log-scale, the latter clamped to `[LOG_STD_MIN, LOG_STD_MAX]`."""
        loc, log_scale = outputs
        return cls(loc, log_scale.clip(LOG_STD_MIN, LOG_STD_MAX))

    def sample(self, rng: np.random.Generator) -> np.ndarray:
        """Draw loc + scale * noise."""
        loc = to_numpy(self.loc)
        return loc + np.exp(to_numpy(self.log_scale)) * self.noise(loc.shape, rng)

    def mode(self) -> np.ndarray:
        """Return the location."""
        return to_numpy(self.loc)

    @staticmethod
    def noise(shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
        """Draw standard normal noise, float32."""
        return rng.standard_normal(shape, np.float32)


class Normal(_LocScale):
    """A Gaussian with diagonal covariance; actions are float `[..., k]`, unbounded (the environment clips)."""

    def log_prob(self, action: Tensor) -> Tensor:
        """Return the summed log-density, `[...]`."""
        z = (action - self.loc) * torch.exp(-self.log_scale)
        return (-0.5 * z.square() - self.log_scale - _HALF_LOG_2PI).sum(-1)

    def entropy(self) -> Tensor:
        """Return the summed differential entropy, `[...]`."""
        return (self.log_scale + 0.5 + _HALF_LOG_2PI).sum(-1)


def squashed_sample(policy: Normal, noise: Tensor) -> tuple[Tensor, Tensor]:
    """Draw tanh of a Gaussian sample, with gradient to the policy (Haarnoja et al. 2018, arXiv:1812.05905, appendix C).

    log pi(a|s) = log N(u) - sum log(1 - tanh(u)^2),   a = tanh(u)

    Args:
        policy: of the unsquashed u, `[..., k]`.
        noise: standard normal, `[..., k]`.

    Returns:
        Actions in [-1, 1], `[..., k]`, and their log-probabilities, `[...]`.
    """
    u = policy.loc + policy.log_scale.exp() * noise
    # log(1 - tanh(u)^2) = 2 (log 2 - u - softplus(-2 u)): exact where 1 - tanh(u)^2 has no digits left
    log_slope = 2 * (math.log(2) - u - functional.softplus(-2 * u))
    log_density = -0.5 * noise.square() - policy.log_scale - _HALF_LOG_2PI
    return u.tanh(), (log_density - log_slope).sum(-1)


def gumbel_softmax(policy: Categorical, noise: Tensor) -> Tensor:
    """Draw one-hot actions whose gradient is that of their relaxation (straight-through; arXiv:1611.01144 section 2.2).

    Args:
        policy: of n actions, `[..., n]`.
        noise: standard Gumbel, `[..., n]`.

    Returns:
        One-hot actions, `[..., n]`.
    """
    relaxed = (policy.log_p + noise).softmax(-1)
    hard = one_hot(relaxed.argmax(-1), relaxed.shape[-1])
    return hard + (relaxed - relaxed.detach())


def one_hot(index: Tensor, width: int) -> Tensor:
    """Return 1 at each index of `[...]`, else 0, `[..., width]` float32; zeros alone where the index is another.

    torch's own looks at the numbers, which a GPU has to be waited for.
    """
    return (index.unsqueeze(-1) == torch.arange(width, device=index.device)).float()


class LogNormal(_LocScale):
    """The exponential of a diagonal Gaussian: positive actions, float `[..., k]`."""

    def sample(self, rng: np.random.Generator) -> np.ndarray:
        """Draw exp of a Gaussian sample."""
        return np.exp(super().sample(rng))

    def log_prob(self, action: Tensor) -> Tensor:
        """Return the summed log-density, `[...]`; `action` must be positive."""
        log_action = action.log()
        return Normal(self.loc, self.log_scale).log_prob(log_action) - log_action.sum(-1)

    def entropy(self) -> Tensor:
        """Return the summed differential entropy, `[...]`."""
        return Normal(self.loc, self.log_scale).entropy() + self.loc.sum(-1)

    def mode(self) -> np.ndarray:
        """Return exp(loc - scale^2)."""
        return np.exp(to_numpy(self.loc) - np.exp(2 * to_numpy(self.log_scale)))


class Gumbel(_LocScale):
    """Independent Gumbel (extreme value) variables; actions are float `[..., k]`, unbounded."""

    @staticmethod
    def noise(shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
        """Draw standard Gumbel noise, float32."""
        return rng.gumbel(size=shape).astype(np.float32)

    def log_prob(self, action: Tensor) -> Tensor:
        """Return the summed log-density, `[...]`."""
        z = (action - self.loc) * torch.exp(-self.log_scale)
        return (-z - torch.exp(-z) - self.log_scale).sum(-1)

    def entropy(self) -> Tensor:
        """Return the summed differential entropy, `[...]`."""
        return (self.log_scale + 1 + _EULER_GAMMA).sum(-1)


class Beta(Distribution):
    """Independent Beta variables stretched from (0, 1) to (-1, 1), so that no action is ever clipped.

    Chou et al. 2017, "Improving Stochastic Policy Gradients in Continuous Control … using the Beta Distribution".
    `alpha` and `beta` are the positive concentrations `[..., k]`; actions are float `[..., k]`.
    """

    def __init__(self, alpha: Tensor, beta: Tensor) -> None:
        self.alpha, self.beta = alpha, beta

    @classmethod
    def from_net(cls, *outputs: Numbers) -> Self:
        """Build from two heads; concentrations are 1 + softplus, so that there is a single mode."""
        # the small term keeps the mode defined where both softplus underflow to 0
        alpha, beta = (_softplus(out) + (1 + _UNIT_EDGE) for out in outputs)
        return cls(alpha, beta)

    def sample(self, rng: np.random.Generator) -> np.ndarray:
        """Draw."""
        unit = rng.beta(to_numpy(self.alpha), to_numpy(self.beta)).astype(np.float32)
        return 2 * unit.clip(_UNIT_EDGE, 1 - _UNIT_EDGE) - 1

    def log_prob(self, action: Tensor) -> Tensor:
        """Return the summed log-density on (-1, 1), `[...]`."""
        unit = (action + 1) / 2
        log_density = (self.alpha - 1) * unit.log() + (self.beta - 1) * torch.log1p(-unit) - self._log_normalizer()
        return (log_density - math.log(2)).sum(-1)

    def entropy(self) -> Tensor:
        """Return the summed differential entropy on (-1, 1), `[...]`."""
        total = self.alpha + self.beta
        entropy = (
            self._log_normalizer()
            - (self.alpha - 1) * torch.digamma(self.alpha)
            - (self.beta - 1) * torch.digamma(self.beta)
            + (total - 2) * torch.digamma(total)
        )
        return (entropy + math.log(2)).sum(-1)

    def mode(self) -> np.ndarray:
        """Return the mode; concentrations above 1 have exactly one."""
        return to_numpy(2 * (self.alpha - 1) / (self.alpha + self.beta - 2) - 1)

    def _log_normalizer(self) -> Tensor:
        return torch.lgamma(self.alpha) + torch.lgamma(self.beta) - torch.lgamma(self.alpha + self.beta)


def _softplus(x: Numbers) -> Numbers:
    return np.logaddexp(0, x) if isinstance(x, np.ndarray) else functional.softplus(x)


ACTION_PDS: dict[str, dict[str, type[Distribution]]] = {
    "continuous": {
        "Normal": Normal,
        "MultivariateNormal": Normal,
        "Beta": Beta,
        "Gumbel": Gumbel,
        "LogNormal": LogNormal,
    },
    "discrete": {"Categorical": Categorical},
    "multi_discrete": {"MultiCategorical": MultiCategorical},
    "multi_binary": {"Bernoulli": Bernoulli},
}
"""Distributions by type of action, the default first. MultivariateNormal is the older name of the diagonal Normal."""


def action_type(action_space: spaces.Space) -> str:
    """Return the key of `ACTION_PDS` that an action space belongs to.

    Raises:
        SpecError: the space is none that a policy can act in.
    """
    shape = action_space.shape
    match action_space:
        case spaces.Discrete():
            return "discrete"
        case spaces.Box() if shape is not None and len(shape) == 1:
            return "continuous"
        case spaces.MultiDiscrete() if shape is not None and len(shape) == 1:
            return "multi_discrete"
        case spaces.MultiBinary() if shape is not None and len(shape) == 1:
            return "multi_binary"
    raise SpecError(
        f"env.name: action space {action_space} is not supported; it must be Discrete, or flat and of one kind"
    )


def policy_heads(action_space: spaces.Space, pdtype: str = "default") -> tuple[Callable[..., Distribution], list[int]]:
    """Choose the distribution of a policy.

    Args:
        action_space: of a single environment.
        pdtype: `default`, or a name that `ACTION_PDS` lists for this kind of action.

    Returns:
        What builds the distribution from the outputs of the net's heads, and the width of each of those heads.

    Raises:
        SpecError: the distribution does not suit the action space.
    """
    kind = action_type(action_space)
    known = ACTION_PDS[kind]
    pdtype = next(iter(known)) if pdtype == "default" else pdtype
    if pdtype not in known:
        raise SpecError(
            f"agent.algorithm.action_pdtype: {pdtype!r} does not suit {kind} actions ({action_space}); "
            f"use {', '.join(known)}"
        )
    if isinstance(action_space, spaces.MultiDiscrete):
        nvec = [int(n) for n in action_space.nvec]
        return partial(MultiCategorical.from_one_head, nvec=nvec), [sum(nvec)]
    if isinstance(action_space, spaces.Discrete):
        return known[pdtype].from_net, [int(action_space.n)]
    width = math.prod(action_space.shape or ())
    return known[pdtype].from_net, [width] if kind == "multi_binary" else [width, width]
