import io
import math
import os
import re
import select
import sys

import pytest

from slm_lab.experiment import progress as module
from slm_lab.experiment.progress import Curve, Progress, score, time_left


@pytest.fixture
def seconds(monkeypatch):
    """A clock that the test moves."""
    now = [1000.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    return now


def lines_of(capsys):
    return capsys.readouterr().err.splitlines()


def test_a_plain_line_says_everything(capsys, seconds):
    with Progress(2000, 2) as progress:
        seconds[0] += 5
        progress.update(1, 500, 100.0, 12.345)
    assert lines_of(capsys) == ["session 1: frame 500/2,000 (25 %) | 100 fps | return 12.35 | 0:15 left"]


def test_plain_lines_come_every_5_percent_but_not_within_5_seconds(capsys, seconds):
    with Progress(1000, 1) as progress:
        shown = []
        for after, frame in [(0, 10), (4, 200), (1, 220), (6, 230), (6, 250), (6, 270), (6, 290), (6, 310), (6, 320)]:
            seconds[0] += after
            progress.update(0, frame, 1.0, 0.0)
            shown += [frame] * len(lines_of(capsys))
    # 200 comes too soon, 220 after 5 seconds; then every 50 frames
    assert shown == [220, 270, 320]


def test_a_slow_session_is_heard_of_once_a_minute(capsys, seconds):
    with Progress(10**9, 1) as progress:
        seconds[0] += 59
        progress.update(0, 1, 1.0, 0.0)
        assert lines_of(capsys) == []
        seconds[0] += 1
        progress.update(0, 2, 1.0, 0.0)
        assert len(lines_of(capsys)) == 1


def test_the_last_frame_always_has_a_line_and_only_one(capsys, seconds):
    with Progress(1000, 1) as progress:
        progress.update(0, 999, 1.0, 0.0)
        progress.update(0, 1000, 1.0, 0.0)
        progress.update(0, 1000, 1.0, 0.0)
    assert [line.split(" (")[0] for line in lines_of(capsys)] == ["session 0: frame 1,000/1,000"]


def test_sessions_are_timed_apart(capsys, seconds):
    with Progress(1000, 2) as progress:
        seconds[0] += 5
        progress.update(0, 100, 1.0, 0.0)
        progress.update(1, 100, 1.0, 0.0)
    assert len(lines_of(capsys)) == 2


def test_the_speed_is_smoothed_and_survives_a_moment_without_one(capsys, seconds):
    with Progress(1000, 1) as progress:
        for frame, fps in [(400, 100.0), (600, 200.0), (1000, 0.0)]:
            seconds[0] += 5
            progress.update(0, frame, fps, 0.0)
    speeds = [line.split(" | ")[1] for line in lines_of(capsys)]
    assert speeds == ["100 fps", "130 fps", "130 fps"]


def test_silent_shows_no_progress(capsys):
    with Progress(1000, 1, silent=True) as progress:
        progress.update(0, 1000, 1.0, 0.0)
    assert lines_of(capsys) == []


def test_messages_end_their_line_once(capsys):
    with Progress(1000, 1) as progress:
        progress.message("one")
        progress.message("two\n")
    assert capsys.readouterr().err == "one\ntwo\n"


def test_spark_shows_the_newest_return_of_each_sixteenth():
    curve = Curve(1600)
    assert curve.spark() == " " * 16
    for frame, total_reward in [(0, 5.0), (50, 0.0), (100, 35.0), (250, math.nan), (350, 70.0), (1600, 0.0)]:
        curve.add(frame, total_reward)
    # 0 and 50 fall into the first; 200..299 has no number; 1600 is the end of the last
    assert curve.spark() == "▁▅ █           ▁"


def test_spark_of_a_constant_is_flat():
    curve = Curve(160)
    curve.add(0, 3.0)
    curve.add(10, 3.0)
    assert curve.spark() == "▁▁" + " " * 14


@pytest.mark.parametrize(
    ("frames", "fps", "text"),
    [
        (90, 1.0, "1:30"),
        (3661, 1.0, "1:01:01"),
        (0, 5.0, "0:00"),
        (-5, 5.0, "0:00"),
        (10, 0.0, "–"),
        (10, math.nan, "–"),
    ],
)
def test_time_left(frames, fps, text):
    assert time_left(frames, fps) == text


@pytest.mark.parametrize(
    ("value", "text"), [(math.nan, "–"), (-20.25, "-20.25"), (999.994, "999.99"), (15460.48, "15,460")]
)
def test_score(value, text):
    assert score(value) == text


class Screen:
    """A terminal: what is written to it can be read back."""

    def __init__(self, monkeypatch):
        self._reader, writer = os.openpty()
        self._stream = io.TextIOWrapper(os.fdopen(writer, "wb", buffering=0), write_through=True, encoding="utf-8")
        monkeypatch.setattr(sys, "stderr", self._stream)
        monkeypatch.setenv("TERM", "xterm")
        monkeypatch.setenv("COLUMNS", "120")
        monkeypatch.delenv("NO_COLOR", raising=False)

    def text(self):
        parts = []
        while select.select([self._reader], [], [], 0.2)[0]:  # a terminal hands on what it got in its own time
            parts.append(os.read(self._reader, 1 << 16))
        return b"".join(parts).decode()


def plain(text):
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text)


def test_a_terminal_has_a_bar_per_session(monkeypatch):
    screen = Screen(monkeypatch)
    with Progress(2000, 2) as progress:
        progress.update(0, 1000, 250.0, 1.5)
        progress.update(1, 500, 250.0, 2.5)
    last = plain(screen.text()).replace("\r", "\n").split("\n")
    bars = {line.split()[1]: line for line in last if line.startswith("session")}
    assert all(part in bars["0"] for part in ("1,000", "250 fps", "return 1.50", "0:04 left", "▁"))
    assert all(part in bars["1"] for part in ("500", "return 2.50", "0:06 left"))


def test_a_message_stands_whole_above_the_bars(monkeypatch):
    screen = Screen(monkeypatch)
    with Progress(2000, 1) as progress:
        progress.message("a warning\n")
    assert "a warning" in plain(screen.text()).replace("\r", "\n").split("\n")


def test_an_interrupted_terminal_gets_its_cursor_back(monkeypatch):
    screen = Screen(monkeypatch)
    with pytest.raises(KeyboardInterrupt), Progress(2000, 1):
        raise KeyboardInterrupt
    text = screen.text()
    assert text.rindex("\x1b[?25h") > text.rindex("\x1b[?25l")
    assert text.endswith(("\n", "\x1b[?25h"))
