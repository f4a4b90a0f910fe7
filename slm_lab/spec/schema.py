"""The spec: one typed, frozen model per part. What is not declared here is no key.

Units: a *frame* is one step of one environment (`num_envs` frames pass per vector step); a *vector step* is one step of all
of them; an *event* is one call of an algorithm's update.
"""

import difflib
import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, ClassVar, Literal, get_args

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from slm_lab.spec.errors import SpecError


def _integral(value: Any) -> Any:
    """Take 1e6 for 1000000, as spec files write it."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


Count = Annotated[int, BeforeValidator(_integral), Field(ge=1)]
"""A whole number from 1 on."""
Natural = Annotated[int, BeforeValidator(_integral), Field(ge=0)]
"""A whole number from 0 on."""
Positive = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]
Share = Annotated[float, Field(ge=0, le=1)]
"""A number in [0, 1]."""
Named = dict[str, Any]
"""{"name": class name, **keyword arguments}."""


class Model(BaseModel):
    """Base of every part: typed strictly, frozen, and without room for unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, use_attribute_docstrings=True)


class VarSpec(Model):
    """A value that changes with the frame."""

    name: Literal["no_decay", "linear_decay", "rate_decay", "periodic_decay"] = "no_decay"
    """How it goes from start_val to end_val."""
    start_val: float
    """Value up to start_step."""
    end_val: float | None = None
    """Value from end_step on; 0 is a value like any other. Not read by no_decay."""
    start_step: Natural = 0
    """Frame at which it begins to change."""
    end_step: Natural | None = None
    """Frame at which it stops changing."""

    @model_validator(mode="after")
    def _whole(self) -> "VarSpec":
        if self.name != "no_decay" and (self.end_val is None or self.end_step is None):
            raise ValueError(f"{self.name} needs end_val and end_step; or use no_decay")
        if self.name != "no_decay" and self.end_step is not None and self.end_step <= self.start_step:
            raise ValueError(f"end_step {self.end_step} must come after start_step {self.start_step}")
        return self


# --- env


class EnvSpec(Model):
    """The environment. Keys that are not declared here go, as they are, to what makes the environment."""

    model_config = ConfigDict(extra="allow")

    name: str
    """Id of gymnasium ("CartPole-v1", "ALE/Pong-v5"), or "my_pkg.envs:MyEnv"."""
    num_envs: Count = 1
    """Environments stepped together."""
    max_t: Count | None = None
    """Steps after which an episode is truncated; null for the environment's own limit."""
    max_frame: Count
    """Frames to train for, over all environments."""
    normalize_obs: bool = False
    """Give observations mean 0 and deviation 1, by running statistics."""
    normalize_reward: bool = False
    """Divide rewards by the running deviation of the discounted return."""
    clip_obs: Positive | None = None
    """Clip observations to +-this; 10 with normalize_obs."""
    clip_reward: NotNegative | list[float] | Literal["sign"] | None = None
    """Clip rewards to +-this, to [low, high], or to their sign (the default for Atari); 10 with normalize_reward."""
    reward_scale: float | Literal["sign"] | None = None
    """Multiply rewards by this, or take their sign; before normalising and clipping."""
    frame_op: Literal["concat", "stack"] | None = None
    """Show the last frame_op_len observations: joined end to end, or along a new first axis."""
    frame_op_len: Count | None = None
    """How many."""
    image_downsize: list[Count] | None = None
    """[height, width] that images are resized to."""
    backend: Literal["auto", "gymnasium", "ale"] = "auto"
    """What steps the environments."""
    wrappers: list[dict[str, Any]] = []
    """Wrappers of each environment, innermost first: {"id": name in gymnasium.wrappers or "my_pkg:MyWrapper", **kwargs}."""

    @property
    def kwargs(self) -> dict[str, Any]:
        """What goes to the maker of the environment."""
        return dict(self.model_extra or {})

    @model_validator(mode="before")
    @classmethod
    def _defaults(cls, raw: Any) -> Any:
        if not isinstance(raw, dict):
            return raw
        raw = dict(raw)
        for flag, clip in (("normalize_obs", "clip_obs"), ("normalize_reward", "clip_reward")):
            if raw.get(flag) is True and raw.get(clip) is None:
                raw[clip] = 10.0
        return raw

    @model_validator(mode="after")
    def _checks(self) -> "EnvSpec":
        for key in self.kwargs:
            near = difflib.get_close_matches(key, type(self).model_fields, n=1, cutoff=0.8)
            if near:
                raise ValueError(f"{key}: unknown key; did you mean {near[0]!r}?")
        if (self.frame_op is None) != (self.frame_op_len is None):
            raise ValueError("frame_op and frame_op_len go together; give both or neither")
        if isinstance(self.clip_reward, list) and (len(self.clip_reward) != 2 or self.clip_reward[0] >= self.clip_reward[1]):
            raise ValueError(f"clip_reward: {self.clip_reward} is not [low, high]")
        if self.image_downsize is not None and len(self.image_downsize) != 2:
            raise ValueError(f"image_downsize: {self.image_downsize} is not [height, width]")
        for wrapper in self.wrappers:
            if not isinstance(wrapper.get("id"), str):
                raise ValueError(f'wrappers: {wrapper} has no "id"')
        return self


