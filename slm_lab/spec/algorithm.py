"""The `agent.algorithm` part of a spec: one model per algorithm."""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Self

from pydantic import model_validator

from slm_lab.spec.env import EnvSpec
from slm_lab.spec.errors import warn
from slm_lab.spec.model import (
    Count,
    Natural,
    NotNegative,
    Number,
    Positive,
    Section,
    Several,
    Share,
    either,
    one_of,
    problem,
)

if TYPE_CHECKING:
    from slm_lab.spec.schema import AgentSpec

Distribution = Literal[
    "default",
    "Categorical",
    "MultiCategorical",
    "Bernoulli",
    "Normal",
    "MultivariateNormal",
    "Beta",
    "Gumbel",
    "LogNormal",
]


class VarSpec(Section):
    """A value that changes with the frame."""

    name: Literal["no_decay", "linear_decay", "rate_decay", "periodic_decay"]
    """How it goes from start_val to end_val."""
    start_val: Number
    """Value until start_step."""
    end_val: Number | None = None
    """Value from end_step on; no_decay does not read it."""
    start_step: Natural = 0
    """Frame at which it begins to change."""
    end_step: Natural | None = None
    """Frame at which it has become end_val."""

    @model_validator(mode="after")
    def _check_decay(self) -> Self:
        if self.name == "no_decay":
            return self
        for key in ("end_val", "end_step"):
            if getattr(self, key) is None:
                raise problem(key, f"missing; {self.name} needs it")
        if self.end_step is not None and self.end_step <= self.start_step:
            raise problem("end_step", f"{self.end_step} must come after start_step {self.start_step}")
        return self

    def check_range(self, key: str, low: float, high: float | None = None) -> None:
        """Raise if the value leaves [low, high] on its way; `key` is the name of this variable."""
        for part in ("start_val", "end_val"):
            value = getattr(self, part)
            if value is not None and (value < low or (high is not None and value > high)):
                bounds = f"at least {low}" if high is None else f"in [{low}, {high}]"
                raise problem(f"{key}.{part}", f"must be {bounds}, got {value}")


class Algorithm(Section):
    """What an algorithm declares besides its keys."""

    memories: ClassVar[tuple[str, ...]] = ()
    """Memories that suit it."""
    recurrent: ClassVar[bool] = False
    """Whether it works with a RecurrentNet."""
    has_critic_net: ClassVar[bool] = False
    """Whether its critics can have a net spec of their own."""
    action_values: ClassVar[bool] = False
    """Whether it learns action values, which is what dueling and noisy nets are for."""

    def check(self, agent: "AgentSpec", env: EnvSpec) -> None:
        """Raise if the rest of the spec does not fit this algorithm."""


class Random(Algorithm):
    """Draws from the action space and learns nothing: the measure of all others."""

    name: Literal["Random"] = "Random"
    """The algorithm."""


class PolicyGradient(Algorithm):
    """Keys of the algorithms that act by a policy net."""

    recurrent: ClassVar[bool] = True

    action_pdtype: Distribution = "default"
    """Distribution of actions. default: Categorical, MultiCategorical, Bernoulli or Normal, as the action space is."""
    action_policy: Literal["default"] = "default"
    """How actions are chosen: default, a sample of the distribution."""
    gamma: Share
    """Discount of the reward one step later, 0 to 1."""
    entropy_coef_spec: VarSpec | None = None
    """Weight of the entropy bonus over frames, from 0 on; null: 0."""
    imitates_itself: ClassVar[bool] = False
    """Whether it replays past episodes."""

    @model_validator(mode="after")
    def _check_entropy(self) -> Self:
        if self.entropy_coef_spec is not None:
            self.entropy_coef_spec.check_range("entropy_coef_spec", 0.0)
        return self

    def check(self, agent: "AgentSpec", env: EnvSpec) -> None:  # noqa: ARG002
        """Raise if past episodes are to be replayed and are not, or the other way round."""
        replay = getattr(agent.memory, "sil_replay", None)
        if replay is None and self.imitates_itself:
            raise problem("agent.memory.sil_replay", "missing; Replay or PrioritizedReplay and its keys")
        if replay is not None and not self.imitates_itself:
            raise problem("agent.memory.sil_replay", "only SIL and PPOSIL replay past episodes; remove it")


