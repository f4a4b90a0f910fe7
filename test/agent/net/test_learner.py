import copy

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from slm_lab.agent.net import make_net
from slm_lab.agent.net.learner import Learner, LinearToZero, ParameterGroup, make_lr_scheduler, make_optimizer
from slm_lab.experiment.checkpoint import Checkpoints
from slm_lab.spec import SpecError
from slm_lab.spec.net import MLPNet

ADAM, SGD = {"name": "Adam", "lr": 0.01}, {"name": "SGD", "lr": 0.5}
OPTIMISERS = ["Adafactor", "Adadelta", "Adagrad", "Adam", "Adamax", "AdamW", "ASGD", "NAdam", "RAdam", "RMSprop"]
OPTIMISERS += ["Rprop", "SGD"]
SCHEDULERS = [
    {"name": "LinearToZero", "frame": 100},
    {"name": "LinearToMin", "frame": 100, "min_factor": 0.1},
    {"name": "StepLR", "step_size": 3, "gamma": 0.7},
    {"name": "MultiStepLR", "milestones": [2, 4, 5, 5], "gamma": 0.7},
    {"name": "ConstantLR", "total_iters": 4},
    {"name": "LinearLR", "total_iters": 7},
    {"name": "ExponentialLR", "gamma": 0.9},
    {"name": "PolynomialLR", "total_iters": 7, "power": 2.0},
    {"name": "CosineAnnealingLR", "T_max": 7},
    {"name": "CosineAnnealingWarmRestarts", "T_0": 3},
    {"name": "CyclicLR", "base_lr": 0.001, "max_lr": 0.1, "step_size_up": 3},
    {"name": "OneCycleLR", "max_lr": 0.1, "total_steps": 20},
]


def net_spec(**keys):
    return MLPNet(**{"hid_layers": [4], "hid_layers_activation": "tanh", "optim_spec": ADAM, **keys})


def mse(net, x, target):
    error = (net(x)[0].squeeze(-1) - target).square().mean()
    return error, {"error": error}


def make_learner(seed=0, **keys):
    torch.manual_seed(seed)
    spec = net_spec(**keys)
    net = make_net(spec, (3,), [1])
    return Learner(mse, net, [ParameterGroup(net.parameters(), spec)])


