"""The `agent.net` part of a spec: one model per net."""

import difflib
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import AfterValidator, ConfigDict, Field, GetJsonSchemaHandler, ValidationError, model_validator

from slm_lab.spec.arc import check_arc
from slm_lab.spec.model import (
    Count,
    Natural,
    NotNegative,
    Number,
    Positive,
    Section,
    Share,
    either,
    list_or_name,
    locate,
    problem,
    unknown_text,
)

if TYPE_CHECKING:
    from slm_lab.spec.schema import AgentSpec

ROLES = ("actor", "critic")
ROLE_PREFIXES = tuple(f"{role}_" for role in ROLES)


def _named(spec: dict[str, Any]) -> dict[str, Any]:
    if not isinstance(spec.get("name"), str):
        raise problem("name", "missing; the name of a class")
    for key in ("lr", "frame"):
        value = spec.get(key, 1.0)
        if isinstance(value, bool) or not isinstance(value, int | float) or not value > 0:
            raise problem(key, f"must be a number > 0, got {value!r}")
    if spec["name"] in ("LinearToZero", "LinearToMin") and "frame" not in spec:
        raise problem("frame", "missing; the frame at which the learning rate has fallen to its end")
    if spec["name"] == "LinearToMin":
        least = spec.get("min_factor")
        if isinstance(least, bool) or not isinstance(least, int | float) or not 0 <= least <= 1:
            raise problem("min_factor", f"must be the share of the learning rate that stays, 0 to 1, got {least!r}")
    return spec


Named = Annotated[dict[str, Any], AfterValidator(_named)]
"""{"name": class, argument: value}."""
Optimizer = Annotated[dict[str, Any], AfterValidator(lambda spec: _named({"name": "Adam", **spec}))]
"""The same; without a name it is Adam."""


class BatchRenormSpec(Section):
    """Batch renormalisation, Ioffe 2017, arXiv:1702.03275."""

    eps: Positive = 1e-5
    """Added to the variance of a batch."""
    momentum: Share = 0.01
    """Weight of the newest batch in the running mean and deviation, 0 to 1."""
    r_max: Annotated[Number, Field(ge=1)] = 3.0
    """Largest ratio of a batch's deviation to the running one that is corrected, from 1 on."""
    d_max: NotNegative = 5.0
    """Largest difference of a batch's mean and the running one that is corrected, in running deviations."""
    warmup_steps: Count = 10_000
    """Batches over which these limits widen from none."""


