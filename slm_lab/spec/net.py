"""The `agent.net` part of a spec: one model per net."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import AfterValidator, ConfigDict, Field, GetJsonSchemaHandler, ValidationError, model_validator

from slm_lab.spec.model import (
    Count,
    Natural,
    NotNegative,
    Number,
    Positive,
    Section,
    Share,
    either,
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
    if spec["name"] == "LinearToZero" and "frame" not in spec:
        raise problem("frame", "missing; the frame at which the learning rate is 0")
    return spec


Named = Annotated[dict[str, Any], AfterValidator(_named)]
"""{"name": class, argument: value}."""


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
    """A function of torch.nn.init for the weights, e.g. orthogonal_, with the gain of the activation; biases are 0.
    null: torch's default."""
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
    """Loss of values: {"name": a loss of torch.nn, argument: value}."""
    optim_spec: Named = Field(default_factory=lambda: {"name": "Adam"})
    """Optimiser: {"name": a class of torch.optim, "lr": …, argument: value}."""
    lr_scheduler_spec: Named | None = None
    """Learning rate over time: {"name": "LinearToZero", "frame": …}, or a class of torch.optim.lr_scheduler with its
    arguments, stepped once per training event; null: constant."""
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
        if agent.algorithm.action_values:
            return
        if self.type.startswith("Dueling"):
            plain = self.type.removeprefix("Dueling")
            raise problem("agent.net.type", f"{self.type} is for action values, and {name} learns none; use {plain}")
        for key in ("noisy_sigma", "actor_noisy_sigma", "critic_noisy_sigma"):
            if getattr(self, key, None) is not None:
                raise problem(
                    f"agent.net.{key}", f"noisy nets are for action values, and {name} learns none; remove it"
                )

    def for_role(self, role: Literal["actor", "critic"]) -> Self:
        """Return the spec of one role's net: `actor_X` or `critic_X` in place of X."""
        own = {key: value for key, value in self.model_dump().items() if key in type(self).model_fields}
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
            raise problem(unknown[0], unknown_text("unknown key", unknown[0], cls.model_fields), len(unknown) - 1)

    @model_validator(mode="after")
    def _check_norms(self) -> Self:
        if self.batch_norm and self.batch_renorm is not False:
            raise problem("batch_renorm", "it takes the place of batch_norm; set one of them to false")
        return self

    @model_validator(mode="after")
    def _check_roles(self) -> Self:
        for role in ROLES if self.model_extra else ():
            try:
                self.for_role(role)
            except ValidationError as error:
                path, message = locate(error)
                raise problem(f"{role}_{path}", message) from None
            if self.shared and any(key.startswith(f"{role}_") for key in self.model_extra or ()):
                key = next(key for key in self.model_extra or () if key.startswith(f"{role}_"))
                raise problem(key, f"the net is shared; use {key.removeprefix(f'{role}_')}, or set shared to false")
        return self


def _is_role_key(key: str, known: Mapping[str, Any]) -> bool:
    return key.startswith(ROLE_PREFIXES) and key.partition("_")[2] in known


class FullyConnected(NetSpec):
    """Keys of the nets of fully connected layers."""

    hid_layers: list[Count]
    """Units of each hidden layer."""
    layer_norm: bool = False
    """Layer normalisation, before each activation."""
    noisy_sigma: Positive | None = None
    """Noise in the weights of every linear layer (arXiv:1706.10295), in units of 1 / sqrt(inputs) at the start, e.g.
    0.5; null: none. For algorithms that learn action values."""


class MLPNet(FullyConnected):
    """Fully connected layers."""

    type: Literal["MLPNet"] = "MLPNet"
    """The net."""


class DuelingMLPNet(FullyConnected):
    """Fully connected layers, then a value of the state and an advantage of each action, arXiv:1511.06581."""

    type: Literal["DuelingMLPNet"] = "DuelingMLPNet"
    """The net."""


class Convolutional(NetSpec):
    """Keys of the nets of convolutions."""

    conv_hid_layers: list[Annotated[list[Natural], Field(min_length=2, max_length=5)]]
    """[channels, kernel, stride, padding, dilation] of each convolution; the last three are 1, 0, 1 if left out."""
    fc_hid_layers: list[Count] = Field(default_factory=list)
    """Units of each layer after the convolutions."""
    normalize: bool = False
    """Divide pixels by 255."""
    noisy_sigma: Positive | None = None
    """Noise in the weights of every linear layer (arXiv:1706.10295), in units of 1 / sqrt(inputs) at the start, e.g.
    0.5; null: none. For algorithms that learn action values."""

    @model_validator(mode="after")
    def _check_layers(self) -> Self:
        for index, layer in enumerate(self.conv_hid_layers):
            if 0 in layer[:3] or 0 in layer[4:]:
                raise problem(f"conv_hid_layers.{index}", f"only the padding may be 0, got {layer}")
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
        algorithm, memory = agent.algorithm, agent.memory
        if not algorithm.recurrent:
            raise problem("agent.net.type", f"RecurrentNet does not suit {algorithm.name}; use MLPNet or ConvNet")
        horizon = "time_horizon" if hasattr(algorithm, "time_horizon") else "training_frequency"
        sizes = {
            f"agent.algorithm.{horizon}": getattr(algorithm, horizon) if memory.name == "OnPolicyBatchReplay" else 0,
            "agent.algorithm.minibatch_size": getattr(algorithm, "minibatch_size", 0),
            "agent.memory.batch_size": getattr(memory, "batch_size", 0),
        }
        for key, size in sizes.items():
            if size % self.seq_len:
                text = f"{size} is not a multiple of agent.net.seq_len {self.seq_len}"
                raise problem(key, f"{text}; use {-(-size // self.seq_len) * self.seq_len}, or another seq_len")


NETS: dict[str, type[NetSpec]] = {
    "MLPNet": MLPNet,
    "ConvNet": ConvNet,
    "RecurrentNet": RecurrentNet,
    "DuelingMLPNet": DuelingMLPNet,
    "DuelingConvNet": DuelingConvNet,
}
PLANNED_NETS = ("HydraMLPNet", "TorchArcNet")