class Reinforce(PolicyGradient):
    """REINFORCE, Williams 1992."""

    memories: ClassVar[tuple[str, ...]] = ("OnPolicyReplay", "OnPolicyBatchReplay", "OnPolicyCrossEntropy")

    name: Literal["Reinforce"] = "Reinforce"
    """The algorithm."""
    center_return: bool = True
    """Subtract the mean return of the batch, as a baseline."""
    policy_loss_coef: NotNegative = 1.0
    """Weight of the policy loss."""
    training_frequency: Count
    """Size of a batch: finished episodes with OnPolicyReplay and OnPolicyCrossEntropy, vector steps with
    OnPolicyBatchReplay."""


class A2CKeys(PolicyGradient):
    """Keys of A2C, and of what builds on it."""

    memories: ClassVar[tuple[str, ...]] = ("OnPolicyBatchReplay", "OnPolicyReplay")

    lam: Share | None = None
    """λ of generalised advantages (arXiv:1506.02438), 0 to 1; null: n-step returns if num_step_returns is given, else
    plain returns."""
    num_step_returns: Count | None = None
    """n of n-step returns, in vector steps; it is the training_frequency as well."""
    policy_loss_coef: NotNegative = 1.0
    """Weight of the policy loss."""
    val_loss_coef: NotNegative = 1.0
    """Weight of the value loss."""
    normalize_advantages: Literal["standardize"] | None = "standardize"
    """standardize: to mean 0 and deviation 1 in every batch; null: as they are."""
    normalize_v_targets: bool = False
    """Divide value and target by the running standard deviation of the targets (at least 1) in the value loss."""
    training_frequency: Count | None = None
    """Size of a batch: vector steps with OnPolicyBatchReplay, finished episodes with OnPolicyReplay; null:
    num_step_returns."""

    @model_validator(mode="before")
    @classmethod
    def _fill_frequency(cls, raw: object) -> object:
        if isinstance(raw, dict) and raw.get("training_frequency") is None:
            return {**raw, "training_frequency": raw.get("num_step_returns")}
        return raw

    @model_validator(mode="after")
    def _check_returns(self) -> Self:
        steps = self.num_step_returns
        if self.lam is not None and steps is not None:
            raise problem("lam", f"{self.lam} and num_step_returns {steps} exclude each other; set one of them to null")
        if self.training_frequency is None:
            raise problem("training_frequency", "missing; the size of a batch, or give num_step_returns")
        if steps is not None and steps != self.training_frequency:
            text = f"{self.training_frequency} must equal num_step_returns {steps}; remove it"
            raise problem("training_frequency", text)
        return self


class ActorCritic(A2CKeys):
    """Advantage Actor-Critic, Mnih et al. 2016, arXiv:1602.01783."""

    name: Literal["ActorCritic"] = "ActorCritic"
    """The algorithm."""