class NetSpec(Section):
    """Keys of every net. Any of them with `actor_` or `critic_` before it counts for the net of that role only."""

    model_config = ConfigDict(extra="allow")

    type: str
    """The net."""
    shared: bool = False
    """Policy and value share one body; false: each has a net of its own."""
    use_same_optim: bool = False
    """The critic's net is trained by the actor's optim_spec, clip_grad_val and lr_scheduler_spec."""
    hid_layers_activation: str = "relu"
    """A class of torch.nn, in any case: relu, tanh, selu, leakyrelu, silu, …"""
    out_layer_activation: Annotated[
        str | list[str | None] | None, either("a class of torch.nn, a list of them, or null")
    ] = None
    """Activation of the outputs, or one for each; null: none."""
    init_fn: str | None = None
    """A function of torch.nn.init for the weights, with the gain of the activation; biases are 0. One that needs no
    more than a weight: orthogonal_, xavier_uniform_, xavier_normal_, kaiming_uniform_, kaiming_normal_, uniform_,
    normal_, trunc_normal_, ones_ or zeros_. null: torch's default."""
    batch_norm: bool = False
    """Batch normalisation."""
    batch_renorm: Annotated[bool | BatchRenormSpec, either("true, false, or an object {…} of its options")] = False
    """Batch renormalisation in its place: true, or its options."""
    actor_init_std: Positive | None = None
    """Orthogonal gain of the policy's output layer, e.g. 0.01; null: as the other layers."""
    critic_init_std: Positive | None = None
    """Orthogonal gain of the value's output layer, e.g. 1.0; null: as the other layers."""
    log_std_init: Number | None = None
    """Log standard deviation of Normal actions at the start, as parameters of their own; null: the net puts it out."""
    loss_spec: Named = Field(default_factory=lambda: {"name": "MSELoss"})
    """Loss of values: {"name": MSELoss, SmoothL1Loss, HuberLoss or L1Loss of torch.nn, argument: value}."""
    optim_spec: Optimizer = Field(default_factory=lambda: {"name": "Adam"})
    """Optimiser: {"name": a class of torch.optim, "lr": …, argument: value}; the name is Adam if left out."""
    lr_scheduler_spec: Named | None = None
    """Learning rate over time: {"name": "LinearToZero", "frame": …}; {"name": "LinearToMin", "frame": …,
    "min_factor": …}, down to that share of it; or a class of torch.optim.lr_scheduler with its arguments, stepped once
    per training event; null: constant."""
    clip_grad_val: Positive | None = None
    """Largest norm of the gradient; null: no clipping."""
    update_type: Literal["replace", "polyak"] = "replace"
    """How the target net follows: by copies, or a little after each gradient step."""
    update_frequency: Count = 1
    """Frames between two copies; replace only."""
    polyak_coef: Share = 0.0
    """Weight of the online net in each small step, 0 to 1; polyak only."""
    gpu: Annotated[bool | Literal["auto"], either('true, false or "auto"')] = "auto"
    """Train on the GPU; auto: if there is one."""

    def check(self, agent: "AgentSpec") -> None:
        """Raise if the rest of the agent does not fit this net."""
        name = agent.algorithm.name
        self._check_role_keys(agent)
        if agent.algorithm.action_values:
            return
        if self.type.startswith("Dueling"):
            plain = self.type.removeprefix("Dueling")
            raise problem("agent.net.type", f"{self.type} is for action values, and {name} learns none; use {plain}")
        given = (self.model_extra or {}) | {"noisy_sigma": self.declared("noisy_sigma")}
        for key in ("noisy_sigma", "actor_noisy_sigma", "critic_noisy_sigma"):
            if given.get(key) is not None:
                raise problem(
                    f"agent.net.{key}", f"noisy nets are for action values, and {name} learns none; remove it"
                )

    def _check_role_keys(self, agent: "AgentSpec") -> None:
        """Raise if a key is for the net of a role that is not made by this spec."""
        if agent.critic_net is None:
            place, roles = "net", () if agent.algorithm.action_values else ROLES
        else:
            place, roles = ("critic_net", ("critic",)) if self is agent.critic_net else ("net", ("actor",))
        for key in self.model_extra or ():
            role, _, plain = key.partition("_")
            if role in ROLES and role not in roles:
                other = {"actor": "net", "critic": "critic_net"}[role] if roles else place
                raise problem(f"agent.{place}.{key}", f"no net is made by it; use {plain} of {other}, or remove it")

    def declared(self, key: str) -> Any:
        """Return the value of a key that nets of this type have; None where it is none, or an argument of its own."""
        return getattr(self, key) if key in type(self).model_fields else None

    def for_role(self, role: Literal["actor", "critic"]) -> Self:
        """Return the spec of one role's net: `actor_X` or `critic_X` in place of X."""
        fields = type(self).model_fields
        own = {key: value for key, value in self.model_dump().items() if key in fields or not _has_role(key)}
        prefix = f"{role}_"
        given = {
            key.removeprefix(prefix): value for key, value in (self.model_extra or {}).items() if key.startswith(prefix)
        }
        return self.model_validate({**own, **given})

    @classmethod
    def __get_pydantic_json_schema__(cls, core_schema: Any, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        schema = super().__get_pydantic_json_schema__(core_schema, handler)
        resolved = handler.resolve_ref_schema(schema)
        for prefix in ROLE_PREFIXES:
            for key, value in {key: resolved["properties"][key] for key in cls.model_fields}.items():
                resolved["properties"].setdefault(prefix + key, value)
        resolved["additionalProperties"] = False
        return schema

    @classmethod
    def check_unknown(cls, raw: Mapping[str, Any]) -> None:
        """Raise if a key is none, with or without the prefix of a role."""
        unknown = [key for key in raw if key not in cls.model_fields and not _is_role_key(key, cls.model_fields)]
        if unknown:
            prefix, plain, known = _split(unknown[0], cls.model_fields)
            text = unknown_text("unknown key", plain, known, prefix)
            raise problem(unknown[0], text, len(unknown) - 1)

    @model_validator(mode="after")
    def _check_norms(self) -> Self:
        if self.batch_norm and self.batch_renorm is not False:
            raise problem("batch_renorm", "it takes the place of batch_norm; set one of them to false")
        if self.declared("spectral_norm") and self.declared("noisy_sigma") is not None:
            raise problem("spectral_norm", "is not for weights that are noisy; set it to false, or noisy_sigma to null")
        return self

    @model_validator(mode="after")
    def _check_roles(self) -> Self:
        own = [key for key in self.model_extra or () if _has_role(key)]
        for role in ROLES if own else ():
            try:
                self.for_role(role)
            except ValidationError as error:
                path, message = locate(error)
                if path == "type":
                    message = f"{message}: both are of one kind; SAC, CrossQ and TD3 take another as critic_net"
                raise problem(f"{role}_{path}", message) from None
        if self.shared and own:
            raise problem(own[0], f"the net is shared; use {own[0].partition('_')[2]}, or set shared to false")
        return self


def _has_role(key: str) -> bool:
    return key.startswith(ROLE_PREFIXES)


def _split(key: str, fields: Iterable[str]) -> tuple[str, str, list[str]]:
    """Return a key's prefix of a role ("" if it has none), the rest of it, and what that could be."""
    prefix = next((prefix for prefix in ROLE_PREFIXES if key.startswith(prefix)), "")
    return prefix, key.removeprefix(prefix), [field.removeprefix(prefix) for field in fields]


def _is_role_key(key: str, known: Mapping[str, Any]) -> bool:
    return _has_role(key) and key.partition("_")[2] in known


class FullyConnected(NetSpec):
    """Keys of the nets of fully connected layers."""

    hid_layers: list[Count]
    """Units of each hidden layer."""
    layer_norm: bool = False
    """Layer normalisation, before each activation."""
    noisy_sigma: Positive | None = None
    """Noise in the weights of every linear layer (arXiv:1706.10295), in units of 1 / sqrt(inputs) at the start, e.g.
    0.5; null: none. For algorithms that learn action values."""
    spectral_norm: bool = False
    """Spectral normalisation of the last hidden layer: its largest singular value is 1 (arXiv:2105.05246)."""

    @model_validator(mode="after")
    def _check_spectral_norm(self) -> Self:
        if self.spectral_norm and not self.hid_layers:
            raise problem("spectral_norm", "is of the last of hid_layers, and there are none; set it to false")
        return self


class MLPNet(FullyConnected):
    """Fully connected layers."""

    type: Literal["MLPNet"] = "MLPNet"
    """The net."""


class DuelingMLPNet(FullyConnected):
    """Fully connected layers, then a value of the state and an advantage of each action, arXiv:1511.06581."""

    type: Literal["DuelingMLPNet"] = "DuelingMLPNet"
    """The net."""


class HydraMLPNet(NetSpec):
    """Fully connected layers: heads side by side, each of which sees all; a body on them; a tail for each output."""

    type: Literal["HydraMLPNet"] = "HydraMLPNet"
    """The net."""
    hid_layers: Annotated[
        list[list[Count] | list[list[Count]]],
        Field(min_length=3, max_length=3),
        either("[[heads], [body], [tails]], each of whole numbers from 1 on"),
    ]
    """[[heads], [body], [tails]]: units of the layers, e.g. [[[32], [32]], [64], [[16], [16]]]. A list for each head,
    the body's layers, and a list for each output of the algorithm. One list may stand for all outputs."""
    layer_norm: bool = False
    """Layer normalisation, before each activation."""

    @model_validator(mode="after")
    def _check_body(self) -> Self:
        if any(isinstance(units, list) for units in self.hid_layers[1]):
            raise problem("hid_layers.1", f"there is one body, so it must be a list of units, got {self.hid_layers[1]}")
        return self


if TYPE_CHECKING:
    ConvLayers = list[list[int]] | Literal["nature", "impala"]
else:
    ConvLayers = list_or_name(
        list[Annotated[list[Natural], Field(min_length=2, max_length=5)]], Literal["nature", "impala"]
    )


class Convolutional(NetSpec):
    """Keys of the nets of convolutions."""

    conv_hid_layers: ConvLayers
    """[channels, kernel, stride, padding, dilation] of each convolution; the last three are 1, 0, 1 if left out. Or the
    convolutions of DQN, "nature" (Mnih et al. 2015), or the residual ones of "impala" (arXiv:1802.01561)."""
    fc_hid_layers: list[Count] = Field(default_factory=list)
    """Units of each layer after the convolutions."""
    normalize: bool = False
    """Divide pixels by 255."""
    noisy_sigma: Positive | None = None
    """Noise in the weights of every linear layer (arXiv:1706.10295), in units of 1 / sqrt(inputs) at the start, e.g.
    0.5; null: none. For algorithms that learn action values."""
    spectral_norm: bool = False
    """Spectral normalisation of the last hidden layer: its largest singular value is 1 (arXiv:2105.05246)."""

    @model_validator(mode="after")
    def _check_layers(self) -> Self:
        layers = self.conv_hid_layers
        for index, layer in enumerate(layers if isinstance(layers, list) else ()):
            if 0 in layer[:3] or 0 in layer[4:]:
                raise problem(f"conv_hid_layers.{index}", f"only the padding may be 0, got {layer}")
        for key in ("batch_norm", "batch_renorm") if layers == "impala" else ():
            if getattr(self, key) is not False:
                raise problem(key, "the convolutions of impala have none; set it to false")
        return self


class ConvNet(Convolutional):
    """Convolutions for images, then fully connected layers."""

    type: Literal["ConvNet"] = "ConvNet"
    """The net."""


class DuelingConvNet(Convolutional):
    """A ConvNet, then a value of the state and an advantage of each action, arXiv:1511.06581."""

    type: Literal["DuelingConvNet"] = "DuelingConvNet"
    """The net."""


class RecurrentNet(NetSpec):
    """Fully connected layers, then a recurrent cell: it remembers what it saw since the episode began."""

    type: Literal["RecurrentNet"] = "RecurrentNet"
    """The net."""
    cell_type: Literal["RNN", "LSTM", "GRU"] = "GRU"
    """The cell: a class of torch.nn."""
    rnn_hidden_size: Count
    """Numbers in the hidden state of each layer."""
    rnn_num_layers: Count = 1
    """Layers of the cell."""
    fc_hid_layers: list[Count] = Field(default_factory=list)
    """Units of each layer before the cell."""
    layer_norm: bool = False
    """Layer normalisation of these layers, before each activation."""
    seq_len: Count
    """Steps of the sequences in training, as far as a gradient flows back. Divides the vector steps of a rollout and
    the sizes of batches drawn. Memories of episodes take whole episodes instead."""

    def check(self, agent: "AgentSpec") -> None:
        """Raise if the algorithm cannot work with sequences, or its batches cannot be cut into them."""
        super().check(agent)
        algorithm, memory = agent.algorithm, agent.memory
        if not algorithm.recurrent:
            raise problem("agent.net.type", f"RecurrentNet does not suit {algorithm.name}; use MLPNet or ConvNet")
        replay, place = memory, "agent.memory"
        if getattr(memory, "sil_replay", None) is not None:
            replay, place = memory.sil_replay, "agent.memory.sil_replay"
        if replay.name == "PrioritizedReplay":
            raise problem(f"{place}.name", "PrioritizedReplay draws single steps, not sequences; use Replay")
        if getattr(replay, "use_cer", False):
            raise problem(f"{place}.use_cer", "is for single steps, and a RecurrentNet learns from sequences")
        horizon = "time_horizon" if hasattr(algorithm, "time_horizon") else "training_frequency"
        sizes = {
            f"agent.algorithm.{horizon}": getattr(algorithm, horizon) if memory.name == "OnPolicyBatchReplay" else 0,
            "agent.algorithm.minibatch_size": getattr(algorithm, "minibatch_size", 0),
            f"{place}.batch_size": getattr(replay, "batch_size", 0),
        }
        for key, size in sizes.items():
            if size % self.seq_len:
                text = f"{size} is not a multiple of agent.net.seq_len {self.seq_len}"
                raise problem(key, f"{text}; use {-(-size // self.seq_len) * self.seq_len}, or another seq_len")


class _BuiltElsewhere(NetSpec):
    """What nets have in common whose layers are not the lab's own."""

    @model_validator(mode="after")
    def _check_no_norms(self) -> Self:
        for key in ("batch_norm", "batch_renorm"):
            if getattr(self, key) is not False:
                raise problem(key, f"{self.type} has the layers that it is given; put the norms among them")
        return self


class TorchArcNet(_BuiltElsewhere):
    """Layers as an arc lists them."""

    type: Literal["TorchArcNet"] = "TorchArcNet"
    """The net."""
    arc: dict[str, Any] | None = None
    """{"modules": {name: {"Sequential": [{class: arguments}, …]}}, "graph": {"input": name, "modules":
    {name: [inputs]}, "output": name}}; the outputs of the algorithm are added. Or arc_file: a JSON or YAML file that
    holds it."""
    normalize: bool = False
    """Divide pixels by 255."""

    @model_validator(mode="after")
    def _check_arc(self) -> Self:
        if self.arc is not None:
            check_arc(self.arc)
        elif not {"actor_arc", "critic_arc"} <= (self.model_extra or {}).keys():
            raise problem("arc", "missing; the layers, or give arc_file, or actor_arc and critic_arc")
        return self


class OutsideNet(_BuiltElsewhere):
    """A net from outside. Keys that are not declared here are arguments of its own."""

    type: Annotated[str, Field(pattern=r"^[\w.]+:\w+$")]
    """Where it is, "my_package.nets:MyNet": a class or function that takes the shape of an observation and the net's
    own keys, and makes a module from [B, *shape] to [B, features]; the outputs of the algorithm are added."""

    @property
    def kwargs(self) -> dict[str, Any]:
        """Arguments of the net itself."""
        return {key: value for key, value in (self.model_extra or {}).items() if not _has_role(key)}

    @classmethod
    def check_unknown(cls, raw: Mapping[str, Any]) -> None:
        """Raise if a key looks like a misspelt one; any other is an argument of the net."""
        own = [key for key in raw if key not in cls.model_fields and not _is_role_key(key, cls.model_fields)]
        for key in own:
            prefix, plain, known = _split(key, cls.model_fields)
            if near := difflib.get_close_matches(plain, known, n=1, cutoff=0.8):
                raise problem(key, f"unknown key; did you mean {prefix + near[0]!r}?")

    @classmethod
    def __get_pydantic_json_schema__(cls, core_schema: Any, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        schema = super().__get_pydantic_json_schema__(core_schema, handler)
        handler.resolve_ref_schema(schema)["additionalProperties"] = True
        return schema


NETS: dict[str, type[NetSpec]] = {
    "MLPNet": MLPNet,
    "ConvNet": ConvNet,
    "RecurrentNet": RecurrentNet,
    "DuelingMLPNet": DuelingMLPNet,
    "DuelingConvNet": DuelingConvNet,
    "HydraMLPNet": HydraMLPNet,
    "TorchArcNet": TorchArcNet,
}
