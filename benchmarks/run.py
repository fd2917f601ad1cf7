"""Measure every peer, interleaved, and report."""

from __future__ import annotations

import argparse
import datetime
import json
import os
import resource
import signal
import sys
import tempfile
from collections.abc import Sequence
from http.client import HTTPException
from importlib.util import find_spec
from pathlib import Path
from types import FrameType
from typing import TypeVar

from attrs import asdict, evolve

from . import measures, peers, plots, report
from .bench import QUICK, Bench, Plan
from .machine import machine, versions
from .parsers import LoadError
from .processes import Cores, StartError
from .results import Results, Spread

_HERE = Path(__file__).parent
_IMAGES = _HERE.parent / "docs" / "images"
_FILES = 12000  # what the idle measures need of file descriptors, with room to spare

Named = TypeVar("Named", measures.Measure, peers.Peer)


def arguments(argv: Sequence[str]) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--rounds", type=int, metavar="N", help="default 5, or 1 with --quick")
    parser.add_argument(
        "--only",
        action="append",
        metavar="MEASURE",
        choices=[measure.name for measure in measures.ALL],
        help="this measure only; repeatable. One of: %(choices)s",
    )
    parser.add_argument(
        "--peers",
        metavar="NAME,NAME",
        help="these only, of: " + ",".join(peer.name for peer in peers.ALL),
    )
    parser.add_argument("--quick", action="store_true", help="one short round")
    parser.add_argument(
        "--output",
        type=Path,
        metavar="DIRECTORY",
        help="where results and plots go. Default: a complete run replaces RESULTS.md, "
        "results.json and the plots in docs/images; any other run only prints",
    )
    options = parser.parse_args(argv)
    if options.rounds is not None and options.rounds < 1:
        parser.error("--rounds: at least 1")
    unknown = set((options.peers or "").split(",")) - {"", *(peer.name for peer in peers.ALL)}
    if unknown:
        parser.error(f"--peers: no such peer: {', '.join(sorted(unknown))}")
    return options


def chosen(everything: Sequence[Named], names: Sequence[str]) -> list[Named]:
    """Those with a given name, or all if none is given, in the order of the tables."""
    return [item for item in everything if not names or item.name in names]


def measure_all(
    bench: Bench, which: Sequence[measures.Measure], who: Sequence[peers.Peer]
) -> Results:
    """Every round, every measure, every peer in turn.

    The peers change places from round to round, so that none always follows the same one.
    """
    results = Results()
    for turn in range(bench.plan.rounds):
        first = turn % len(who)
        for measure in which:
            for peer in (*who[first:], *who[:first]):
                if measure.only is not None and peer.name not in measure.only:
                    continue
                if peer.measures is not None and measure.name not in peer.measures:
                    continue
                try:
                    values = measure.run(bench, peer)
                except (StartError, LoadError, OSError, HTTPException) as failure:
                    print(f"{measure.name}, {peer.name}: {failure}", file=sys.stderr)
                    results.add(measure.name, peer.name, None)
                else:
                    results.add(measure.name, peer.name, values)
            print(f"round {turn + 1} of {bench.plan.rounds}: {measure.name}", file=sys.stderr)
    return results


def write(results: Results, context: report.Context, directory: Path, images: Path) -> None:
    """Write RESULTS.md, results.json and the plots."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "RESULTS.md").write_text(report.document(results, context))
    record = {
        "date": context.date,
        "machine": context.machine,
        "versions": context.versions,
        "plan": asdict(context.plan),
        "disturbance": context.disturbance and asdict(context.disturbance),
        "samples": results.samples,
        "summary": report.summary(results, context.peers),
    }
    (directory / "results.json").write_text(json.dumps(record, indent=1) + "\n")
    plots.draw(results, context.peers, images)


def main(argv: Sequence[str]) -> int:
    """
    Run what the command line asks for; 1 if a peer failed a measure.

    Raises `ModuleNotFoundError` at once if a peer that is asked for needs what is not there.
    """
    options = arguments(argv)
    which = chosen(measures.ALL, options.only or [])
    who = chosen(peers.ALL, options.peers.split(",") if options.peers else [])
    if any(peer.name.startswith("uvloop") for peer in who) and find_spec("uvloop") is None:
        raise ModuleNotFoundError(name="uvloop")
    plan = QUICK if options.quick else Plan()
    plan = evolve(plan, rounds=options.rounds or plan.rounds)

    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    if most < _FILES:
        print(f"needs {_FILES} open files a process (ulimit -Hn), not {most}", file=sys.stderr)
        return 2
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    signal.signal(signal.SIGTERM, _leave)
    cores = Cores.split(os.sched_getaffinity(0))
    context = report.Context(
        datetime.datetime.now(datetime.UTC).date().isoformat(), machine(), versions(), plan, who
    )
    os.sched_setaffinity(0, cores.load)
    with tempfile.TemporaryDirectory(prefix="evproxy-benchmarks-") as directory:
        bench = Bench(cores, Path(directory), plan)
        results = measure_all(bench, which, who)
    context = evolve(context, disturbance=Spread.of(bench.disturbances))

    print(report.document(results, context))
    complete = not (options.only or options.peers or options.quick)
    if options.output:
        write(results, context, options.output, options.output)
    elif complete:
        write(results, context, _HERE, _IMAGES)
    return 1 if results.failures() else 0


def _leave(number: int, frame: FrameType | None) -> None:
    """End as if interrupted, so that every process that was started is ended too."""
    raise KeyboardInterrupt
