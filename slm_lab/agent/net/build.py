"""What nets are made of, found by the names that a spec uses: activations, initialisers, layers, output heads."""

import difflib
import inspect
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from itertools import pairwise
from types import FunctionType
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from slm_lab.agent.net.batch_renorm import BatchRenorm
from slm_lab.agent.net.fallback import OrPlain
from slm_lab.agent.net.history import History
from slm_lab.agent.net.numpy_net import NumpyNet, Tanh, numpy_sees
from slm_lab.spec.errors import SpecError
from slm_lab.spec.net import BatchRenormSpec, FullyConnected, HydraMLPNet, RecurrentNet

ALL = slice(None)

T = TypeVar("T")
Layer = TypeVar("Layer", bound=nn.Linear | nn.Conv2d)


def _optional_after(function: Callable[..., object], given: int) -> bool:
    later = list(inspect.signature(function).parameters.values())[given:]
    return all(p.default is not p.empty or p.kind in (p.VAR_POSITIONAL, p.VAR_KEYWORD) for p in later)


# not elementwise, or (RReLU) noisy from torch's global random stream
_NOT_FOR_LAYERS = {"GLU", "RReLU", "Softmin", "Softmax", "Softmax2d", "LogSoftmax"}

ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    name.lower(): getattr(nn, name)
    for name in nn.modules.activation.__all__
    if name not in _NOT_FOR_LAYERS and _optional_after(getattr(nn, name), given=0)
} | {"tanh": Tanh}
"""Elementwise activations of `torch.nn`, by lower-case name."""

INITIALISERS: dict[str, Callable[..., Tensor]] = {
    name: function
    for name, function in vars(nn.init).items()
    if name.endswith("_") and not name.startswith("_") and name not in {"dirac_", "eye_"}
    if _optional_after(function, given=1)
}
"""In-place initialisers of `torch.nn.init` that need nothing but a weight."""

_GAINLESS_GAIN = "relu"  # torch lists no gain for SiLU, GELU, ELU…: they behave as ReLU does


class ConvBody(nn.Sequential):
    """Convolutions and what follows, none of which minds how the numbers of an image lie in memory."""


class Net(nn.Module):
    """A body that turns observations into features, and linear heads on top.

    Args:
        body: from `[B, *obs]` float32 to `[B, features]`; a recurrent one, which has a `state_size`, from a `History`.
        heads: one output each.
        normalize: divide observations by 255.

    Attributes:
        precision: of the products inside, on float32 weights; what is put out is float32.
    """

    def __init__(self, body: nn.Module, heads: Sequence[nn.Module], normalize: bool = False) -> None:
        super().__init__()
        self.body, self.heads, self.normalize = body, nn.ModuleList(heads), normalize
        self.state_size: int = getattr(body, "state_size", 0)
        self.precision = torch.float32
        self._may_be_small = not normalize
        self._in_numpy: NumpyNet | None = None
        self._captured: OrPlain | None = None

    def features(self, obs: Tensor | History) -> Tensor:
        """Return what the heads see, `[B, features]`, of observations `[B, *obs]` of any dtype."""
        with self.rounding(obs):
            if isinstance(obs, History):
                return self.body(obs)
            obs = self.arranged(obs)
            if self.normalize:
                # the first convolution would round them anyway, and so there is less to be moved
                dtype = self.precision if isinstance(self.body, ConvBody) else torch.float32
                return self.body(obs.to(dtype).div_(255) if obs.dtype == torch.uint8 else obs.float() / 255)
            return self.body(obs.float())

    def arranged(self, obs: Tensor) -> Tensor:
        """Return observations `[B, *obs]` in the layout in memory that the body is fastest with."""
        # a CPU's convolutions are faster with the channels side by side
        images = isinstance(self.body, ConvBody) and obs.is_cpu
        return obs.contiguous(memory_format=torch.channels_last) if images else obs

    def forward(self, obs: Tensor | History | np.ndarray, heads: slice = ALL) -> list[Any]:
        """Return the outputs of `heads`, `[B, out_dim]` each: tensors, and of an array, to act on, arrays.

        Without a gradient, small nets are run by numpy; to act, in float32 whatever the precision, which is faster.
        """
        if isinstance(obs, np.ndarray):
            return self._to_act(obs, heads)
        if self.precision == torch.float32 and not torch.is_grad_enabled() and numpy_sees(obs):
            small = self._small(len(obs))
            if small is not None:
                return [torch.from_numpy(out) for out in small(obs.detach().numpy(), heads)]
        with self.rounding(obs):
            features, chosen = self.features(obs), self.heads[heads]
            if torch.compiler.is_compiling() and len(chosen) > 1 and all(type(head) is nn.Linear for head in chosen):
                return _joined(chosen, features)
            return [head(features).float() for head in chosen]

    def _to_act(self, obs: np.ndarray, heads: slice) -> list[np.ndarray]:
        small = self._small(len(obs))
        if small is not None:
            return small(obs, heads)
        seen = torch.from_numpy(obs).to(next(self.parameters()).device)
        run = self._captured or Net.forward
        with torch.no_grad():
            return [out.numpy(force=True) for out in run(self, seen, heads)]

    def capture(self, backend: str = "inductor") -> None:
        """Act from now on by one CUDA graph, in which no kernel waits for Python; for nets on a GPU."""
        options: Any = {"triton.cudagraphs": True} if backend == "inductor" else None
        # torch keeps graphs by code object, and no more than eight: every net needs one of its own
        forward = FunctionType(Net.forward.__code__.replace(), Net.forward.__globals__)
        compiled = torch.compile(forward, fullgraph=True, backend=backend, options=options)
        self._captured = OrPlain("acting", compiled, Net.forward)

    def rounding(self, obs: Tensor | History) -> AbstractContextManager[Any]:
        """Return the context in which products are of `precision`."""
        if self.precision == torch.float32:
            return nullcontext()
        device = obs.first.device if isinstance(obs, History) else obs.device
        return torch.autocast(device.type, self.precision)

    def _small(self, rows: int) -> NumpyNet | None:
        """Return the net in numpy; None where it cannot be, or there is too much to be computed for it to be faster."""
        if not self._may_be_small:
            return None
        if self._in_numpy is None or not self._in_numpy.valid():
            try:
                self._in_numpy = NumpyNet(self.body, self.heads)
            except TypeError:
                self._may_be_small = False
                return None
        return self._in_numpy if rows <= self._in_numpy.max_rows else None