# --- agent.memory


class Replay(Model):
    """The latest transitions, sampled uniformly."""

    name: Literal["Replay"] = "Replay"
    batch_size: Count
    """Transitions per batch."""
    max_size: Count
    """Rows kept over all environments; an episode's last observation takes a row too."""
    use_cer: bool = False
    """Put the newest transitions into every batch (combined experience replay)."""

    @model_validator(mode="after")
    def _checks(self) -> "Replay":
        if self.max_size < self.batch_size:
            raise ValueError(f"max_size {self.max_size} is less than batch_size {self.batch_size}; make it larger")
        return self


class OnPolicyReplay(Model):
    """Whole episodes, used once."""

    name: Literal["OnPolicyReplay"] = "OnPolicyReplay"


class OnPolicyBatchReplay(Model):
    """A rollout of a fixed number of vector steps, used once."""

    name: Literal["OnPolicyBatchReplay"] = "OnPolicyBatchReplay"


# --- agent.algorithm


class Algorithm(Model):
    """Keys that every algorithm has."""

    memories: ClassVar[tuple[str, ...]] = ("OnPolicyReplay", "OnPolicyBatchReplay")
    policies: ClassVar[tuple[str, ...]] = ("default",)

    action_pdtype: str = "default"
    """Distribution of the actions: default (by action space) or the name of one."""
    action_policy: Literal["default", "epsilon_greedy", "boltzmann"] = "default"
    """How actions are chosen: default (sample the policy; greedily by Q), epsilon_greedy, boltzmann."""
    explore_var_spec: VarSpec | None = None
    """Epsilon of epsilon_greedy, or temperature of boltzmann."""

    @model_validator(mode="after")
    def _exploration(self) -> "Algorithm":
        if self.action_policy not in self.policies:
            raise ValueError(f"action_policy: {self.action_policy!r} does not suit this algorithm; use {' or '.join(self.policies)}")
        if self.action_policy != "default" and self.explore_var_spec is None:
            raise ValueError(f"explore_var_spec: missing, but action_policy {self.action_policy!r} needs it")
        return self


class Random(Algorithm):
    """Draws from the action space."""

    memories: ClassVar[tuple[str, ...]] = ()
    name: Literal["Random"] = "Random"


class Reinforce(Algorithm):
    """REINFORCE."""

    name: Literal["Reinforce"] = "Reinforce"
    gamma: Share
    """Discount, in [0, 1]."""
    training_frequency: Count
    """Finished episodes (OnPolicyReplay) or vector steps (OnPolicyBatchReplay) per event."""
    center_return: bool = True
    """Subtract the mean of the returns: a baseline."""
    entropy_coef_spec: VarSpec | None = None
    """Weight of the entropy bonus."""
    policy_loss_coef: Positive = 1.0
    """Weight of the policy loss."""