class PPOKeys(PolicyGradient):
    """Keys of PPO, and of what builds on it."""

    memories: ClassVar[tuple[str, ...]] = ("OnPolicyBatchReplay",)

    lam: Share
    """λ of generalised advantages (arXiv:1506.02438), 0 to 1."""
    clip_eps_spec: VarSpec
    """ε over frames: the policy's ratio is clipped to [1 - ε, 1 + ε]."""
    val_loss_coef: NotNegative = 1.0
    """Weight of the value loss."""
    time_horizon: Count
    """Vector steps of a rollout."""
    minibatch_size: Count
    """Transitions per gradient step; divides time_horizon x num_envs."""
    training_epoch: Count
    """Passes over each rollout."""
    clip_vloss: bool = False
    """Clip the value's change by ±ε as well; in units of the running deviation with normalize_v_targets."""
    normalize_advantages: Literal["standardize", "percentile"] = "standardize"
    """standardize: to mean 0 and deviation 1 in every minibatch; percentile: divide by the running distance from the
    5th to the 95th percentile (at least 1) over rollouts."""
    normalize_v_targets: bool = False
    """Divide value and target by the running standard deviation of the targets (at least 1) in the value loss."""
    symlog: bool = False
    """The net predicts symlog(V) = sign(V) ln(|V| + 1), arXiv:2301.04104. It has hurt more often than it has helped."""
    target_kl: Positive | None = None
    """Take no further pass over a rollout once the mean KL divergence from the old policy passes this, e.g. 0.02; null:
    take them all."""

    @model_validator(mode="after")
    def _check_clip(self) -> Self:
        self.clip_eps_spec.check_range("clip_eps_spec", 0.0)
        return self

    def check(self, agent: "AgentSpec", env: EnvSpec) -> None:
        """Raise if a rollout cannot be cut into whole minibatches."""
        super().check(agent, env)
        rollout, size = self.time_horizon * env.num_envs, self.minibatch_size
        if rollout % size == 0:
            return
        smaller = next(n for n in range(min(size, rollout), 0, -1) if rollout % n == 0)
        larger = next((n for n in range(size, rollout) if rollout % n == 0), rollout)
        near = f"{smaller} or {larger}" if smaller < larger else f"{larger}"
        raise problem(
            "agent.algorithm.minibatch_size",
            f"{size} does not divide time_horizon x num_envs = {self.time_horizon} x {env.num_envs} = {rollout}; "
            f"use {near}",
        )


class PPO(PPOKeys):
    """Proximal Policy Optimization, Schulman et al. 2017, arXiv:1707.06347."""

    name: Literal["PPO"] = "PPO"
    """The algorithm."""


class SelfImitation(PolicyGradient):
    """Keys of self-imitation, which it adds to those of the algorithm on which it builds."""

    imitates_itself: ClassVar[bool] = True

    sil_policy_loss_coef: NotNegative = 1.0
    """Weight of the policy loss on past steps."""
    sil_val_loss_coef: NotNegative = 0.01
    """Weight of the value loss on past steps."""
    training_iter: Count = 4
    """Batches of past steps after each on-policy update."""
    training_batch_iter: Count = 1
    """Gradient steps per batch."""


class SIL(SelfImitation, A2CKeys):
    """Self-imitation with A2C, Oh et al. 2018, arXiv:1806.05635."""

    name: Literal["SIL"] = "SIL"
    """The algorithm."""


class PPOSIL(SelfImitation, PPOKeys):
    """Self-imitation with PPO, Oh et al. 2018, arXiv:1806.05635."""

    name: Literal["PPOSIL"] = "PPOSIL"
    """The algorithm."""

    @model_validator(mode="after")
    def _check_symlog(self) -> Self:
        if self.symlog:
            raise problem("symlog", "true does not go with PPOSIL, which compares values with returns; remove it")
        return self


TARGET_KEYS = ("update_type", "update_frequency", "polyak_coef")
"""Keys of a net that say how its target net follows."""


def _refuse(agent: "AgentSpec", keys: Iterable[str], of: str) -> None:
    for key in agent.net.changed(keys):
        name: Any = agent.algorithm.name
        raise problem(f"agent.net.{key}", f"{name} has no {of}; remove it")


def _warn_if_too_short(training_start_step: int, env: EnvSpec) -> None:
    if training_start_step >= env.max_frame:
        warn(
            f"agent.algorithm.training_start_step: {training_start_step} is not before "
            f"env.max_frame {env.max_frame}, so it will not learn"
        )


