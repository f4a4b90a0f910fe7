"""Acting by a captured graph."""

import copy

import numpy as np
import torch
from loguru import logger
from numpy.testing import assert_allclose

from slm_lab.agent.net import make_net
from slm_lab.spec.net import MLPNet


def net_of():
    return make_net(MLPNet(hid_layers=[8], hid_layers_activation="relu", layer_norm=True), (4,), [3])


def test_a_captured_net_acts_as_before_and_follows_the_weights():
    net, obs = net_of(), np.ones((2, 4), np.float32)
    calls = []

    def backend(graph, _inputs):
        calls.append(graph)
        return graph.forward

    net.capture(backend)
    assert_allclose(net(obs)[0], net(torch.from_numpy(obs))[0].detach(), rtol=1e-5)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter += 0.1
    assert_allclose(net(obs)[0], net(torch.from_numpy(obs))[0].detach(), rtol=1e-5)
    assert len(calls) == 1


def test_what_cannot_be_captured_is_acted_on_with_a_warning():
    net, obs = net_of(), np.ones((2, 4), np.float32)

    def backend(_graph, _inputs):
        raise ValueError("no compiler here")

    net.capture(backend)
    messages: list[str] = []
    handler = logger.add(lambda message: messages.append(str(message)))
    for _ in range(2):
        assert_allclose(net(obs)[0], net(torch.from_numpy(obs))[0].detach(), rtol=1e-5)
    logger.remove(handler)
    assert len(messages) == 1
    assert "acting cannot be compiled here" in messages[0]
    assert "no compiler here" in messages[0]


def test_every_net_has_a_graph_of_its_own():
    obs, graphs = np.ones((2, 4), np.float32), []

    def backend(graph, _inputs):
        graphs.append(graph)
        return graph.forward

    nets = [net_of() for _ in range(12)]
    for net in nets:
        net.capture(backend)
        net(obs)
    twin = copy.deepcopy(nets[0])
    with torch.no_grad():
        for parameter in twin.parameters():
            parameter += 1
    for net in (*nets, twin):
        assert_allclose(net(obs)[0], net(torch.from_numpy(obs))[0].detach(), rtol=1e-5)
        assert net._captured.fast
    assert len(graphs) >= len(nets)