def batches(n, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [(torch.randn(8, 3, generator=generator), torch.randn(8, generator=generator)) for _ in range(n)]


def train(learner, data, first_frame=0):
    """Take one step per batch; each is an event, 10 frames after the last."""
    rates = []
    for index, batch in enumerate(data):
        learner.step(*batch)
        learner.decay(first_frame + 10 * (index + 1))
        rates.append(learner.lr)
    return rates


def weights(learner):
    return [parameter.detach().clone() for parameter in learner.nets.parameters()]


def same(left, right):
    return all(torch.equal(a, b) for a, b in zip(left, right, strict=True))


def one_weight(spec, value=1.0):
    parameter = nn.Parameter(torch.tensor([value]))
    return parameter, ParameterGroup([parameter], net_spec(**spec))


@pytest.mark.parametrize("name", OPTIMISERS)
def test_every_optimiser_of_torch_goes_downhill(name):
    learner = make_learner(optim_spec={"name": name, "lr": 0.01})
    (batch,) = batches(1)
    before = learner.step(*batch)["loss"]
    for _ in range(20):
        learner.step(*batch)
    assert learner.step(*batch)["loss"] < before
    assert learner.opt_steps == 22


def test_arguments_reach_the_optimiser():
    # SGD with momentum 0.5 and lr 0.1, gradient 1 twice: 1 - 0.1 * 1 - 0.1 * (0.5 * 1 + 1)
    parameter, group = one_weight({"optim_spec": {"name": "SGD", "lr": 0.1, "momentum": 0.5}})
    for _ in range(2):
        group.step([torch.ones(1)])
    assert_close(parameter.item(), 0.75)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"name": "Adagra"}, r"agent\.net\.optim_spec\.name: unknown name 'Adagra'; did you mean 'Adagrad'\?"),
        ({"name": "sgd"}, r"agent\.net\.optim_spec\.name: unknown name 'sgd'; did you mean 'SGD'\?"),
        ({"name": "Optimizer"}, r"agent\.net\.optim_spec\.name: unknown name 'Optimizer'"),
        ({"name": "zzz"}, r"unknown name 'zzz' \(known: ASGD, .*\bSGD\)"),
        ({"name": "Adam", "beta": 1}, r"agent\.net\.optim_spec\.beta: unknown key; did you mean 'betas'\?"),
        ({"name": "Adam", "params": []}, r"agent\.net\.optim_spec\.params: unknown key"),
        ({"name": "Adam", "eps": -1.0}, r"agent\.net\.optim_spec: Adam cannot be built: .*-1"),
        ({"name": "Muon"}, r"agent\.net\.optim_spec: Muon cannot be built: .*2D"),  # our nets have biases
        ({"name": "LBFGS"}, r"agent\.net\.optim_spec\.name: LBFGS cannot be used: it evaluates the loss several"),
        ({"name": "SparseAdam"}, r"agent\.net\.optim_spec\.name: SparseAdam cannot be used"),
    ],
)
def test_a_wrong_optimiser_is_an_error(spec, message):
    with pytest.raises(SpecError, match=message):
        make_optimizer([nn.Parameter(torch.zeros(1))], spec)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"name": "StepL"}, r"agent\.net\.lr_scheduler_spec\.name: unknown name 'StepL'; did you mean 'StepLR'\?"),
        ({"name": "LinearToZer"}, r"did you mean 'LinearToZero'\?"),
        ({"name": "LinearToZero", "frame": 9, "fram": 9}, r"lr_scheduler_spec\.fram: unknown key; .*'frame'\?"),
        ({"name": "StepLR", "step_siz": 9}, r"lr_scheduler_spec\.step_siz: unknown key; did you mean 'step_size'\?"),
        ({"name": "StepLR"}, r"lr_scheduler_spec: StepLR cannot be built: .*step_size"),
        ({"name": "OneCycleLR", "max_lr": 0.1, "total_steps": -1}, r"lr_scheduler_spec: OneCycleLR cannot be built"),
        ({"name": "ReduceLROnPlateau"}, r"ReduceLROnPlateau cannot be used: it follows a metric"),
        ({"name": "LambdaLR", "lr_lambda": 1}, r"LambdaLR cannot be used: it needs a function"),
        ({"name": "SequentialLR"}, r"SequentialLR cannot be used: it needs other schedulers"),
        ({"name": "LRScheduler"}, r"unknown name 'LRScheduler'"),
    ],
)
def test_a_wrong_scheduler_is_an_error(spec, message):
    optimizer = make_optimizer([nn.Parameter(torch.zeros(1))], SGD)
    with pytest.raises(SpecError, match=message):
        make_lr_scheduler(optimizer, spec)


@pytest.mark.parametrize(
    ("clip", "moved"),
    [  # the gradient is (3, 4), of norm 5; the step is -0.5 of what is left of it
        (None, [-1.5, -2.0]),
        (10.0, [-1.5, -2.0]),
        (2.5, [-0.75, -1.0]),
    ],
)
def test_clipping_scales_the_gradient_to_its_largest_norm(clip, moved):
    parameters = [nn.Parameter(torch.zeros(1)), nn.Parameter(torch.zeros(1))]
    group = ParameterGroup(parameters, net_spec(optim_spec=SGD, clip_grad_val=clip))
    norm = group.step([torch.tensor([3.0]), torch.tensor([4.0])])
    assert_close(torch.cat([p.detach() for p in parameters]), torch.tensor(moved))
    assert norm is None if clip is None else norm.item() == 5.0


