"""Recurrent net: what it puts out depends on all that it saw in an episode."""

import math
from itertools import pairwise

import torch
from torch import Tensor, nn

from slm_lab.agent.net.build import hidden_layers, init_weight
from slm_lab.agent.net.history import History
from slm_lab.spec.net import RecurrentNet


class RecurrentBody(nn.Module):
    """Fully connected layers, then a recurrent cell.

    The hidden state of all its layers (and for LSTM the cell state as well) is one row of numbers, `[B, H]`.

    Args:
        encoder: from `[B, *obs]` to `[B, features]`.
        cell: `nn.RNN`, `nn.LSTM` or `nn.GRU`, time first.
    """

    def __init__(self, encoder: nn.Module, cell: nn.RNNBase) -> None:
        super().__init__()
        self.encoder, self.cell = encoder, cell
        self.is_lstm = isinstance(cell, nn.LSTM)
        self.state_shape = (1 + self.is_lstm, cell.num_layers, cell.hidden_size)
        self.state_size = (1 + self.is_lstm) * cell.num_layers * cell.hidden_size

    def forward(self, history: History) -> Tensor:
        """Return features `[L * B, hidden_size]`, or `[M, …]`; where an episode begins, the state before it is 0."""
        length, count = history.first.shape
        x = self.encoder(history.obs.flatten(0, 1).float()).unflatten(0, (length, count))
        # torch's cells know no resets, so they run from one to the next
        starts = (history.first[1:].any(1).nonzero().flatten() + 1).tolist() if length > 1 else []
        state = x.new_zeros(count, self.state_size) if history.state is None else history.state
        outputs = []
        for begin, end in pairwise([0, *starts, length]):
            state = state.masked_fill(history.first[begin].unsqueeze(1), 0.0)
            output, state = self._run(x[begin:end], state)
            outputs.append(output)
        if history.out is not None:
            history.out.copy_(state)
        features = torch.cat(outputs).flatten(0, 1)
        return features if history.rows is None else features[history.rows]

    def _run(self, x: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """Run the cell over `[L, B, features]` from `[B, H]`; return `[L, B, hidden_size]` and the state after it."""
        parts = state.unflatten(1, self.state_shape).permute(1, 2, 0, 3).contiguous()
        output, after = self.cell(x, tuple(parts) if self.is_lstm else parts[0])
        parts = torch.stack(after) if self.is_lstm else after.unsqueeze(0)
        return output, parts.permute(2, 0, 1, 3).flatten(1)


def recurrent_body(spec: RecurrentNet, obs_shape: tuple[int, ...]) -> tuple[nn.Module, int]:
    """Build the body of a RecurrentNet.

    Args:
        spec: reads cell_type, rnn_hidden_size, rnn_num_layers, fc_hid_layers, hid_layers_activation, init_fn,
            batch_norm, layer_norm and batch_renorm.
        obs_shape: shape of one observation; of more than one dimension, it is flattened.

    Returns:
        The body, from a `History` to features, and their number.
    """
    sizes = [math.prod(obs_shape), *spec.fc_hid_layers]
    layers = hidden_layers(spec, sizes)
    cell: nn.RNNBase = getattr(nn, spec.cell_type)(sizes[-1], spec.rnn_hidden_size, spec.rnn_num_layers)
    if spec.init_fn is not None:
        for name, parameter in cell.named_parameters():
            with torch.no_grad():
                for gate in parameter.split(spec.rnn_hidden_size):
                    gate.zero_() if name.startswith("bias") else init_weight(gate, spec.init_fn, None)
    return RecurrentBody(nn.Sequential(nn.Flatten(), *layers), cell), spec.rnn_hidden_size
