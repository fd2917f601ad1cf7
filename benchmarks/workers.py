"""``python -m benchmarks.workers``: how many more connections a second two workers carry than one.

The load tools need more of a core than a proxy, so that on a machine of two cores they are the
limit, and not the proxy.  Therefore each process of the proxy gets a part of a core only, by the
kernel's quotas (control groups, version 1, controller ``cpu``), and the load tools have the rest.
The ratio of connections a second is then what workers of their own cores would have.  HAProxy with
one and with two threads, each with the same quota, says what the load tools leave possible.

It needs root, because of the control groups, and wrk, nginx and HAProxy.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from .loads import wrk
from .network import free_port, wait_until
from .peers import Forward
from .peers.native import SPLICE_AUTO, haproxy
from .peers.python import configuration, evproxy_from
from .processes import Command, Running, server
from .upstreams import HttpUpstream, http_upstream

GROUPS = Path("/sys/fs/cgroup/cpu")
"""Where the controller ``cpu`` is mounted."""

PERIOD = 20_000
"""Microseconds after which a quota begins anew."""

CONNECTIONS = 100
"""How many connections wrk has open at once."""

SECONDS = 4.0
"""How long the connections of one run are counted, after a second that is not."""


@contextmanager
def groups(count: int, share: float) -> Iterator[list[Path]]:
    """`count` control groups, each of which may use `share` of a core."""
    made = [GROUPS / f"evproxy-benchmark-{os.getpid()}-{number}" for number in range(count)]
    with ExitStack() as stack:
        for group in made:
            group.mkdir()
            stack.callback(_removed, group)
            (group / "cpu.cfs_period_us").write_text(str(PERIOD))
            (group / "cpu.cfs_quota_us").write_text(str(round(PERIOD * share)))
        yield made


def _removed(group: Path) -> None:
    """Remove `group` once its processes are gone."""

    def gone() -> bool:
        with suppress(OSError):
            group.rmdir()
        return not group.exists()

    wait_until(gone, f"the end of what runs in {group}")


def _command(kind: str, count: int, listen: int, upstream: int, directory: Path) -> Command:
    """The program `kind` with `count` processes or threads."""
    if kind == "evproxy":
        path = directory / "evproxy.toml"
        text = configuration({listen: [f"127.0.0.1:{upstream}"]})
        path.write_text(f"workers = {count}\n{text}")
        return evproxy_from(path)
    made = haproxy(SPLICE_AUTO)([Forward(listen, upstream)], directory)
    path = Path(made.argv[-1])
    path.write_text(path.read_text().replace("nbthread 1", f"nbthread {count}"))
    return made


def _parts(kind: str, pid: int, count: int) -> tuple[str, list[str]]:
    """The processes or threads that do the work, and the file of a group that takes them."""
    tasks = Path(f"/proc/{pid}/task")
    if kind == "haproxy":
        wait_until(lambda: len(list(tasks.iterdir())) == count, f"{count} threads")
        return "tasks", [task.name for task in tasks.iterdir()]
    if count == 1:
        return "cgroup.procs", [str(pid)]
    children = tasks / str(pid) / "children"
    wait_until(lambda: len(children.read_text().split()) == count, f"{count} workers")
    workers = children.read_text().split()
    for worker in workers:
        # It listens before it serves.
        Running(int(worker)).wait_quiet()
    return "cgroup.procs", workers


def rate(
    kind: str, count: int, share: float, upstream: HttpUpstream, cores: frozenset[int], path: Path
) -> float:
    """Connections a second of the program `kind` with `count` processes or threads."""
    listen = free_port()
    command = _command(kind, count, listen, upstream.port, path)
    with (
        groups(count, share) as made,
        server(command, cores, [listen], path / "proxy.log") as proxy,
    ):
        file, parts = _parts(kind, proxy.pid, count)
        for group, part in zip(made, parts, strict=True):
            (group / file).write_text(part)
        with wrk(listen, CONNECTIONS, cores, new_connection_each=True):
            time.sleep(1)
            before, began = upstream.counters().requests, time.monotonic()
            time.sleep(SECONDS)
            return (upstream.counters().requests - before) / (time.monotonic() - began)


def main(arguments: Sequence[str]) -> None:
    """Print the rates of one and of two, and their ratio, for evproxy and for HAProxy."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.workers", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, metavar="N", help="default 5")
    parser.add_argument(
        "--share", type=float, default=0.2, help="of a core for each process; default 0.2"
    )
    options = parser.parse_args(arguments)
    kinds, cores = ("evproxy", "haproxy"), frozenset(os.sched_getaffinity(0))
    rates: dict[tuple[str, int], list[float]] = {
        (kind, count): [] for kind in kinds for count in (1, 2)
    }
    with (
        tempfile.TemporaryDirectory() as name,
        http_upstream(cores, Path(name)) as upstream,
    ):
        for number in range(options.rounds):
            for kind, count in list(rates)[:: -1 if number % 2 else 1]:
                found = rate(kind, count, options.share, upstream, cores, Path(name))
                rates[kind, count].append(found)
                print(f"{kind}, {count}: {found:,.0f}/s", flush=True)
    for kind in kinds:
        one, two = rates[kind, 1], rates[kind, 2]
        ratios = sorted(double / single for single, double in zip(one, two, strict=True))
        print(
            f"{kind}: {statistics.median(one):,.0f}/s with one, "
            f"{statistics.median(two):,.0f}/s with two: {statistics.median(ratios):.2f} times "
            f"({ratios[0]:.2f} to {ratios[-1]:.2f})"
        )


if __name__ == "__main__":
    main(sys.argv[1:])