def test_groups_are_clipped_on_their_own_and_the_largest_norm_is_reported():
    first, one = one_weight({"optim_spec": SGD, "clip_grad_val": 1.0}, 0.0)
    second, two = one_weight({"optim_spec": SGD, "clip_grad_val": 4.0}, 0.0)
    nets = nn.Module()
    nets.first, nets.second = first, second
    learner = Learner(lambda nets: ((3 * nets.first + 8 * nets.second).sum(), {}), nets, [one, two])
    metrics = learner.step()
    assert_close([first.item(), second.item()], [-0.5, -2.0], rtol=1e-5, atol=0)
    assert metrics["grad_norm"].item() == 8.0
    assert learner.opt_steps == 2


def test_gradients_do_not_pile_up():
    learner = make_learner(optim_spec={"name": "SGD", "lr": 1e-12}, clip_grad_val=1e9)
    (batch,) = batches(1)
    assert_close(learner.step(*batch)["grad_norm"], learner.step(*batch)["grad_norm"])


def test_metrics_are_those_before_the_step():
    learner = make_learner()
    (batch,) = batches(1)
    expected = mse(learner.nets, *batch)[0].item()
    metrics = learner.step(*batch)
    assert metrics["loss"].item() == metrics["error"].item() == expected
    assert not metrics["loss"].requires_grad
    assert "grad_norm" not in metrics  # nothing is clipped, so no norm is computed


def test_linear_to_zero_is_a_function_of_the_frame():
    _, group = one_weight({"optim_spec": SGD, "lr_scheduler_spec": {"name": "LinearToZero", "frame": 100}})
    learner = Learner(lambda p: (p, {}), nn.Module(), [group])
    rates = []
    for frame in (0, 50, 25, 25, 90, 100, 200):
        learner.decay(frame)
        rates.append(learner.lr)
    assert_close(rates, [0.5, 0.25, 0.375, 0.375, 0.05, 0.0, 0.0])


def test_linear_to_min_ends_at_a_share_of_the_rate():
    schedule = {"name": "LinearToMin", "frame": 100, "min_factor": 0.2}
    _, group = one_weight({"optim_spec": SGD, "lr_scheduler_spec": schedule})
    rates = []
    for frame in (0, 50, 100, 200):
        group.scheduler.advance(frame)
        rates.append(group.lr)
    assert_close(rates, [0.5, 0.3, 0.1, 0.1])


def test_schedulers_of_torch_count_events():
    learner = make_learner(optim_spec=ADAM, lr_scheduler_spec={"name": "StepLR", "step_size": 2, "gamma": 0.1})
    assert_close(train(learner, batches(5)), [0.01, 0.001, 0.001, 0.0001, 0.0001])
    assert make_learner(optim_spec=ADAM).lr == 0.01


def test_without_a_scheduler_the_rate_is_constant():
    assert train(make_learner(optim_spec=ADAM), batches(3)) == [0.01] * 3


@pytest.mark.parametrize("scheduler", [None, *SCHEDULERS], ids=lambda spec: spec["name"] if spec else "none")
@pytest.mark.parametrize("optimiser", ["Adam", "SGD"])
def test_going_on_from_a_state_is_bit_equal(scheduler, optimiser, tmp_path):
    optim_spec = {"name": optimiser, "lr": 0.01} | ({"momentum": 0.9} if optimiser == "SGD" else {})
    keys = {"optim_spec": optim_spec, "lr_scheduler_spec": scheduler}
    data = batches(12)
    whole = make_learner(**keys)
    rates = train(whole, data)

    half = make_learner(**keys)
    first_rates = train(half, data[:5])
    checkpoints = Checkpoints(tmp_path, "ckpt", keep=1)
    checkpoints.save(50, {"net": half.nets.state_dict(), "optim": half.state_dict()})

    resumed = make_learner(seed=1, **keys)
    frame, state = checkpoints.load()
    resumed.nets.load_state_dict(state["net"])
    resumed.load_state_dict(state["optim"])
    assert first_rates + train(resumed, data[5:], frame) == rates
    assert same(weights(resumed), weights(whole))
    assert resumed.opt_steps == 12