class ActorCritic(Algorithm):
    """Advantage Actor-Critic."""

    name: Literal["ActorCritic"] = "ActorCritic"
    gamma: Share
    """Discount, in [0, 1]."""
    lam: Share | None = None
    """Lambda of GAE, in [0, 1]; excludes num_step_returns."""
    num_step_returns: Count | None = None
    """n of the n-step return, in vector steps: it is the length of the rollout."""
    training_frequency: Count | None = None
    """Vector steps (OnPolicyBatchReplay) or episodes (OnPolicyReplay) per event; num_step_returns where that is given."""
    entropy_coef_spec: VarSpec | None = None
    """Weight of the entropy bonus."""
    policy_loss_coef: Positive = 1.0
    """Weight of the policy loss."""
    val_loss_coef: Positive = 1.0
    """Weight of the value loss."""

    @model_validator(mode="before")
    @classmethod
    def _rollout(cls, raw: Any) -> Any:
        if isinstance(raw, dict) and raw.get("num_step_returns") is not None:
            return raw | {"training_frequency": raw["num_step_returns"]}
        return raw

    @model_validator(mode="after")
    def _checks(self) -> "ActorCritic":
        if self.lam is not None and self.num_step_returns is not None:
            raise ValueError("lam and num_step_returns exclude each other; set one of them to null")
        if self.training_frequency is None:
            raise ValueError("training_frequency: missing; give it, or num_step_returns")
        return self


class PPO(Algorithm):
    """Proximal Policy Optimization."""

    memories: ClassVar[tuple[str, ...]] = ("OnPolicyBatchReplay",)
    name: Literal["PPO"] = "PPO"
    gamma: Share
    """Discount, in [0, 1]."""
    lam: Share
    """Lambda of GAE, in [0, 1]."""
    clip_eps_spec: VarSpec
    """Clip range of the probability ratio."""
    entropy_coef_spec: VarSpec | None = None
    """Weight of the entropy bonus."""
    val_loss_coef: Positive = 1.0
    """Weight of the value loss."""
    time_horizon: Count
    """Vector steps per rollout: a batch is time_horizon x num_envs frames."""
    minibatch_size: Count
    """Frames per gradient step; divides the batch."""
    training_epoch: Count
    """Passes over each rollout."""
    clip_vloss: bool = False
    """Clip the value loss by the same range."""


class DQN(Algorithm):
    """Deep Q-Network, plain or double."""

    memories: ClassVar[tuple[str, ...]] = ("Replay",)
    policies: ClassVar[tuple[str, ...]] = ("default", "epsilon_greedy", "boltzmann")
    name: Literal["DQN", "DoubleDQN"] = "DQN"
    gamma: Share
    """Discount, in [0, 1]."""
    training_frequency: Count
    """Frames between events."""
    training_start_step: Natural = 0
    """Frames before the first event."""
    training_iter: Count = 1
    """Batches per event."""
    training_batch_iter: Count = 1
    """Gradient steps per batch."""


# --- agent.net