class ActionValue(Algorithm):
    """Keys of the algorithms that act by a net of action values."""

    action_values: ClassVar[bool] = True
    recurrent: ClassVar[bool] = True

    action_policy: Literal["greedy", "epsilon_greedy", "boltzmann"]
    """How actions are chosen: the best one (where the net is noisy), the best one but for a share ε, or in proportion
    to exp(Q / τ)."""
    explore_var_spec: VarSpec | None = None
    """ε (0 to 1) or τ (above 0) over frames; greedy has none."""
    gamma: Share
    """Discount of the reward one step later, 0 to 1."""

    @model_validator(mode="after")
    def _check_exploration(self) -> Self:
        policy, var = self.action_policy, self.explore_var_spec
        if policy == "greedy":
            if var is not None:
                raise problem("explore_var_spec", "greedy does not read it; remove it")
            return self
        if var is None:
            raise problem("explore_var_spec", f"missing (ε (0 to 1) or τ (above 0) over frames); {policy} needs it")
        if policy == "epsilon_greedy":
            var.check_range("explore_var_spec", 0.0, 1.0)
            return self
        for part in ("start_val", "end_val"):
            value = getattr(var, part)
            if value is not None and value <= 0:
                raise problem(
                    f"explore_var_spec.{part}", f"boltzmann divides by it, so it must be above 0, got {value}"
                )
        return self

    def check(self, agent: "AgentSpec", env: EnvSpec) -> None:  # noqa: ARG002
        """Raise if the net's spec speaks of a policy, as there is none; say so if it would never explore."""
        _refuse(agent, ("shared", "use_same_optim", "log_std_init", "actor_init_std", "critic_init_std"), "policy")
        if self.action_policy == "greedy" and getattr(agent.net, "noisy_sigma", None) is None:
            warn("agent.algorithm.action_policy: greedy without agent.net.noisy_sigma never explores")

    def check_no_target(self, agent: "AgentSpec") -> None:
        """Raise if the net's spec speaks of a target net, where there is none."""
        _refuse(agent, TARGET_KEYS, "target net")


class SARSA(ActionValue):
    """SARSA, Rummery & Niranjan 1994."""

    memories: ClassVar[tuple[str, ...]] = ("OnPolicyBatchReplay", "OnPolicyReplay")

    name: Literal["SARSA"] = "SARSA"
    """The algorithm."""
    training_frequency: Count
    """Size of a batch: vector steps with OnPolicyBatchReplay, finished episodes with OnPolicyReplay."""

    def check(self, agent: "AgentSpec", env: EnvSpec) -> None:
        """Raise if the net's spec speaks of a target net as well."""
        self.check_no_target(agent)
        super().check(agent, env)


class C51(Section):
    """Probabilities of values that are fixed, Bellemare et al. 2017, arXiv:1707.06887."""

    name: Literal["C51"] = "C51"
    """The distribution."""
    v_min: Number
    """Smallest return that it can tell."""
    v_max: Number
    """Largest return that it can tell."""
    num_atoms: Several = 51
    """Values from v_min to v_max, both counted."""

    @model_validator(mode="after")
    def _check_support(self) -> Self:
        if self.v_max <= self.v_min:
            raise problem("v_max", f"{self.v_max} must be greater than v_min {self.v_min}")
        return self


class QR(Section):
    """Values of probabilities that are fixed (quantiles), Dabney et al. 2018, arXiv:1710.10044."""

    name: Literal["QR"] = "QR"
    """The distribution."""
    num_quantiles: Count = 200
    """Quantiles, evenly spaced."""
    kappa: Positive = 1.0
    """Error up to which the loss is quadratic; linear beyond."""


VALUE_DISTRIBUTIONS: dict[str, type[Section]] = {"C51": C51, "QR": QR}

if TYPE_CHECKING:  # which of the models it is, is known at run time only
    AnyValueDistribution = Any
else:
    AnyValueDistribution = one_of("value distribution", "name", VALUE_DISTRIBUTIONS) | None


