"""``docs/which-model.md``: every figure comes from the kept results."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

from study.results import Results, Row
from study.scenarios.catalogue import ALL as SCENARIOS
from study.which_model import PAGE, TARGET, kept, page, rendered
from tests.support.twistd import PATIENCE, ROOT

FIGURE = re.compile(r"(?<![\w.])\d[\d,.]*\d? ?(?:ms|KiB|MiB|MB|GB|GiB|%|s)\b")


def test_the_page_agrees_with_the_results() -> None:
    """The page is what the kept results make of its text.  If not, run ``docs/generate.py``."""
    assert TARGET.read_text() == page()


def test_figures_come_from_results() -> None:
    """The text itself has no figure with a unit, but those that describe the scenarios."""
    known = (
        " ".join(f"{each.title} {each.question} {each.prediction}" for each in SCENARIOS) + " 8 MiB"
    )
    text = re.sub(r"\{[^{}]*\}", "", PAGE.read_text())
    assert [figure for figure in FIGURE.findall(text) if figure not in known] == []
    assert FIGURE.findall("p99 12.5 ms, 3 MiB, and 16 threads") == ["12.5 ms", "3 MiB"]


def test_a_figure_has_its_unit() -> None:
    """Figures, tables and what is missing, in prose."""
    rows = [
        Row("idle", "thread", "100", "total", 1024.0, 38.25),
        Row("idle", "process", "100", "total", 2048.0, 2662.4),
        Row("idle", "process", "5000", "total", 2048.0, None),
    ]
    results = {"models": Results({}, rows)}

    def made(text: str) -> str:
        return rendered(text, results)

    assert made("{models idle/thread/total/100}") == "38.2 KiB\n"
    assert made("{models idle/process/total/100}") == "2.60 MiB\n"
    assert made("{models idle/process/total/5000}") == "not reached\n"
    assert made("{table models idle total}").splitlines() == [
        "| | 100 | 5,000 |",
        "| --- | ---: | ---: |",
        "| a thread for each connection | 38.2 (1,024) | – |",
        "| a process for each connection | 2,662 (2,048) | – (2,048) |",
    ]
    with pytest.raises(KeyError, match="idle/nobody/total"):
        made("{models idle/nobody/total}")


def test_the_results_are_whole() -> None:
    """The kept results have every scenario, and say on which machine they were measured."""
    for results in kept().values():
        measured = {row.scenario for row in results.rows}
        assert {each.name for each in SCENARIOS if not each.participants} <= measured
        assert {"CPU", "cores", "kernel", "load before the run"} <= set(results.machine)
    assert "batch" in {row.scenario for row in kept()["models"].rows}


@pytest.mark.parametrize(
    ("statement", "said"),
    [("time.sleep(0.2)", "it waits"), ("for _ in range(6_000_000): pass", "it runs")],
)
def test_what_blocks_a_loop(statement: str, said: str) -> None:
    """The reader's own code holds a loop, and the watchdog says what it does meanwhile."""
    done = block(statement)
    assert done.returncode == 0, done.stderr
    assert "the loop was held for" in done.stdout
    assert "your_callback" in done.stdout
    assert said in done.stdout
    assert "The longest turn of the loop took" in done.stdout


@pytest.mark.parametrize(
    ("statement", "error"),
    [("1 +", "invalid syntax: 1 +\n"), ("nothing()", "NameError: name 'nothing' is not defined\n")],
)
def test_a_wrong_statement(statement: str, error: str) -> None:
    """One line says what is wrong with it."""
    done = block(statement)
    assert done.returncode in (1, 2)
    assert done.stderr == f"python -m study block: {error}"


def block(statement: str) -> subprocess.CompletedProcess[str]:
    """Run the command that blocks a loop."""
    command = [sys.executable, "-m", "study", "block", statement]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE)
