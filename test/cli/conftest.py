import pytest

from slm_lab.cli import main

# small enough for a second, large enough for gradient steps and a few rows
SPEC = """
{
  // a variable with a default, and a trailing comma
  "tiny": {
    "agent": {
      "name": "tiny",
      "algorithm": {
        "name": "DQN", "action_policy": "epsilon_greedy", "gamma": 0.99,
        "explore_var_spec": {"name": "no_decay", "start_val": 0.5},
        "training_frequency": 16, "training_start_step": 32, "training_iter": 1, "training_batch_iter": 1,
      },
      "memory": {"name": "Replay", "batch_size": 16, "max_size": 1000},
      "net": {
        "type": "MLPNet", "hid_layers": [8], "hid_layers_activation": "relu",
        "optim_spec": {"name": "Adam", "lr": 1e-3}, "update_type": "replace", "update_frequency": 50, "gpu": false,
      },
    },
    "env": {"name": "${env:-CartPole-v1}", "max_frame": 200},
    "meta": {"max_session": 1, "log_frequency": 50, "seed": 1},
  },
}
"""


@pytest.fixture(scope="session", autouse=True)
def _no_browser():
    """As on a machine without a browser: PNGs take seconds a run, and have tests of their own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BROWSER_PATH", "/no/browser")
        yield


@pytest.fixture(scope="session")
def spec_file(tmp_path_factory):
    """A file with one spec that trains in a moment."""
    file = tmp_path_factory.mktemp("specs") / "tiny.json"
    file.write_text(SPEC)
    return str(file)


@pytest.fixture(scope="session")
def run_folder(spec_file, tmp_path_factory):
    """A folder of runs, and a trained run in it."""
    data = tmp_path_factory.mktemp("data")
    assert main([spec_file, "tiny", "train", "--data", str(data)]) == 0
    return next(data.glob("tiny_*"))


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch):
    names = "RENDER RECORD EPISODES LOG_LEVEL TORCH_COMPILE CUDA_OFFSET PROFILE DATA_DIR JOB SET HF_REPO "
    names += "SERIAL KEEP_TRIALS RAY_ADDRESS PARALLEL"
    for name in names.split():
        monkeypatch.delenv(name, raising=False)