def _joined(heads: Any, features: Tensor) -> list[Tensor]:
    """Return what linear layers put out, by one product: most of a small one is the way to it."""
    weight, bias = torch.cat([head.weight for head in heads]), torch.cat([head.bias for head in heads])
    return list(nn.functional.linear(features, weight, bias).float().split([len(head.bias) for head in heads], -1))


def activation_layers(name: str | None, place: str = "hid_layers_activation") -> list[nn.Module]:
    """Return the activation called `name` (case and underscores do not matter), or nothing for None.

    Raises:
        SpecError: `torch.nn` has no such elementwise activation.
    """
    return [] if name is None else [_lookup(ACTIVATIONS, _plain(name), name, place)()]


def is_elementwise(layer: nn.Module) -> bool:
    """Tell whether a layer is an activation without parameters."""
    return type(layer) in ACTIVATIONS.values() and next(layer.parameters(), None) is None


def init_layer(layer: Layer, init_fn: str | None, activation: str | None) -> Layer:
    """Initialise the weight of a linear or convolutional layer by the function of `torch.nn.init` called `init_fn`.

    The gain, for functions that have one, is that of the activation that follows; the bias is 0. Without `init_fn`,
    torch's own initialisation stays.

    Raises:
        SpecError: `torch.nn.init` has no such function.
    """
    if init_fn is not None:
        init_weight(layer.weight, init_fn, activation)
        if layer.bias is not None:
            nn.init.zeros_(layer.bias)
    return layer


def init_weight(weight: Tensor, init_fn: str, activation: str | None) -> None:
    """Initialise one weight, as `init_layer` does."""
    initialise = _lookup(INITIALISERS, init_fn, init_fn, "init_fn")
    arguments = inspect.signature(initialise).parameters
    nonlinearity = _gain_name(activation)
    kwargs: dict[str, Any] = {}
    if "gain" in arguments:
        kwargs["gain"] = nn.init.calculate_gain(nonlinearity)
    elif "nonlinearity" in arguments:
        kwargs["nonlinearity"] = nonlinearity
    initialise(weight, **kwargs)


def linear_layers(
    sizes: Sequence[int],
    activation: str | None,
    init_fn: str | None = None,
    *,
    batch_norm: bool = False,
    layer_norm: bool = False,
    batch_renorm: bool | BatchRenormSpec = False,
) -> list[nn.Module]:
    """Return linear layers from each of `sizes` to the next, each followed by its norms and its activation."""
    layers: list[nn.Module] = []
    for fan_in, fan_out in pairwise(sizes):
        layers.append(init_layer(nn.Linear(fan_in, fan_out), init_fn, activation))
        layers += [nn.BatchNorm1d(fan_out)] if batch_norm else []
        layers += renorm_layers(batch_renorm, fan_out)
        layers += [nn.LayerNorm(fan_out)] if layer_norm else []
        layers += activation_layers(activation)
    return layers