class Net(Model):
    """Keys that every net has."""

    model_config = ConfigDict(extra="allow")  # actor_* and critic_*, checked by for_role

    hid_layers_activation: str
    """Activation of the hidden layers: any of torch.nn, in any case."""
    out_layer_activation: str | list[str | None] | None = None
    """Activation of the output, or of each."""
    init_fn: str | None = None
    """Initialiser of the weights: any of torch.nn.init, e.g. orthogonal_."""
    batch_norm: bool = False
    """Batch normalisation between the layers."""
    clip_grad_val: Positive | None = None
    """Largest norm of the gradient."""
    loss_spec: Named = {"name": "MSELoss"}
    """Loss of the values: MSELoss, SmoothL1Loss, HuberLoss or L1Loss, and its arguments."""
    optim_spec: Named = {"name": "Adam"}
    """Any optimiser of torch.optim, and its arguments."""
    lr_scheduler_spec: Named | None = None
    """LinearToZero with its frame, or any of torch.optim.lr_scheduler, stepped once per event."""
    update_type: Literal["replace", "polyak"] = "replace"
    """How a target net follows."""
    update_frequency: Count = 1
    """replace: frames between replacements."""
    polyak_coef: Share = 0.0
    """polyak: weight of the online net, after every gradient step."""
    gpu: bool | Literal["auto"] = "auto"
    """Train on a GPU: auto where there is one."""
    shared: bool = False
    """One net with a policy and a value head, or two nets."""
    use_same_optim: bool = False
    """The critic's optimiser is as the actor's."""
    log_std_init: float | None = None
    """Start of a log standard deviation that is a parameter of its own; null: the net puts it out."""
    actor_init_std: Positive | None = None
    """Orthogonal gain of the policy head."""
    critic_init_std: Positive | None = None
    """Orthogonal gain of the value head."""

    def for_role(self, role: str) -> "NetSpec":
        """Return this spec with the `actor_*` or `critic_*` keys taken over."""
        own = {key.removeprefix(f"{role}_"): value for key, value in (self.model_extra or {}).items() if key.startswith(f"{role}_")}
        plain = {key: value for key, value in self.model_dump(exclude_unset=True).items() if key not in (self.model_extra or {})}
        return type(self).model_validate(plain | own)

    @model_validator(mode="after")
    def _checks(self) -> "Net":
        for key in self.model_extra or {}:
            role, _, plain = key.partition("_")
            if role not in ("actor", "critic") or plain not in type(self).model_fields:
                near = _near(plain if role in ("actor", "critic") else key, type(self).model_fields)
                raise ValueError(f"{key}: unknown key{near}")
        if self.update_type == "polyak" and self.polyak_coef == 0:
            raise ValueError("polyak_coef: 0 would never move the target net; give the weight of the online net, e.g. 0.005")
        return self


class MLPNet(Net):
    """Fully connected layers."""

    type: Literal["MLPNet"] = "MLPNet"
    hid_layers: list[Count]
    """Widths of the hidden layers."""
    layer_norm: bool = False
    """Layer normalisation between the layers."""


class ConvNet(Net):
    """Convolutions, then fully connected layers."""

    type: Literal["ConvNet"] = "ConvNet"
    conv_hid_layers: list[Annotated[list[Any], Field(min_length=5, max_length=5)]]
    """[channels, kernel, stride, padding, dilation] of each convolution."""
    fc_hid_layers: list[Count] = []
    """Widths of the fully connected layers."""
    normalize: bool = False
    """Divide the input by 255."""


# --- the whole


class AgentSpec(Model):
    """Algorithm, memory and net."""

    name: str = "agent"
    """A label."""
    algorithm: Annotated[Random | Reinforce | ActorCritic | PPO | DQN, Field(discriminator="name")]
    memory: Annotated[Replay | OnPolicyReplay | OnPolicyBatchReplay, Field(discriminator="name")] | None = None
    net: Annotated[MLPNet | ConvNet, Field(discriminator="type")] | None = None


class MetaSpec(Model):
    """How a spec is run."""

    seed: Natural | None = None
    """Everything random follows from it; drawn once, and written down, where it is null."""
    max_session: Count = 1
    """Seeds per trial."""
    max_trial: Count | None = None
    """Trials of a search."""
    log_frequency: Count = 10000
    """Frames between rows of the training curve."""
    eval_frequency: Count = 10000
    """Frames between evaluations."""
    rigorous_eval: Natural = 0
    """Episodes of an evaluation; 0 for none."""
    distributed: Literal[False] = False