class QLearning(ActionValue):
    """Keys of the algorithms that learn action values from a replay."""

    memories: ClassVar[tuple[str, ...]] = ("Replay", "PrioritizedReplay")

    num_step_returns: Count = 1
    """Steps of reward in a target before the value of what follows."""
    value_dist_spec: AnyValueDistribution = None
    """Learn the distribution of the return: {"name": "C51" or "QR", …}; null: its mean alone, by loss_spec."""
    training_frequency: Count
    """Frames between two training events; a vector step has at most one."""
    training_start_step: Natural = 0
    """Frames before the first training event."""
    training_iter: Count = 1
    """Batches drawn per training event."""
    training_batch_iter: Count = 1
    """Gradient steps per batch."""

    def check(self, agent: "AgentSpec", env: EnvSpec) -> None:
        """Raise if it would never update its target net, or not read a loss; say so if it would never learn."""
        super().check(agent, env)
        _warn_if_too_short(self.training_start_step, env)
        if agent.net.update_type == "polyak" and agent.net.polyak_coef == 0:
            raise problem("agent.net.polyak_coef", "missing; update_type polyak needs it, e.g. 0.005")
        if self.value_dist_spec is not None and agent.net.loss_spec != {"name": "MSELoss"}:
            raise problem("agent.net.loss_spec", f"{self.value_dist_spec.name} has a loss of its own; remove it")


class VanillaDQN(QLearning):
    """Q-learning with a net and a replay, without a target net, Mnih et al. 2013, arXiv:1312.5602."""

    name: Literal["VanillaDQN"] = "VanillaDQN"
    """The algorithm."""

    def check(self, agent: "AgentSpec", env: EnvSpec) -> None:
        """Raise if the net's spec speaks of a target net as well."""
        self.check_no_target(agent)
        super().check(agent, env)


class DQN(QLearning):
    """Deep Q-Network, Mnih et al. 2015."""

    name: Literal["DQN"] = "DQN"
    """The algorithm."""


class DoubleDQN(QLearning):
    """Double DQN, van Hasselt et al. 2015, arXiv:1509.06461."""

    name: Literal["DoubleDQN"] = "DoubleDQN"
    """The algorithm."""


class OffPolicyActorCritic(Algorithm):
    """Keys of the algorithms with a policy and twin critics on a replay."""

    memories: ClassVar[tuple[str, ...]] = ("Replay", "PrioritizedReplay")
    has_critic_net: ClassVar[bool] = True
    has_target_nets: ClassVar[bool] = True
    """Whether its critics are followed by target nets."""

    gamma: Share
    """Discount of the reward one step later, 0 to 1."""
    num_step_returns: Count = 1
    """Steps of reward in a target before the value of what follows."""
    training_frequency: Count = 1
    """Frames between two training events; a vector step has at most one."""
    training_start_step: Natural = 1000
    """Frames before the first training event, acted out at random."""
    training_iter: Count | None = None
    """Batches drawn and gradient steps taken per training event; null: num_envs."""
    policy_delay: Count = 1
    """Gradient steps of the critics to one of the policy."""

    def check(self, agent: "AgentSpec", env: EnvSpec) -> None:
        """Raise if nets are shared or target nets would stand still; say so if it would never learn."""
        _warn_if_too_short(self.training_start_step, env)
        if agent.net.shared:
            raise problem("agent.net.shared", "the policy and the critics are nets of their own; set it to false")
        place, critic = agent.critics
        if self.has_target_nets and (critic.update_type != "polyak" or critic.polyak_coef == 0):
            raise problem(
                f"agent.{place}.polyak_coef",
                "the target nets follow in small steps; give update_type polyak and a polyak_coef, e.g. 0.005",
            )


