import subprocess
import sys
import textwrap

import pytest
import torch
from torch.testing import assert_close

from slm_lab.agent.net import make_net
from slm_lab.spec.errors import SpecError
from slm_lab.spec.net import OutsideNet

PACKAGE = """
import torch
from torch import nn


class Sines(nn.Module):
    def __init__(self, obs_shape, width=4, scale=1.0):
        super().__init__()
        self.linear, self.scale = nn.Linear(*obs_shape, width), scale

    def forward(self, x):
        return torch.sin(self.scale * self.linear(x))


def build(obs_shape, layers):
    return nn.Sequential(nn.Flatten(), *(nn.LazyLinear(width) for width in layers))


def scaled(obs_shape, normalize, noisy_sigma):
    return nn.Linear(*obs_shape, int(normalize * noisy_sigma))


def no_module(obs_shape):
    return 3


def no_row(obs_shape):
    return nn.Unflatten(1, (1, -1))


def for_images(obs_shape):
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten())


class Flat(nn.Module):
    def forward(self, x):
        return x.view(len(x), -1)


def with_view(obs_shape):
    return nn.Sequential(nn.Conv2d(3, 4, 3), Flat())


def two(obs_shape):
    return nn.GRU(*obs_shape, 4)


def faulty(obs_shape):
    return nn.Linear("three", 3)
"""


@pytest.fixture(autouse=True)
def desk(tmp_path, monkeypatch):
    """A working directory with a package in it."""
    (tmp_path / "my_nets").mkdir()
    (tmp_path / "my_nets" / "__init__.py").touch()
    (tmp_path / "my_nets" / "some.py").write_text(textwrap.dedent(PACKAGE))
    monkeypatch.chdir(tmp_path)


def net_of(name, **keys):
    return make_net(OutsideNet(type=f"my_nets.some:{name}", **keys), (3,), [2, 1])


def test_a_class_with_keys_of_its_own():
    net = net_of("Sines", width=6, scale=2.0)
    x = torch.randn(5, 3)
    policy, value = net(x)
    features = torch.sin(2.0 * net.body.linear(x))
    assert features.shape == (5, 6)
    assert_close(policy, net.heads[0](features))
    assert value.shape == (5, 1)


def test_a_function():
    net = net_of("build", layers=[5, 7])
    assert [layer.out_features for layer in net.body[1:]] == [5, 7]
    assert net(torch.randn(4, 3))[0].shape == (4, 2)


def test_keys_of_its_own_may_have_the_names_of_other_nets_keys():
    net = net_of("scaled", normalize=2, noisy_sigma=3.0)
    x = torch.randn(5, 3)
    assert net.body.out_features == 6
    assert_close(net(x)[0], torch.nn.functional.linear(net.body(x), net.heads[0].weight, net.heads[0].bias))


def test_each_role_may_have_keys_of_its_own():
    spec = OutsideNet(type="my_nets.some:Sines", width=6, scale=2.0, critic_width=3)
    assert spec.for_role("actor").kwargs == {"width": 6, "scale": 2.0}
    assert spec.for_role("critic").kwargs == {"width": 3, "scale": 2.0}


def test_init_fn_reaches_its_layers():
    net = net_of("Sines", init_fn="orthogonal_", hid_layers_activation="tanh")
    gain = torch.linalg.svdvals(net.body.linear.weight.detach())
    assert_close(gain, torch.full_like(gain, 5 / 3))


@pytest.mark.parametrize(
    ("name", "keys", "line"),
    [
        ("Sine", {}, r"type: my_nets\.some has no 'Sine'; did you mean 'Sines'\?$"),
        (
            "Sines",
            {"widht": 3},
            r"widht: .*:Sines takes no argument 'widht'; did you mean 'width'\? \(it",
        ),
        ("no_module", {}, r"type: my_nets\.some:no_module makes a int, not a torch\.nn\.Module$"),
        ("no_row", {}, r"type: my_nets\.some:no_row puts out \(2, 1, 3\) for two obs"),
        ("for_images", {}, r"type: my_nets\.some:for_images does not take \(2, 3\): .*conv2d"),
        ("two", {}, r"type: my_nets\.some:two puts out a tuple for two obs"),
    ],
)
def test_a_mistake_is_one_line(name, keys, line):
    with pytest.raises(SpecError, match=r"^agent\.net\." + line):
        net_of(name, **keys)


def test_an_error_of_its_own_is_not_hidden():
    with pytest.raises(TypeError, match="empty"):
        net_of("faulty")


def test_a_net_of_the_working_directory_in_a_child_process(tmp_path):
    program = textwrap.dedent("""
        from slm_lab.agent.net import make_net
        from slm_lab.spec.net import OutsideNet
        print(type(make_net(OutsideNet(type="my_nets.some:Sines"), (3,), [2]).body).__name__)
    """)
    # -P keeps Python itself from putting the working directory on the path
    command = [sys.executable, "-P", "-c", program]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "Sines"


def test_a_net_for_images_may_view_them():
    net = make_net(OutsideNet(type="my_nets.some:with_view"), (3, 6, 6), [2])
    assert net(torch.zeros(2, 3, 6, 6))[0].shape == (2, 2)
