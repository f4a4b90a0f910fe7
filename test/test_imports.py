"""Who may import whom, what must stay light, and what must never be there."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import slm_lab

ROOT = Path(slm_lab.__file__).parent
MODULES = sorted(ROOT.rglob("*.py"))

# lib ← spec ← env, net, memory ← algorithm ← agent ← experiment ← cli; rooms of one rank share types at most
RANKS = {
    "slm_lab.lib": 0,
    "slm_lab.spec": 1,
    "slm_lab.env": 2,
    "slm_lab.agent.net": 2,
    "slm_lab.agent.memory": 2,
    "slm_lab.agent.algorithm": 3,
    "slm_lab.agent": 4,
    "slm_lab.experiment": 5,
    "slm_lab.cli": 6,
    "slm_lab": 7,
}
# what is below everything: the one error of the spec has no dependencies, and says "bad input" wherever it is found
EVERYWHERE = {"slm_lab.spec.errors"}


def name_of(file):
    parts = file.relative_to(ROOT.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def room_of(module):
    return max((room for room in RANKS if f"{module}.".startswith(f"{room}.")), key=len)


def imports_of(file):
    """Yield (module, line, for type checking only) for everything that a file imports, also inside of functions."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    for_types = {id(node) for outer in ast.walk(tree) if is_type_checking(outer) for node in ast.walk(outer)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}:{node.lineno}: relative import"
            # `from package import module` is an import of the module
            submodules = [f"{node.module}.{alias.name}" for alias in node.names]
            names = [name if is_module(name) else node.module for name in submodules]
        else:
            continue
        for name in names:
            yield name, node.lineno, id(node) in for_types


def is_type_checking(node):
    return isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"


def is_module(name):
    path = ROOT.parent / Path(*name.split("."))
    return path.with_suffix(".py").exists() or (path / "__init__.py").exists()


@pytest.mark.parametrize("file", MODULES, ids=name_of)
def test_imports_go_one_way(file):
    importer = room_of(name_of(file))
    if importer == "slm_lab":
        return  # the package itself hands out names of every room, lazily; see below
    for imported, line, for_types in imports_of(file):
        if not imported.startswith("slm_lab") or imported in EVERYWHERE:
            continue
        room = room_of(imported)
        # a memory names the Step that it is given, which is a type and no import when the program runs
        allowed = room == importer or RANKS[room] < RANKS[importer] + for_types
        assert allowed, f"{file}:{line}: {importer} imports {imported}"


LIGHT = ["slm_lab", "slm_lab.spec", "slm_lab.cli", "slm_lab.experiment.options", "slm_lab.experiment.paths"]
LIGHT += ["slm_lab.experiment.benchmark"]
HEAVY = ["torch", "pandas", "plotly", "gymnasium", "ray", "tensorboard"]


@pytest.mark.parametrize("module", LIGHT)
def test_light_modules_import_nothing_heavy(module):
    code = f"import sys, {module}; print([name for name in {HEAVY} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_spec_is_checked_without_anything_heavy():
    code = f"""
import sys
from slm_lab import load_spec
assert load_spec("demo.json", "dqn_cartpole").env.name == "CartPole-v1"
print([name for name in {HEAVY} if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_what_ships_is_measured_without_what_a_check_does_not_need():
    # torch imports the first two by itself, for some of what is done on its meta device: that takes a second
    unneeded = ["torch._dynamo", "sympy", "scipy", "pandas", "plotly", "ray", "tensorboard", "optuna"]
    code = f"""
import sys
from slm_lab.cli.check import check_all
assert check_all({str(ROOT / "spec" / "benchmark")!r}, ())
print([name for name in {unneeded} if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_the_package_hands_out_what_notebooks_use():
    from slm_lab.experiment.trial import Trial
    from slm_lab.spec import load_spec

    assert slm_lab.Trial is Trial
    assert slm_lab.load_spec is load_spec
    with pytest.raises(AttributeError, match="Trail"):
        slm_lab.Trail  # noqa: B018


FORBIDDEN_MODULES = {"pickle", "cloudpickle", "dill", "marshal", "shelve", "joblib"}


@pytest.mark.parametrize("file", MODULES, ids=name_of)
def test_nothing_is_unpickled_or_evaluated(file):
    for imported, line, _ in imports_of(file):
        assert imported.partition(".")[0] not in FORBIDDEN_MODULES, f"{file}:{line}: imports {imported}"
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ExceptHandler):
            assert node.type is not None, f"{file}:{node.lineno}: bare except"
        if not isinstance(node, ast.Call):
            continue
        called = ast.unparse(node.func)
        assert called not in {"eval", "exec", "torch.load"}, f"{file}:{node.lineno}: calls {called}"
        keywords = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
        assert keywords.get("shell") != "True", f"{file}:{node.lineno}: a shell"
        assert keywords.get("allow_pickle") != "True", f"{file}:{node.lineno}: allows pickle"
