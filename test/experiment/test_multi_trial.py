import shutil

import pytest
from made_runs import made_run
from test_graph import decoded

from slm_lab.experiment.multi_trial import plot_runs
from slm_lab.lib.plot import read_figure
from slm_lab.spec import SpecError


@pytest.fixture(autouse=True)
def no_browser(monkeypatch):
    monkeypatch.setenv("BROWSER_PATH", "/no/browser/here")


@pytest.fixture
def folders(tmp_path):
    dqn = made_run(tmp_path, "dqn", [[0.0, 10.0, 20.0], [20.0, 30.0]], label="DQN")
    ppo = made_run(tmp_path, "ppo", [[5.0, 5.0, 8.0]])
    return [dqn.folder.name, ppo.folder.name]


def lines(page):
    figure = read_figure(page)
    return {line["name"]: (decoded(line["x"]), decoded(line["y"])) for line in figure["data"] if line["showlegend"]}


def test_each_run_is_its_mean_over_the_seeds(tmp_path, folders):
    returns, averages = plot_runs(folders, tmp_path, tmp_path / "plots", "Cart / Pole")
    assert returns.name == "Cart_Pole_multi_trial_graph_mean_returns_vs_frames.html"
    assert averages.name == "Cart_Pole_multi_trial_graph_mean_returns_ma_vs_frames.html"
    assert lines(returns) == {"DQN": ([100, 200], [10, 20]), "PPO": ([100, 200, 300], [5, 5, 8])}
    assert lines(averages)["PPO"] == ([100, 200, 300], [5, 5, 6])
    assert len(read_figure(returns)["data"]) == 3  # one band: a single seed has no spread
    assert read_figure(returns)["layout"]["title"]["text"] == "Cart / Pole"


def test_names_and_title_by_default_and_as_asked_for(tmp_path, folders):
    again = shutil.copytree(tmp_path / folders[1], tmp_path / "elsewhere" / folders[1].replace("20", "21", 1))
    [page, _] = plot_runs([folders[1], str(again)], tmp_path, tmp_path)
    assert page.name.startswith("CartPole-v1_multi_trial")
    assert list(lines(page)) == [folders[1], again.name]
    [page, _] = plot_runs(folders, tmp_path, tmp_path, labels=["a", "a"])
    assert list(lines(page)) == ["a", f"a {folders[1]}"]


def test_bad_input_is_an_error_and_leaves_nothing(tmp_path, folders):
    for file in (tmp_path / folders[1]).glob("info/*_df_*.csv"):
        file.write_text("total_reward,frame\n")
    out = tmp_path / "plots"
    for asked, labels, say in [
        ([], [], "--folders"),
        (folders, ["one"], "--labels: 1 for 2"),
        ([folders[0], "no_such"], [], "no_such"),
        (folders, [], f"{folders[1]}: no returns"),
    ]:
        with pytest.raises(SpecError, match=say):
            plot_runs(asked, tmp_path, out, labels=labels)
    assert not list(out.glob("*"))
