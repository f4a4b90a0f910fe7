"""The graphs of a search."""

from slm_lab.experiment.paths import new_run
from slm_lab.experiment.search_graph import draw_parallel
from slm_lab.experiment.search_results import Row
from slm_lab.lib.plot import read_figure


def test_the_ticks_of_a_logarithmic_axis_lie_on_the_axis(tmp_path):
    paths = new_run(tmp_path, "some")
    rows = [Row(n, "COMPLETE", {"net.lr": lr}, {"strength": 1.0}) for n, lr in enumerate([1.1e-4, 3e-3, 8e-2])]
    draw_parallel(paths, "some", rows, {"net.lr": "lr"})
    (lr, _) = read_figure(paths.experiment_graph("parallel_coordinates"))["data"][0]["dimensions"]
    assert lr["ticktext"] == ["3.2e-04", "1.0e-03", "3.2e-03", "1.0e-02", "3.2e-02"]
    assert lr["tickvals"] == [-3.5, -3.0, -2.5, -2.0, -1.5]
