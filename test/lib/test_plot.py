import base64
import gzip
import json
import re
import stat
import time

import numpy as np
import plotly.graph_objects as go
import pytest

from slm_lab.lib.plot import (
    Interval,
    Line,
    draw_pngs,
    find_browser,
    interval_figure,
    line_figure,
    read_figure,
    write_html,
)


def figure(title="returns", **line):
    return line_figure(title, "frames", "return", [Line([0, 1, 2], [1.0, np.nan, 3.0], "session", **line)])


@pytest.fixture
def page(tmp_path):
    write_html(figure(), tmp_path / "a.b.html")
    return tmp_path / "a.b.html"


def test_page_holds_the_figure_and_needs_nothing_from_elsewhere(page):
    shown = go.Figure(read_figure(page))  # plotly checks every name and value
    assert shown.layout.title.text == "returns"
    assert shown.layout.xaxis.title.text == "frames"
    assert shown.layout.yaxis.title.text == "return"
    assert shown.data[0].name == "session"
    text = page.read_text(encoding="utf-8")
    assert not re.search(r"""(src|href)\s*=|@import|url\(|https?://""", text)


def test_page_carries_plotly_whole_and_less_than_half_its_size(page):
    text = page.read_text(encoding="utf-8")
    packed = re.search(r'<script id="plotly"[^>]*>([^<]*)</script>', text)[1]
    library = gzip.decompress(base64.b64decode(packed))
    assert b"newPlot" in library
    assert b"MIT" in library[:300]  # the licence asks for its notice
    assert page.stat().st_size < len(library) / 2


def test_the_same_figure_gives_the_same_page(page, tmp_path):
    write_html(figure(), tmp_path / "again.html")
    assert (tmp_path / "again.html").read_bytes() == page.read_bytes()


def test_a_name_cannot_break_out_of_the_page(tmp_path):
    evil = "</script><script>alert(1)</script> & <b>"
    write_html(line_figure(evil, evil, evil, [Line([0], [0], evil)]), tmp_path / "a.html")
    assert "alert(1)</script>" not in (tmp_path / "a.html").read_text()
    assert read_figure(tmp_path / "a.html")["data"][0]["name"] == evil
    assert "alert(1)" in read_figure(tmp_path / "a.html")["layout"]["title"]["text"]


def test_pages_are_written_fast(tmp_path):
    write_html(figure(), tmp_path / "first.html")  # packs plotly.js, once a process
    rows = np.arange(1000.0)
    start = time.perf_counter()
    write_html(line_figure("", "", "", [Line(rows, rows)] * 5), tmp_path / "second.html")
    assert time.perf_counter() - start < 0.5  # 0.03 s on a quiet machine


def test_band_goes_around_the_line_and_lies_below_it():
    line = Line([1.0, 2.0], [10.0, 20.0], "mean", band=(np.array([9.0, 18.0]), np.array([11.0, 22.0])))
    band, mean = line_figure("", "", "", [line]).data
    assert list(band.x) == [1, 2, 2, 1]
    assert list(band.y) == [11, 22, 18, 9]
    assert list(mean.y) == [10, 20]


def test_a_band_leaves_out_what_has_no_ends():
    low = np.array([np.nan, 1.0, 2.0])
    band, _ = line_figure("", "", "", [Line([1.0, 2.0, 3.0], [5.0, 5.0, 5.0], "mean", band=(low, low + 1))]).data
    assert list(band.x) == [2, 3, 3, 2]


def test_intervals_stand_below_each_other_in_order():
    rows = [Interval("a", 2.0, 1.0, 4.0), Interval("b <i>", 3.0, np.nan, np.nan)]
    figure = interval_figure("t", "score", rows, mark=0.5)
    first, second = figure.data
    assert (first.x[0], first.error_x.array[0], first.error_x.arrayminus[0]) == (2.0, 2.0, 1.0)
    assert (first.y[0], second.y[0]) == (0, 1)
    assert figure.layout.yaxis.range[0] > figure.layout.yaxis.range[1]  # the first at the top
    assert list(figure.layout.yaxis.ticktext) == ["a", "b &lt;i&gt;"]
    assert figure.layout.shapes[0].x0 == 0.5
    assert figure.layout.height is None
    assert interval_figure("t", "score", rows * 20).layout.height > 1000


def test_one_row_can_be_seen():
    [one] = line_figure("", "", "", [Line([5.0], [1.0])]).data
    [many] = line_figure("", "", "", [Line(np.arange(100.0), np.arange(100.0))]).data
    assert "markers" in one.mode
    assert many.mode == "lines"


def test_what_is_no_page_is_a_value_error(tmp_path):
    (tmp_path / "a.html").write_text("<html></html>")
    with pytest.raises(ValueError, match=r"a\.html"):
        read_figure(tmp_path / "a.html")
    (tmp_path / "a.html").write_text('<script id="figure" type="application/json">{"data": [</script>')
    with pytest.raises(json.JSONDecodeError):
        read_figure(tmp_path / "a.html")


def test_png_is_drawn_beside_the_page(page, tmp_path, monkeypatch):
    if not find_browser():
        pytest.skip("no browser on this machine")
    monkeypatch.chdir(tmp_path)
    assert draw_pngs([page.relative_to(tmp_path)]) == [page.with_suffix(".png").relative_to(tmp_path)]
    image = (tmp_path / "a.b.png").read_bytes()
    assert image.startswith(b"\x89PNG")
    assert int.from_bytes(image[16:20]) == 1440  # pixels wide: 960 at scale 1.5


def test_a_png_does_not_outlive_what_it_shows(page):
    page.with_suffix(".png").write_bytes(b"old")
    write_html(figure(title="new"), page)
    assert not page.with_suffix(".png").exists()


def test_a_browser_that_hangs_is_given_up(page, tmp_path, monkeypatch):
    pytest.importorskip("kaleido")
    sleeper = tmp_path / "browser"
    sleeper.write_text("#!/bin/sh\nexec sleep 30\n")
    sleeper.chmod(sleeper.stat().st_mode | stat.S_IEXEC)
    monkeypatch.setenv("BROWSER_PATH", str(sleeper))
    start = time.perf_counter()
    assert draw_pngs([page], limit=1.5) == []
    assert time.perf_counter() - start < 6
    assert not page.with_suffix(".png").exists()


def test_a_spoilt_page_or_a_browser_that_fails_draws_nothing_and_raises_nothing(page, tmp_path, monkeypatch):
    pytest.importorskip("kaleido")
    monkeypatch.setenv("BROWSER_PATH", "/bin/false")
    assert draw_pngs([page], limit=5) == []
    monkeypatch.setenv("BROWSER_PATH", str(tmp_path / "none"))
    assert find_browser() is None
    assert draw_pngs([page]) == []


def test_many_names_stand_beside_the_graph_and_not_over_its_title():
    def legend(count):
        return line_figure("", "", "", [Line([0, 1], [1.0, 2.0], f"trial {n}") for n in range(count)]).layout.legend

    assert legend(8).y > 1
    assert legend(9).x > 1
