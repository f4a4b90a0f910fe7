import math

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from slm_lab.agent.net import count_parameters, make_net
from slm_lab.agent.net.history import History
from slm_lab.agent.net.numpy_net import Tanh
from slm_lab.spec.net import RecurrentNet

CELLS = ["RNN", "LSTM", "GRU"]
GATES = {"RNN": 1, "LSTM": 4, "GRU": 3}


def net_of(cell="GRU", out_dims=(2,), **keys):
    torch.manual_seed(0)
    keys = {"rnn_hidden_size": 5, "hid_layers_activation": "tanh", "seq_len": 4, **keys}
    return make_net(RecurrentNet(cell_type=cell, **keys), (3,), list(out_dims))


def history(length=9, count=4, size=5, seed=0):
    """Random sequences, in which episodes begin here and there: at the first row, at the last, all at once."""
    generator = torch.Generator().manual_seed(seed)
    first = torch.zeros(length, count, dtype=torch.bool)
    for row, sequence in ((0, 0), (3, 1), (4, 1), (length - 1, 2)):
        first[row, sequence] = True
    first[6] = True
    obs = torch.randn(length, count, 3, generator=generator)
    return History(obs, first, torch.randn(count, size, generator=generator))


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("layers", [1, 2])
def test_step_by_step_is_the_same_as_one_pass_with_resets(cell, layers):
    net = net_of(cell, rnn_num_layers=layers, fc_hid_layers=[6])
    assert net.state_size == 5 * layers * (2 if cell == "LSTM" else 1)
    whole = history(size=net.state_size)
    state, after = whole.state.clone(), torch.empty_like(whole.state)
    (expected,) = net(whole._replace(out=after))
    for t, rows in enumerate(expected.split(4)):
        (out,) = net(History(whole.obs[t : t + 1], whole.first[t : t + 1], state, out=state.detach()))
        assert_close(out, rows)
    assert_close(state, after)


def cell_by_hand(cell, x, state):
    """One step of one layer as torch documents it; the state is [h] or [h, c]."""
    inner, outer = x @ cell.weight_ih_l0.T + cell.bias_ih_l0, state[0] @ cell.weight_hh_l0.T + cell.bias_hh_l0
    match cell:
        case nn.LSTM():
            i, f, g, o = (inner + outer).chunk(4, 1)
            c = f.sigmoid() * state[1] + i.sigmoid() * g.tanh()
            return [o.sigmoid() * c.tanh(), c]
        case nn.GRU():
            (r_in, z_in, n_in), (r_out, z_out, n_out) = inner.chunk(3, 1), outer.chunk(3, 1)
            r, z = (r_in + r_out).sigmoid(), (z_in + z_out).sigmoid()
            return [(1 - z) * (n_in + r * n_out).tanh() + z * state[0]]
    return [(inner + outer).tanh()]


@pytest.mark.parametrize("cell", CELLS)
def test_cells_by_hand(cell):
    body = net_of(cell).body
    whole = history(size=body.state_size)
    state, rows = whole.state, []
    for obs, first in zip(whole.obs, whole.first, strict=True):
        state = torch.where(first[:, None], 0.0, state)  # an episode begins with nothing
        state = torch.cat(cell_by_hand(body.cell, obs, state.chunk(body.state_size // 5, 1)), 1)
        rows.append(state[:, :5])
    assert_close(body(whole), torch.cat(rows))


@pytest.mark.parametrize("cell", CELLS)
def test_what_came_before_an_episode_does_not_matter(cell):
    net = net_of(cell)
    one, other = (history(size=net.state_size, seed=seed) for seed in (0, 1))
    other.obs[6:] = one.obs[6:]  # where an episode begins in every sequence
    (left,), (right,) = net(one), net(other)
    assert_close(left[6 * 4 :], right[6 * 4 :])
    assert not torch.allclose(left[: 6 * 4], right[: 6 * 4])


def test_the_gradient_flows_back_to_the_beginning_of_the_episode_and_no_further():
    net = net_of()
    whole = history()._replace(first=torch.zeros(9, 4, dtype=torch.bool))
    whole.first[4] = True
    obs = whole.obs.requires_grad_()
    net(whole._replace(obs=obs))[0][-4:].sum().backward()
    assert (obs.grad.abs().amax((1, 2)) > 0).tolist() == [False] * 4 + [True] * 5


@pytest.mark.parametrize("cell", CELLS)
def test_parameters_and_shapes_by_hand(cell):
    net = net_of(cell, out_dims=(2, 1), fc_hid_layers=[6], rnn_num_layers=2)
    first, second = (GATES[cell] * (5 * fan_in + 5 * 5 + 5 + 5) for fan_in in (6, 5))
    assert count_parameters(net) == (3 * 6 + 6) + first + second + (5 * 2 + 2) + (5 + 1)
    policy, value = net(history(size=net.state_size))
    assert policy.shape == (9 * 4, 2)
    assert value.shape == (9 * 4, 1)


@pytest.mark.parametrize("cell", CELLS)
def test_init_fn_reaches_every_gate(cell):
    net = net_of(cell, init_fn="orthogonal_", fc_hid_layers=[6])
    for gate in (*net.body.cell.weight_hh_l0.split(5), *net.body.cell.weight_ih_l0.split(5)):
        assert_close(torch.linalg.svdvals(gate.detach()), torch.ones(5))
    assert not net.body.cell.bias_ih_l0.any()
    assert not net.body.cell.bias_hh_l0.any()
    assert_close(torch.linalg.svdvals(net.body.encoder[1].weight.detach()), torch.full((3,), 5 / 3))


def test_norms_stand_before_the_cell():
    net = net_of(fc_hid_layers=[6], layer_norm=True)
    assert [type(layer) for layer in net.body.encoder] == [nn.Flatten, nn.Linear, nn.LayerNorm, Tanh]
    net = net_of(fc_hid_layers=[6], batch_norm=True)
    assert [type(layer) for layer in net.body.encoder] == [nn.Flatten, nn.Linear, nn.BatchNorm1d, Tanh]


def test_observations_of_any_shape_and_dtype():
    torch.manual_seed(0)
    net = make_net(RecurrentNet(rnn_hidden_size=4, seq_len=2), (2, 3), [1])
    obs = torch.arange(2 * 5 * 6).reshape(2, 5, 2, 3)
    first, state = torch.zeros(2, 5, dtype=torch.bool), torch.zeros(5, 4)
    (expected,) = net(History(obs.float(), first, state))
    assert expected.shape == (10, 1)
    assert_close(net(History(obs.to(torch.uint8), first, state))[0], expected)


def test_parts_of_a_history():
    whole = history()._replace(out=torch.zeros(4, 5))
    part = whole.of_net(1, 3)
    assert torch.equal(part.state, whole.state[:, 1:4])
    part.out[:] = 7.0
    assert whole.out[0].tolist() == [0, 7, 7, 7, 0]
    some = whole.take(torch.tensor([2, 0]))
    assert torch.equal(some.obs, whole.obs[:, [2, 0]])
    assert torch.equal(some.first, whole.first[:, [2, 0]])
    assert torch.equal(some.state, whole.state[[2, 0]])
    both = some.beside(whole)
    assert [math.prod(tensor.shape) for tensor in both[:3]] == [9 * 6 * 3, 9 * 6, 6 * 5]
    assert torch.equal(both.take(torch.arange(2, 6)).state, whole.state)