class MaximumEntropy(OffPolicyActorCritic):
    """Keys of the algorithms that maximise reward and entropy."""

    action_pdtype: Literal["default", "Normal", "MultivariateNormal", "Categorical", "GumbelSoftmax"] = "default"
    """Distribution of actions. default: Normal, squashed into [-1, 1], or Categorical, as the action space is."""
    action_policy: Literal["default"] = "default"
    """How actions are chosen: default, a sample of the distribution."""
    target_entropy: Annotated[Number | Literal["auto"], either('a number or "auto"')] = "auto"
    """Entropy that the temperature is to hold, in nats; auto: minus the dimensions of a continuous action, or
    target_entropy_ratio for discrete ones."""
    target_entropy_ratio: Share = 0.6
    """Share of the largest entropy there is, log of the number of actions; discrete actions only, 0 to 1."""
    fixed_alpha: Positive | None = None
    """Temperature that stays as it is; null: learned."""
    alpha_lr: Positive | None = None
    """Learning rate of the temperature; null: that of the policy."""
    log_alpha_min: Number = -5.0
    """Least logarithm of the learned temperature."""
    log_alpha_max: Number = 2.0
    """Greatest logarithm of the learned temperature."""

    @model_validator(mode="after")
    def _check_temperature(self) -> Self:
        if self.fixed_alpha is not None and self.alpha_lr is not None:
            raise problem("alpha_lr", "the temperature is not learned, as fixed_alpha says; remove one of them")
        if self.log_alpha_min > min(self.log_alpha_max, 0.0):
            raise problem(
                "log_alpha_min", f"{self.log_alpha_min} must not be above 0, where it begins, nor above log_alpha_max"
            )
        return self


class SoftActorCritic(MaximumEntropy):
    """Soft Actor-Critic, Haarnoja et al. 2018, arXiv:1812.05905; discrete: Christodoulou 2019, arXiv:1910.07207."""

    name: Literal["SoftActorCritic"] = "SoftActorCritic"
    """The algorithm."""


class CrossQ(MaximumEntropy):
    """CrossQ, Bhatt et al. 2024, arXiv:1902.05605."""

    has_target_nets: ClassVar[bool] = False

    name: Literal["CrossQ"] = "CrossQ"
    """The algorithm."""
    policy_delay: Count = 3
    """Gradient steps of the critics to one of the policy."""

    def check(self, agent: "AgentSpec", env: EnvSpec) -> None:
        """Raise as the others do; say so where target nets are spoken of, or the critics are not normalised."""
        super().check(agent, env)
        place, net = agent.critics
        critic = net.for_role("critic")
        for key in critic.changed(TARGET_KEYS):
            warn(f"agent.{place}.{key}: CrossQ has no target nets; ignored")
        if critic.type in ("MLPNet", "ConvNet") and not (critic.batch_renorm or critic.batch_norm):
            warn(f"agent.{place}: CrossQ's critics have no target nets to steady them, give them batch_renorm")


class TD3(OffPolicyActorCritic):
    """Twin Delayed Deep Deterministic policy gradient, Fujimoto et al. 2018, arXiv:1802.09477."""

    name: Literal["TD3"] = "TD3"
    """The algorithm."""
    policy_delay: Count = 2
    """Gradient steps of the critics to one of the policy and of the target nets."""
    exploration_noise: NotNegative = 0.1
    """Standard deviation of the Gaussian noise on actions, which lie in [-1, 1]."""
    target_noise: NotNegative = 0.2
    """Standard deviation of the noise on the actions of the target policy."""
    noise_clip: NotNegative = 0.5
    """Largest noise on the actions of the target policy."""


ALGORITHMS: dict[str, type[Section]] = {
    "Random": Random,
    "Reinforce": Reinforce,
    "ActorCritic": ActorCritic,
    "PPO": PPO,
    "SIL": SIL,
    "PPOSIL": PPOSIL,
    "SARSA": SARSA,
    "VanillaDQN": VanillaDQN,
    "DQN": DQN,
    "DoubleDQN": DoubleDQN,
    "SoftActorCritic": SoftActorCritic,
    "CrossQ": CrossQ,
    "TD3": TD3,
}
