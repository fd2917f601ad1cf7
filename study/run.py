"""
The command line of the study: ``python -m study``.

Runs each scenario with each model, shows what is measured now and what to expect, and writes the
report: ``study.html``, ``study.json`` and ``study.csv``.
"""

from __future__ import annotations

import argparse
import functools
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TypeVar

from attrs import evolve
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from benchmarks.machine import machine

from . import report, servers
from .batch.databases import Databases, databases, postgresql_is_there
from .catalogue import Model, models
from .load import LoadError
from .processes import StartError, running_upstream
from .results import Results, Row, rounded
from .scenarios.batch import BatchError
from .scenarios.catalogue import ALL as SCENARIOS
from .scenarios.contract import FULL, QUICK, Bench, Plan, Scenario
from .titles import titles_of
from .worker import raise_limit

_T = TypeVar("_T")

QUICK_MODELS = ("thread", "pool", "epoll", "evproxy")
NOT_QUICK = ("slow-reader", "slow-upstream")
"""Scenarios that a quick run leaves out: others of it teach the same."""

FAILURES = (StartError, LoadError, BatchError, OSError, subprocess.SubprocessError)
"""What ends one step, and not the run."""

RESERVE = 200
"""Descriptors that a process has besides those of connections; a proxied connection takes two."""


class UsageError(Exception):
    """What is wrong with the command, in one line."""


def arguments(argv: Sequence[str]) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m study",
        description="What each model of a server costs and loses, measured on this machine.",
        epilog="Also: python -m study live (watch an event loop turn, in a browser), "
        "python -m study block STATEMENT (block one, and find out what blocks it).",
    )
    parser.add_argument("--quick", action="store_true", help="a short run, in under 40 seconds")
    parser.add_argument(
        "--only",
        metavar="NAME,…",
        help=f"only these scenarios: {', '.join(each.name for each in SCENARIOS)}",
    )
    parser.add_argument(
        "--models",
        metavar="NAME,…",
        help=f"only these models: {', '.join(each.name for each in models())}; "
        f"with --servers: {', '.join(each.name for each in servers.ALL)}",
    )
    parser.add_argument(
        "--servers",
        action="store_true",
        help="real servers instead of the models: Apache, nginx, gunicorn",
    )
    parser.add_argument(
        "--output",
        metavar="DIRECTORY",
        type=Path,
        default=Path("study-report"),
        help="where the report goes (default: study-report)",
    )
    return parser.parse_args(argv)


def chosen_scenarios(only: str | None, quick: bool) -> Sequence[Scenario]:
    """The scenarios named in `only`; without it all, or those of a quick run.

    :raises UsageError: if there is no such scenario.
    """
    if only is None and quick:
        return [each for each in SCENARIOS if each.name not in NOT_QUICK]
    return _named("--only", only, {each.name: each for each in SCENARIOS})


def chosen_models(only: str | None, quick: bool, real: bool = False) -> Sequence[Model]:
    """The models named in `only`; without it all, or the few of a quick run.

    :param real: choose among real servers.
    :raises UsageError: if there is no such model, or if servers are not installed.
    """
    if real and (lines := servers.missing()):
        raise UsageError("; ".join(lines))
    by_name = {each.name: each for each in (servers.ALL if real else models())}
    if only is None and quick and not real:
        return [by_name[name] for name in QUICK_MODELS]
    return _named("--models", only, by_name)


def _named(option: str, only: str | None, known: dict[str, _T]) -> Sequence[_T]:
    if only is None:
        return list(known.values())
    names = only.split(",")
    for name in names:
        if name not in known:
            raise UsageError(f"{option}: there is no {name!r}; there are {', '.join(known)}")
    return [known[name] for name in names]


