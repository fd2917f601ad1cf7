"""``python -m study`` as a reader runs it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from attrs import evolve
from rich.console import Console

from study import report
from study.batch.databases import databases, postgresql_is_there
from study.batch.ways import WAYS
from study.catalogue import models
from study.results import read
from study.run import chosen_scenarios, run
from study.scenarios.contract import QUICK
from study.titles import titles_of
from tests.support.twistd import PATIENCE, ROOT

BY_NAME = {model.name: model for model in models()}


def study(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the command."""
    command = [sys.executable, "-m", "study", *arguments]
    return subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=2 * PATIENCE, check=False
    )


def test_a_narrow_run(tmp_path: Path) -> None:
    """It says what to expect, prints the table, and leaves the report in three forms."""
    done = study(
        *("--quick", "--only=full-pool,quitting", "--models=pool,epoll"),
        *("--output", str(tmp_path / "report")),
    )
    assert done.returncode == 0, done.stderr
    assert "three waves" in " ".join(done.stdout.split())
    results = read(tmp_path / "report" / "study.json")
    # On a busy machine, the last one may come too late to be waited for.
    assert (results.value("full-pool", "pool", "last") or 2000) >= 1500
    assert 500 <= (results.value("full-pool", "epoll", "last") or 0) < 1500
    assert 0 < (results.value("quitting", "pool", "whole") or 0) <= 40
    assert results.value("quitting", "epoll", "whole") == 0
    assert (results.value("quitting", "epoll", "cut") or 0) > 0
    assert "<svg" in (tmp_path / "report" / "study.html").read_text()
    assert "full-pool,pool,,last,1500.0," in (tmp_path / "report" / "study.csv").read_text()


def test_memory_of_idle_connections(tmp_path: Path) -> None:
    """A thread costs a stack in the process and one in the kernel; a loop costs neither."""
    done = study(
        *("--quick", "--only=idle", "--models=thread,epoll", "--output", str(tmp_path)),
    )
    assert done.returncode == 0, done.stderr
    results = read(tmp_path / "study.json")

    def value(model: str, measure: str) -> float:
        found = results.value("idle", model, measure, "300")
        assert found is not None
        return found

    for model in ("thread", "epoll"):
        assert value(model, "served") == 300
        assert value(model, "descriptors") == pytest.approx(2, abs=0.2)
    assert value("thread", "stacks") >= 4
    assert value("thread", "kernel") >= 8
    assert value("epoll", "stacks") == 0
    assert value("epoll", "total") < value("thread", "total") / 4


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (["--only=nothing"], "python -m study: --only: there is no 'nothing'; there are idle, "),
        (["--models=x"], "python -m study: --models: there is no 'x'; there are one, process, "),
        (["--output=/dev/null/x"], "python -m study: --output: /dev/null/x: Not a directory"),
    ],
)
def test_a_wrong_name(arguments: list[str], error: str) -> None:
    """One line says what is wrong, and what there is."""
    done = study(*arguments)
    assert done.returncode == 2
    assert done.stderr.startswith(error)
    assert done.stderr.count("\n") == 1


@pytest.mark.peers("initdb", "postgres")
def test_the_batch_job(tmp_path: Path) -> None:
    """Each way adds up the records of real databases, in the time that its waves take."""
    assert postgresql_is_there()
    done = study("--quick", "--only=batch", "--output", str(tmp_path))
    assert done.returncode == 0, done.stderr + done.stdout
    results = read(tmp_path / "study.json")
    for way in WAYS:
        assert (results.value("batch", way, "time") or 0) >= 300
    assert (results.value("batch", "pool", "time") or 0) >= 600
    assert results.value("batch", "loop", "threads") == 1
    assert (results.value("batch", "threads", "client") or 0) > 1
    assert results.machine["databases"] == "PostgreSQL"


@pytest.mark.parametrize("way", ["threads", "pool"])
def test_sqlite_stands_in(way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where there is no PostgreSQL, SQLite files answer as slowly."""
    monkeypatch.setattr("study.batch.databases.postgresql_is_there", lambda: False)
    with databases(3) as asked:
        assert asked.kind == "sqlite"
        assert WAYS[way](asked.kind, asked.names) == asked.sums


def test_a_step_that_fails() -> None:
    """A model that does not start is said in one line, and in the report; the run goes on."""
    broken = evolve(BY_NAME["thread"], python="/bin/false")
    results = run(chosen_scenarios("leaving", False), [broken], QUICK, Console(quiet=True))
    [row] = results.rows
    assert (row.measure, row.measured) == ("failed", None)
    assert row.note == "/bin/false ended:"
    page = report.html(results, chosen_scenarios("leaving", False), titles_of)
    assert "a thread for each connection could not be measured: /bin/false ended:" in page
