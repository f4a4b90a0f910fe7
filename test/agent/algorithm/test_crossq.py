import numpy as np
import pytest
import torch
from hand import add, make
from torch import nn
from torch.testing import assert_close

from slm_lab.agent.algorithm.crossq import crossq_critic_loss
from slm_lab.agent.memory.replay import ReplayBatch
from slm_lab.agent.net.batch_renorm import BatchRenorm
from slm_lab.agent.net.learner import as_tensors

CROSSQ = {"name": "CrossQ", "gamma": 0.5, "training_iter": 1, "training_start_step": 0, "fixed_alpha": 0.1}
MEMORY = {"name": "Replay", "batch_size": 4, "max_size": 100}
NORMED = {"hid_layers": [3], "critic_batch_renorm": {"warmup_steps": 1}, "optim_spec": {"name": "SGD", "lr": 0.01}}
MSE = nn.MSELoss(reduction="none")


def crossq(net=None, **keys):
    algorithm = make({**CROSSQ, **keys}, MEMORY, net=net or NORMED)
    for t in range(8):
        add(algorithm.memory, t / 10, t % 2, 1.0, t / 10 + 0.1, terminated=t == 5, final_obs=0.3 if t == 5 else None)
    return algorithm


@pytest.mark.parametrize("keys", [{}, {"action_pdtype": "GumbelSoftmax"}])
def test_both_halves_go_through_the_critics_as_one_batch(keys):
    algorithm = crossq(**keys)
    nets, batch = algorithm.nets, ReplayBatch(*as_tensors(algorithm.memory.sample()))
    noise = nets.policy.noise(4, algorithm.generators["noise"])
    seen = []
    nets.critics.register_forward_hook(lambda _module, inputs, output: seen.append((inputs, output)))
    loss, _ = crossq_critic_loss(nets, *batch[:-1], noise, loss_fn=MSE)
    ((obs, action), values) = seen[0]
    assert len(seen) == 1
    assert_close(obs, torch.cat([batch.obs, batch.next_obs]))
    next_action, prob, log_prob = nets.policy(batch.next_obs, noise)
    taken, share = nets.policy.taken(batch.action)
    assert_close(action, torch.cat([taken, next_action.detach()]))
    next_q = values[:, 4:].amin(0) if keys else values[:, 4:].mean(0)
    next_value = (prob * (next_q - 0.1 * log_prob)).sum(-1)
    target = (batch.reward + batch.discount * next_value).detach()
    q = (values[:, :4] * share).sum(-1)
    assert_close(loss, ((q - target) ** 2).sum(0).mean())


def test_no_gradient_passes_through_the_target():
    algorithm = crossq()
    nets, batch = algorithm.nets, algorithm.memory.sample()
    outputs = []
    nets.critics.register_forward_hook(lambda _module, _inputs, output: outputs.append(output))
    loss, _ = crossq_critic_loss(nets, *as_tensors(batch[:-1]), torch.empty(4, 0), loss_fn=MSE)
    (grad,) = torch.autograd.grad(loss, outputs[0])
    assert grad[:, :4].abs().sum() > 0
    assert not grad[:, 4:].any()


def test_statistics_move_in_the_critics_step_only():
    algorithm = crossq()
    nets, batch = algorithm.nets, algorithm.memory.sample()
    norms = [module for module in nets.modules() if isinstance(module, BatchRenorm)]
    assert len(norms) == 2  # one for each critic, none for the policy
    algorithm.critic_learner.step(*batch[:-1], torch.empty(4, 0))
    assert [norm.steps.item() for norm in norms] == [1.0, 1.0]
    algorithm.policy_learner.step(batch.obs, torch.empty(4, 0))
    assert [norm.steps.item() for norm in norms] == [1.0, 1.0]
    assert not any(norm.training for norm in norms)


def test_there_are_no_target_nets():
    assert list(crossq().modules) == ["policy", "critics", "temperature"]


@pytest.mark.parametrize(("keys", "steps"), [({}, 2), ({"policy_delay": 2}, 3), ({"policy_delay": 7}, 0)])
def test_the_policy_learns_every_third_step(keys, steps):
    algorithm = crossq(training_iter=6, **keys)
    metrics = algorithm.update(8)
    assert algorithm.critic_learner.opt_steps == 6
    assert algorithm.policy_learner.opt_steps == steps
    assert np.isfinite(list(metrics.values())).all()


def test_a_net_spec_of_their_own_for_the_critics():
    own = {"type": "MLPNet", "hid_layers": [5, 5], "batch_renorm": True, "optim_spec": {"name": "SGD", "lr": 0.5}}
    algorithm = make(CROSSQ, MEMORY, net={"hid_layers": [3]}, critic_net=own)
    assert algorithm.nets.critics.nets[0].net.body[0].out_features == 5
    assert algorithm.nets.policy.net.actor.body[0].out_features == 3
    assert algorithm.critic_learner.lr == 0.5