@pytest.mark.parametrize("name", OPTIMISERS)
def test_the_state_of_every_optimiser_goes_through_json_and_tensors(name, tmp_path):
    keys = {"optim_spec": {"name": name, "lr": 0.01}}
    data = batches(6)
    whole = make_learner(**keys)
    train(whole, data)
    half, resumed = make_learner(**keys), make_learner(seed=1, **keys)
    train(half, data[:3])
    checkpoints = Checkpoints(tmp_path, "ckpt", keep=1)
    checkpoints.save(1, {"net": half.nets.state_dict(), "optim": half.state_dict()})
    state = checkpoints.load()[1]
    resumed.nets.load_state_dict(state["net"])
    resumed.load_state_dict(state["optim"])
    train(resumed, data[3:])
    assert same(weights(resumed), weights(whole))


def test_a_loaded_state_is_not_written_to():
    learner, other = make_learner(), make_learner()
    train(learner, batches(3))
    state = copy.deepcopy(learner.state_dict())
    other.load_state_dict(state)
    before = copy.deepcopy(state["groups"][0]["optimizer"]["state"]["0"])
    train(other, batches(3))
    after = state["groups"][0]["optimizer"]["state"]["0"]
    assert same(before.values(), after.values())


def test_batch_norms_learn_in_a_step_and_nowhere_else():
    learner = make_learner(batch_norm=True)
    norm = next(module for module in learner.nets.modules() if isinstance(module, nn.BatchNorm1d))
    single = torch.ones(1, 3)
    before = learner.nets(single)[0]  # a batch of one has no statistics: those of training must do
    assert norm.running_mean.tolist() == [0.0] * 4
    (batch,) = batches(1)
    learner.step(*batch)
    assert norm.num_batches_tracked.item() == 1
    assert norm.running_mean.abs().sum() > 0
    assert not torch.equal(learner.nets(single)[0], before)
    assert norm.num_batches_tracked.item() == 1


def test_recurrent_cells_are_in_training_mode_in_a_step_and_nowhere_else():
    """On a GPU they have no gradient in evaluation mode."""
    cell, seen = nn.GRU(3, 4), []
    cell.register_forward_hook(lambda module, *_: seen.append(module.training))
    learner = Learner(lambda net, x: (net(x)[0].sum(), {}), cell, [ParameterGroup(cell.parameters(), net_spec())])
    cell(torch.ones(5, 3))
    learner.step(torch.ones(5, 3))
    cell(torch.ones(5, 3))
    assert seen == [False, True, False]


def test_spectral_norms_follow_their_weight_in_a_step_and_nowhere_else():
    learner = make_learner(spectral_norm=True, optim_spec={"name": "SGD", "lr": 1.0})
    norm = next(module for module in learner.nets.modules() if hasattr(module, "_u"))
    before = norm._u.clone()
    learner.nets(torch.ones(1, 3))
    assert torch.equal(norm._u, before)
    for batch in batches(20):
        learner.step(*batch)
    assert not torch.equal(norm._u, before)
    (layer,) = (module for module in learner.nets.modules() if nn.utils.parametrize.is_parametrized(module))
    assert_close(torch.linalg.matrix_norm(layer.weight.detach(), 2).item(), 1.0, rtol=0.1, atol=0)


def test_batch_norms_of_what_another_learner_trains_stay_as_they_are():
    nets = nn.ModuleDict({"mine": nn.BatchNorm1d(3), "other": nn.BatchNorm1d(3)})
    learner = Learner(
        lambda nets, x: (nets["other"](nets["mine"](x)).sum(), {}),
        nets,
        [ParameterGroup(nets["mine"].parameters(), net_spec())],
    )
    learner.step(torch.randn(8, 3))
    assert nets["mine"].num_batches_tracked == 1
    assert nets["other"].num_batches_tracked == 0


def test_linear_to_zero_keeps_the_ratio_of_several_rates():
    first, second = nn.Parameter(torch.zeros(1)), nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([{"params": [first], "lr": 1.0}, {"params": [second], "lr": 0.1}])
    LinearToZero(optimizer, 10).advance(5)
    assert_close([group["lr"] for group in optimizer.param_groups], [0.5, 0.05])