def hidden_layers(spec: FullyConnected | HydraMLPNet | RecurrentNet, sizes: Sequence[int]) -> list[nn.Module]:
    """Return the `linear_layers` from each of `sizes` to the next that a net's spec describes."""
    return linear_layers(
        sizes,
        spec.hid_layers_activation,
        spec.init_fn,
        batch_norm=spec.batch_norm,
        layer_norm=spec.layer_norm,
        batch_renorm=spec.batch_renorm,
    )


def init_layers(body: nn.Module, init_fn: str | None, activation: str | None) -> None:
    """Initialise every linear and convolutional layer of a net that was built elsewhere."""
    for layer in body.modules():
        if isinstance(layer, nn.Linear | nn.Conv2d):
            init_layer(layer, init_fn, activation)


def spectral_norm_last(body: nn.Module) -> None:
    """Keep the largest singular value of the last linear or convolutional layer at 1.

    Miyato et al. 2018, arXiv:1802.05957; for value functions Gogianu et al. 2021, arXiv:2105.05246.
    """
    *_, last = (layer for layer in body.modules() if isinstance(layer, nn.Linear | nn.Conv2d))
    nn.utils.parametrizations.spectral_norm(last)


def renorm_layers(options: bool | BatchRenormSpec, width: int) -> list[nn.Module]:
    """Return a batch renormalisation of `width` channels, or nothing for False."""
    if options is False:
        return []
    return [BatchRenorm(width, **({} if options is True else options.model_dump()))]


def output_heads(
    features: int | Sequence[int],
    out_dims: Sequence[int],
    activation: str | Sequence[str | None] | None,
    init_fn: str | None,
    init_stds: Sequence[float | None] | None,
) -> list[nn.Module]:
    """Return one linear head for each of `out_dims`.

    Args:
        features: width of what the heads see, or of what each of them sees.
        out_dims: width of each head.
        activation: of all heads, or a list with one for each.
        init_fn: as for the body.
        init_stds: for each head, the gain of an orthogonal initialisation with bias 0; None leaves it to `init_fn`.

    Raises:
        SpecError: a list of activations has not one entry for each head.
    """
    activations = (
        [activation] * len(out_dims) if activation is None or isinstance(activation, str) else list(activation)
    )
    if len(activations) != len(out_dims):
        raise SpecError(
            f"agent.net.out_layer_activation: {len(activations)} activations for {len(out_dims)} heads (of widths "
            f"{', '.join(map(str, out_dims))}); give one for each, or a single name"
        )
    widths = [features] * len(out_dims) if isinstance(features, int) else features
    heads = []
    for width, out_dim, name, std in zip(
        widths, out_dims, activations, init_stds or [None] * len(out_dims), strict=True
    ):
        linear = init_layer(nn.Linear(width, out_dim), init_fn, name)
        if std is not None:
            nn.init.orthogonal_(linear.weight, gain=std)
            nn.init.zeros_(linear.bias)
        squash = activation_layers(name, "out_layer_activation")
        heads.append(nn.Sequential(linear, *squash) if squash else linear)
    return heads


def count_parameters(module: nn.Module) -> int:
    """Return the number of trainable numbers in `module`."""
    return sum(parameter.numel() for parameter in module.parameters() if parameter.requires_grad)


@torch.no_grad()
def put_out(body: nn.Module, *inputs: Tensor) -> Tensor:
    """Return what `body` makes of inputs, and leave no trace in it."""
    training = body.training
    body.eval()
    try:
        return body(*inputs)
    finally:
        body.train(training)


def _gain_name(activation: str | None) -> Any:
    if activation is None:
        return "linear"
    name: Any = {"leakyrelu": "leaky_relu"}.get(_plain(activation), _plain(activation))
    try:
        nn.init.calculate_gain(name)
    except ValueError:
        return _GAINLESS_GAIN
    return name


def _plain(name: str) -> str:
    return name.lower().replace("_", "")


def _lookup(known: dict[str, T], key: str, name: str, place: str) -> T:
    if key in known:
        return known[key]
    near = difflib.get_close_matches(key, known, n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(map(repr, near))}?" if near else f"known: {', '.join(known)}"
    raise SpecError(f"agent.net.{place}: unknown name {name!r}; {hint}")
