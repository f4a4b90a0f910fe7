"""Command lines that search, and what is done with what they have found."""

import json
import re
import shutil

import pytest

from slm_lab.cli import main

SPACE = {"agent.algorithm.gamma__uniform": [0.9, 0.99]}


@pytest.fixture(scope="module")
def search_file(spec_file, tmp_path_factory):
    from slm_lab.spec import load_spec

    raw = load_spec(spec_file).to_dict()
    raw["meta"] |= {"max_trial": 2}
    file = tmp_path_factory.mktemp("specs") / "wide.json"
    file.write_text(json.dumps({"wide": raw | {"search": SPACE}}))
    return str(file)


@pytest.fixture(scope="module")
def folder(search_file, tmp_path_factory):
    data = tmp_path_factory.mktemp("data")
    assert main([search_file, "wide", "search", "--serial", "--data", str(data)]) == 0
    return next(data.glob("wide_*"))


def test_it_reports_and_goes_on_to_more_trials(search_file, folder, capsys):
    words = [search_file, "wide", "search@latest", "--serial", "--data", str(folder.parent)]
    assert main([*words, "-s", "meta.max_trial=3", "--keep", "-1"]) == 0
    report = capsys.readouterr().out
    assert "3 trials: 3 complete, 0 pruned, 0 failed" in report
    assert f"slm-lab best {folder} --train" in report
    assert f"wide search@{folder} --serial --keep=-1 -s meta.max_trial=6" in report
    assert re.search(r"best       trial \d: gamma 0\.9\d+", report)
    for line in report.splitlines():
        if line.startswith("graph"):
            assert line.endswith(".html")


def test_the_best_is_printed_played_and_trained(search_file, folder, capsys, tmp_path):
    assert main(["best", str(folder)]) == 0
    printed = capsys.readouterr()
    spec = json.loads(printed.out)["wide"]
    assert spec["search"] == {}
    assert re.search(rf"best       trial \d: gamma {spec['agent']['algorithm']['gamma']:.4g}", printed.err)
    assert main([search_file, "wide", f"enjoy@{folder}", "--episodes", "1"]) == 0
    assert "episode 1: score" in capsys.readouterr().out
    assert main(["best", str(folder), "--train", "--data", str(tmp_path), "-s", "meta.max_session=1"]) == 0
    (trained,) = tmp_path.glob("wide_best_*")
    saved = json.loads((trained / "wide_best_spec.json").read_text())["wide_best"]
    assert saved["agent"] == spec["agent"]
    assert main(["best", str(folder), "--train", "--data", str(tmp_path), "-s", "env=Acrobot-v1"]) == 2
    assert "-s env: env is an object" in capsys.readouterr().err


def test_a_search_is_not_trained_on_and_a_run_not_searched_on(search_file, folder, run_folder, spec_file, capsys):
    assert main([search_file, "wide", f"train@{folder}"]) == 2
    assert f"go on with MODE search@{folder}" in capsys.readouterr().err
    assert main([spec_file, "tiny", f"search@{run_folder}", "--serial", "-s", "meta.max_trial=1"]) == 2
    assert "nothing to search" in capsys.readouterr().err
    assert main(["best", str(run_folder)]) == 2
    assert "not a search" in capsys.readouterr().err


def test_train_latest_passes_searches_over(search_file, folder, capsys, tmp_path):
    data = tmp_path / "data"
    shutil.copytree(folder, data / folder.name)
    words = [search_file, "wide", "train@latest", "--data", str(data), "-s", "env.max_frame=250"]
    assert main(words) == 2
    assert "there is a search, which MODE search@latest goes on with" in capsys.readouterr().err
    trained = data / "wide_2020_01_01_000000"  # older than the search
    assert main([search_file, "wide", "train", "--data", str(data)]) == 0
    next(path for path in data.glob("wide_2*") if path.name != folder.name).rename(trained)
    assert main(words) == 0
    assert json.loads((trained / "wide_t0_trial_metrics_scalar.json").read_text())["frame"] == 250


def test_check_says_what_is_searched(search_file, tmp_path, capsys):
    assert main(["check", search_file, "wide"]) == 0
    assert "search     agent.algorithm.gamma" in capsys.readouterr().out
    assert main(["check", search_file, "wide", "-s", "search.agent.algorithm.gamma__uniform=[1,2]"]) == 2


def test_what_torch_does_not_take_is_refused_before_the_search(search_file, tmp_path, capsys):
    wrong = ["-s", "search.agent.net.optim_spec.lrr__loguniform=[1e-4,1e-2]"]
    assert main(["check", search_file, "wide", *wrong]) == 2
    assert "lrr 0.0001: agent.net.optim_spec.lrr: unknown key" in capsys.readouterr().err
    assert main(["check", search_file, "--all", *wrong]) == 2
    assert "lrr 0.0001: agent.net.optim_spec.lrr: unknown key" in capsys.readouterr().out
    assert main([search_file, "wide", "search", "--serial", "--data", str(tmp_path), *wrong]) == 2
    said = capsys.readouterr().err
    assert "lrr 0.0001: agent.net.optim_spec.lrr: unknown key" in said
    assert "trial 0" not in said
    assert not list(tmp_path.glob("wide_*"))
    every = ["-s", 'search.agent.net.optim_spec.name__choice=["Adam","SGD","Adamm"]']
    assert main([search_file, "wide", "search", "--serial", "--data", str(tmp_path), *every]) == 2
    assert 'name "Adamm": ' in capsys.readouterr().err