class Spec(Model):
    """Everything that decides what a run does."""

    name: str
    """Name of the spec in its file."""
    agent: AgentSpec
    env: EnvSpec
    meta: MetaSpec = MetaSpec()
    search: dict[str, Any] = {}
    """What a search varies: path with a `__distribution` -> its arguments."""

    @classmethod
    def from_dict(cls, name: str, raw: Mapping[str, Any]) -> "Spec":
        """Check a spec.

        Raises:
            SpecError: one line that names the first thing that is wrong.
        """
        try:
            return cls.model_validate({**raw, "name": name})
        except ValidationError as error:
            raise SpecError(_one_line(name, error)) from None

    def to_dict(self) -> dict[str, Any]:
        """Return the complete spec as JSON has it; `from_dict` takes it back."""
        return self.model_dump(mode="json")

    @property
    def hash(self) -> str:
        """12 hexadecimal digits that differ where specs differ."""
        canonical = json.dumps(self.to_dict(), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(canonical.encode()).hexdigest()[:12]

    def with_meta(self, **changes: Any) -> "Spec":
        """Return this spec with other values in `meta`."""
        raw = self.to_dict()
        return type(self).from_dict(self.name, raw | {"meta": raw["meta"] | changes})

    @model_validator(mode="after")
    def _checks(self) -> "Spec":
        algorithm, memory, net = self.agent.algorithm, self.agent.memory, self.agent.net
        if algorithm.memories and (memory is None or net is None):
            raise ValueError(f"agent: {algorithm.name} needs a memory and a net")
        if memory is not None and memory.name not in algorithm.memories:
            use = " or ".join(algorithm.memories) or "none"
            raise ValueError(f"agent.memory.name: {algorithm.name} does not learn from {memory.name!r}; use {use}")
        if isinstance(algorithm, PPO):
            batch = algorithm.time_horizon * self.env.num_envs
            if batch % algorithm.minibatch_size:
                raise ValueError(
                    f"agent.algorithm.minibatch_size: {algorithm.minibatch_size} does not divide the batch of "
                    f"{batch} = time_horizon {algorithm.time_horizon} x num_envs {self.env.num_envs}"
                )
        if isinstance(algorithm, DQN) and algorithm.training_start_step > self.env.max_frame:
            raise ValueError(
                f"agent.algorithm.training_start_step: {algorithm.training_start_step} comes after the end of the run, "
                f"env.max_frame {self.env.max_frame}"
            )
        return self


NetSpec = MLPNet | ConvNet
MemorySpec = Replay | OnPolicyReplay | OnPolicyBatchReplay
AlgorithmSpec = Random | Reinforce | ActorCritic | PPO | DQN


def _one_line(name: str, error: ValidationError) -> str:
    """Say the first problem of a spec in one line: where it is, what it is, and what to do."""
    problems = error.errors()
    problem = next((one for one in problems if one["type"] == "extra_forbidden"), problems[0])
    # the tag of a union stands in the path, but not in the file
    path = [str(part) for index, part in enumerate(problem["loc"]) if not _is_tag(problem["loc"], index)]
    where = ".".join([name, *path])
    message = problem["msg"].removeprefix("Value error, ")
    match problem["type"]:
        case "extra_forbidden":
            message = f"unknown key{_near(path[-1], _fields(problem['loc']))}"
        case "missing":
            message = "missing"
        case "union_tag_invalid":
            message = f"unknown {problem['ctx']['discriminator']} '{problem['ctx']['tag']}'; known: {problem['ctx']['expected_tags']}"
        case "value_error":
            pass
        case _:
            message = f"{message}, not {problem['input']!r}"
    more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
    return f"{where}: {message}{more}"


TAGGED = {"algorithm": AlgorithmSpec, "memory": MemorySpec, "net": NetSpec}


def _is_tag(loc: tuple[int | str, ...], index: int) -> bool:
    return index == 2 and loc[0] == "agent" and loc[1] in TAGGED


def _fields(loc: tuple[int | str, ...]) -> list[str]:
    """Return the known keys beside the one at `loc`."""
    model: Any = Spec
    for index, part in enumerate(loc[:-1]):
        if _is_tag(loc, index):
            model = next(one for one in get_args(TAGGED[str(loc[1])]) if str(part) in get_args(_tag(one)))
        elif isinstance(part, str) and part in getattr(model, "model_fields", {}):
            kinds = [model.model_fields[part].annotation, *get_args(model.model_fields[part].annotation)]
            model = next((kind for kind in kinds if isinstance(kind, type) and issubclass(kind, Model)), model)
    return list(model.model_fields)


def _tag(model: Any) -> Any:
    return model.model_fields["type" if "type" in model.model_fields else "name"].annotation


def _near(key: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(key, list(known), n=1, cutoff=0.5)
    return f"; did you mean {near[0]!r}?" if near else f"; known: {', '.join(known)}"
