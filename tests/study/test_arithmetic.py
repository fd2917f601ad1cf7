"""The pure parts of the study: predictions, verdicts, results, plots, and the command line."""

from __future__ import annotations

import csv
import io
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from study import predictions, report
from study.catalogue import ALL, Model, models
from study.load import Seen
from study.plot import Bar, bars, shown
from study.results import Results, Row, read
from study.run import (
    UsageError,
    chosen_models,
    chosen_scenarios,
    plan_for,
)
from study.scenarios.catalogue import ALL as SCENARIOS
from study.stream import Stream
from study.titles import titles_of
from study.upstream_server import answer
from study.verdict import verdict
from tests.support.twistd import ROOT

BY_NAME = {model.name: model for model in models()}


@pytest.mark.parametrize(
    ("name", "connections", "expected"),
    [("one", 5000, 1), ("pool", 5000, 16), ("select", 5000, 497), ("thread", 10, 10)],
)
def test_served(name: str, connections: int, expected: int) -> None:
    """Threads and descriptors bound the connections that are served."""
    assert predictions.served(BY_NAME[name], connections) == expected


def test_littles_law() -> None:
    """A model that serves n at a time does n / S requests a second, and no more than there are."""
    pool, one, loop = BY_NAME["pool"], BY_NAME["one"], BY_NAME["epoll"]
    assert predictions.throughput(one, 1000, 5) == 200
    assert predictions.throughput(pool, 200, 104) == pytest.approx(153.8, abs=0.1)
    assert predictions.throughput(loop, 1e6, 500) == 1e6
    assert predictions.backlog_wait(pool, 200, 104, 2.0) == pytest.approx(600)
    assert predictions.backlog_wait(loop, 200, 104, 2.0) == 0
    assert predictions.last_wave(pool, 48, 500) == 1500
    assert predictions.last_wave(loop, 48, 500) == 500


@pytest.mark.parametrize(
    ("name", "expected"), [("epoll", 55), ("one", 55), ("process", 10), ("thread", 25)]
)
def test_beside_computing(name: str, expected: float) -> None:
    """A loop is held for as long as a callback computes; threads wait for the lock."""
    assert predictions.beside_computing(BY_NAME[name], 50) == expected


@pytest.mark.parametrize(
    ("predicted", "measured", "expected"),
    [
        (None, 3.0, ""),
        (5.0, None, "wrong: not reached"),
        (4.0, 0.1, "as predicted"),
        (100.0, 199.0, "as predicted"),
        (100.0, 210.0, "wrong: 2.1 times more"),
        (1024.0, 40.0, "wrong: 26 times less"),
        (0.0, 40.0, "wrong: more than predicted"),
    ],
)
def test_verdict(predicted: float | None, measured: float | None, expected: str) -> None:
    """A number within a factor of two is as predicted; small numbers are all the same."""
    assert verdict(predicted, measured) == expected


def test_a_percentile_is_of_all_requests() -> None:
    """Requests without an answer are the slowest: percentiles there are missing."""
    seen = Seen({"whole": 98, "unanswered": 2}, [n / 1000 for n in range(1, 99)])
    assert seen.milliseconds(50) == 50
    assert seen.milliseconds(98) == 98
    assert seen.milliseconds(99) is None
    assert seen.numbers()["unanswered"] == pytest.approx(2)


def test_the_load_is_an_open_loop() -> None:
    """The times of requests are fixed before the first one, and the same in every run."""
    stream = Stream("x", rate=1000, seconds=1.0)
    times = stream.times()
    assert times == stream.times() == sorted(times)
    assert 900 < len(times) < 1100
    assert Stream("x", rate=4, seconds=1.1, even=True).times() == [0.25, 0.5, 0.75, 1.0]
    assert Stream("x", burst=3).times() == [0.0, 0.0, 0.0]


def test_an_answer_is_as_its_request_says() -> None:
    """Wait, size and parts are in the path."""
    [(wait, whole)] = answer(b"GET /?wait=500&size=10 HTTP/1.1\r\n\r\n")
    assert wait == 0.5
    assert whole.endswith(b"\r\n\r\n" + 10 * b"x")
    first, second = answer(b"GET /?part=100&size=10 HTTP/1.1\r\nConnection: close\r\n\r\n")
    assert first[1].endswith(5 * b"x")
    assert b"Connection: close" in first[1]
    assert second == (0.1, 5 * b"x")


def some() -> Results:
    """Results with a number that was predicted well, one that was not, and one not reached."""
    rows = [
        Row("idle", "thread", "100", "total", 1024.0, 38.25),
        Row("idle", "epoll", "100", "total", 4.0, 1.5),
        Row("idle", "process", "5000", "total", 2048.0, None, "not run: <about> 10 GiB"),
        Row("slow-upstream", "pool", "", "p99", 605.0, 620.0),
    ]
    return Results({"cores": "2"}, rows)


