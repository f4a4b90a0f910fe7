import pytest

from slm_lab.lib.named import did_you_mean, import_callable, import_from, wrong_argument
from slm_lab.spec.errors import SpecError


@pytest.fixture(autouse=True)
def desk(tmp_path, monkeypatch):
    """A working directory with a module in it."""
    (tmp_path / "named_here.py").write_text("import math\nNUMBER = 1\ndef build(obs_shape, width=1): return width\n")
    monkeypatch.chdir(tmp_path)


def test_a_module_of_the_working_directory():
    module, attribute = import_from("named_here:build", "x")
    assert module.build((1,), width=3) == 3
    assert attribute == "build"
    assert import_callable("named_here:build", "x") is module.build


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("not_here:build", r"^x\.y: no module 'not_here' \(looked in .* and in the installed packages\)$"),
        ("named_here:buidl", r"^x\.y: named_here has no 'buidl'; did you mean 'build'\?$"),
        ("named_here:NUMBER", r"^x\.y: named_here has no 'NUMBER'$"),
    ],
)
def test_what_is_not_there(name, line):
    with pytest.raises(SpecError, match=line):
        import_callable(name, "x.y")


def test_an_error_within_the_module_is_not_hidden(tmp_path):
    (tmp_path / "named_badly.py").write_text("import a_package_that_is_not_there")
    with pytest.raises(ModuleNotFoundError, match="a_package_that_is_not_there"):
        import_from("named_badly:build", "x")


def test_an_argument_that_it_does_not_take():
    build = import_callable("named_here:build", "x")
    with pytest.raises(TypeError) as caught:
        build((1,), widht=3)
    line = "a.widht: named_here:build takes no argument 'widht'; did you mean 'width'? (it takes: width)"
    assert str(wrong_argument(caught.value, build, "named_here:build", "a")) == line
    assert wrong_argument(TypeError("something else"), build, "named_here:build", "a") is None


def test_suggestions():
    assert did_you_mean("Pnog", ["Pong", "Breakout"]) == "; did you mean 'Pong'?"
    assert did_you_mean("xyz", ["Pong"]) == ""