def plan_for(quick: bool, limit: int) -> Plan:
    """How much a run does, with so many descriptors for each process.

    :raises UsageError: if the limit does not even allow the smallest number of connections.
    """
    plan = QUICK if quick else FULL
    most = min(plan.most, (limit - RESERVE) // 2)
    sizes = tuple(size for size in plan.idle if size <= most)
    if not sizes:
        raise UsageError(f"the open-file limit of {limit} is too low: raise it (ulimit -n)")
    return evolve(plan, idle=sizes, most=most)


def conditions(plan: Plan) -> dict[str, str]:
    """The machine, and how busy it was when the run began."""
    busy = os.getloadavg()[0]
    return {
        **machine(),
        "Python": sys.version.split()[0],
        "load before the run": f"{busy:.1f}",
        "most connections": f"{plan.most:,}",
        "databases": "PostgreSQL" if postgresql_is_there() else "SQLite, as a stand-in",
    }


def run(
    scenarios: Sequence[Scenario], chosen: Sequence[Model], plan: Plan, console: Console
) -> Results:
    """Measure, with a progress bar that says what is measured now, and what to expect."""
    results = Results(conditions(plan))
    steps = [
        (scenario, model)
        for scenario in scenarios
        for model in scenario.participants or chosen
        if model.hooked or not scenario.needs_hook
    ]
    progress = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=console,
    )
    with ExitStack() as stack:

        @functools.cache
        def asked() -> Databases:
            return stack.enter_context(databases(plan.databases))

        upstream = stack.enter_context(running_upstream())
        stack.enter_context(progress)
        task = progress.add_task("", total=len(steps))
        before: Scenario | None = None
        for scenario, model in steps:
            if scenario is not before:
                progress.console.print(f"[bold]{scenario.title}[/bold]: {scenario.prediction}")
                before = scenario
            progress.update(task, description=f"{scenario.name}: {model.title}")
            try:
                rows = rounded(scenario.run(Bench(plan, upstream.port, asked), model))
            except FAILURES as error:
                said = " ".join(str(error).split())
                progress.console.print(f"{scenario.name}: {model.title}: {said}", style="red")
                rows = [Row(scenario.name, model.name, "", "failed", None, None, said)]
            results.rows += rows
            progress.advance(task)
    return results


def show(results: Results, scenarios: Sequence[Scenario], console: Console) -> None:
    """Print the table of each scenario."""
    for scenario in scenarios:
        table = Table(title=scenario.title, caption="measured (predicted)")
        for number, each in enumerate(report.heading(scenario)):
            table.add_column(each, justify="right" if number else "left", overflow="fold")
        for line in report.lines(results, scenario, titles_of(scenario)):
            table.add_row(*line)
        console.print(table)


def write(results: Results, scenarios: Sequence[Scenario], directory: Path) -> None:
    """Write the report into `directory`."""
    (directory / "study.json").write_text(results.to_json())
    (directory / "study.csv").write_text(results.to_csv())
    page = report.html(results, scenarios, titles_of)
    (directory / "study.html").write_text(page)


def main(argv: Sequence[str]) -> int:
    """Run the study; return the exit status."""
    asked = arguments(argv)
    console = Console()
    try:
        scenarios = chosen_scenarios(asked.only, asked.quick)
        if asked.servers:
            scenarios = [each for each in scenarios if not each.participants]
        chosen = chosen_models(asked.models, asked.quick, asked.servers)
        plan = plan_for(asked.quick, raise_limit())
        if sys.platform != "linux":
            raise UsageError(f"the study needs Linux, and this is {sys.platform}")
        asked.output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        print(f"python -m study: --output: {asked.output}: {error.strerror}", file=sys.stderr)
        return 2
    except UsageError as error:
        print(f"python -m study: {error}", file=sys.stderr)
        return 2
    began = time.monotonic()
    results = run(scenarios, chosen, plan, console)
    try:
        write(results, scenarios, asked.output)
    except OSError as error:
        print(f"python -m study: --output: {asked.output}: {error.strerror}", file=sys.stderr)
        return 1
    show(results, scenarios, console)
    took = time.monotonic() - began
    console.print(f"{took:.0f} s. The report: {asked.output / 'study.html'}")
    return 0