def test_results_are_written_and_read(tmp_path: Path) -> None:
    """JSON keeps everything; CSV adds what became of each prediction."""
    path = tmp_path / "results.json"
    path.write_text(some().to_json())
    assert read(path) == some()
    assert json.loads(path.read_text())["machine"] == {"cores": "2"}
    table = list(csv.DictReader(io.StringIO(some().to_csv())))
    assert [line["verdict"] for line in table] == [
        "wrong: 27 times less",
        "as predicted",
        "wrong: not reached",
        "as predicted",
    ]
    assert some().value("slow-upstream", "pool", "p99") == 620.0
    with pytest.raises(KeyError, match="idle/nobody"):
        some().value("idle", "nobody", "total")


def test_the_page() -> None:
    """It predicts first, says where that was wrong, escapes text, and loads nothing."""
    page = report.html(some(), SCENARIOS, titles_of)
    assert page.index("Predicted:") < page.index("<svg") < page.index("was wrong</h3>")
    assert (
        "a thread for each connection at 100, memory for each connection, stacks and kernel "
        "included: predicted 1,024 KiB, measured 38.2 KiB (27 times less)"
    ) in page
    assert "&lt;about&gt;" in page
    assert "<about>" not in page
    assert "Nowhere: everything" in page
    assert not re.search(r"<(script|link|img|iframe)|url\(|https?:", page)
    assert "prefers-color-scheme: dark" in page


def test_a_plot() -> None:
    """A missing number is said, and no bar leaves the plot."""
    rows = [Bar("a", 10.0, 1000.0), Bar("b", None, 5.0), Bar("c", 0.0, None)]
    for log in (False, True):
        drawn = bars("t", "ms", rows, log)
        assert "not reached" in drawn
        widths = [float(each) for each in re.findall(r'width="([\d.]+)"', drawn)]
        assert all(1 <= width <= 760 for width in widths)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, "–"),
        (0, "0"),
        (0.2716, "0.27"),
        (38.23, "38.2"),
        (1514.2, "1,514"),
        (-0.0002, "0"),
        (-2.5, "-2.50"),
        (16.0, "16"),
    ],
)
def test_shown(value: float | None, expected: str) -> None:
    """Numbers have the digits that count."""
    assert shown(value) == expected


def test_what_is_chosen() -> None:
    """Names narrow the run; an unknown one is refused with those there are."""
    assert [each.name for each in chosen_scenarios("rising,idle", quick=True)] == ["rising", "idle"]
    assert [each.name for each in chosen_models("epoll", quick=True)] == ["epoll"]
    assert len(chosen_scenarios(None, quick=True)) == len(SCENARIOS) - 2
    assert len(chosen_models(None, quick=False)) >= 10
    with pytest.raises(UsageError, match=r"--only: there is no 'idel'; there are idle, rising"):
        chosen_scenarios("idel", quick=False)


def test_the_limit_bounds_connections() -> None:
    """A proxied connection takes two descriptors; too low a limit is refused."""
    assert plan_for(False, 20_000).idle == (100, 1000, 5000)
    assert plan_for(False, 4096).idle == (100, 1000)
    with pytest.raises(UsageError, match="open-file limit of 256"):
        plan_for(False, 256)


def test_every_scenario_predicts() -> None:
    """Each has its law and its lesson in words, and names that reports can use."""
    assert len({each.name for each in SCENARIOS}) == len(SCENARIOS)
    for each in SCENARIOS:
        assert each.prediction
        assert each.lesson
        assert len({measure.key for measure in each.measures}) == len(each.measures)
    assert isinstance(BY_NAME["evproxy"], Model)


def test_a_free_threaded_interpreter_joins(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where there is one, threads without the global lock are one model more."""
    monkeypatch.setattr("shutil.which", lambda name: f"/opt/{name}")
    *others, more = models()
    assert (more.name, more.python) == ("thread-free", "/opt/python3.14t")
    assert others == list(ALL)
    monkeypatch.setattr("shutil.which", lambda name: None)
    assert models() == ALL


@pytest.mark.parametrize("model", ["thread_each", "thread_pool", "loop_epoll", "asyncio_streams"])
def test_models_need_no_packages(model: str) -> None:
    """An interpreter without any package installed can run a model."""
    command = [sys.executable, "-S", "-c", f"import study.worker, study.models.{model}"]
    assert subprocess.run(command, cwd=ROOT, check=False).returncode == 0
