import pytest
import torch
from torch import nn
from torch.testing import assert_close

from slm_lab.agent.net import count_parameters, make_net
from slm_lab.agent.net.dueling import DuelingHead
from slm_lab.spec.net import DuelingConvNet, DuelingMLPNet


def linear(weight):
    layer = nn.Linear(1, len(weight), bias=False)
    layer.weight.data = torch.tensor(weight).unsqueeze(1)
    return layer


def test_value_and_advantages_by_hand():
    head = DuelingHead(linear([10.0]), linear([1.0, 2.0, 6.0]))
    assert_close(head(torch.tensor([[1.0], [2.0]])), torch.tensor([[8.0, 9.0, 13.0], [16.0, 18.0, 26.0]]))


def test_each_atom_by_hand():
    # two actions of two atoms: advantages (1, 5) and (3, 1), whose means are (2, 3)
    head = DuelingHead(linear([10.0, 20.0]), linear([1.0, 5.0, 3.0, 1.0]))
    assert_close(head(torch.ones(1, 1)), torch.tensor([[9.0, 22.0, 11.0, 18.0]]))


def test_the_net_has_both_streams():
    net = make_net(DuelingMLPNet(hid_layers=[8]), (4,), [3 * 5], atoms=5)
    assert count_parameters(net) == (4 * 8 + 8) + (8 * 5 + 5) + (8 * 15 + 15)
    assert net(torch.zeros(7, 4))[0].shape == (7, 15)


@pytest.mark.parametrize("atoms", [1, 5])
def test_the_mean_over_actions_is_the_value(atoms):
    spec = DuelingConvNet(conv_hid_layers=[[4, 3]], fc_hid_layers=[6], normalize=True, init_fn="orthogonal_")
    net = make_net(spec, (2, 5, 5), [3 * atoms], atoms=atoms)
    image = torch.randint(256, (2, 2, 5, 5), dtype=torch.uint8)
    (out,) = net(image)
    assert_close(out.unflatten(1, (3, atoms)).mean(1), net.heads[0].value(net.features(image)))
